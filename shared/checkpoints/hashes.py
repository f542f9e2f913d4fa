"""SHA-256 of base models, kept in a file so that each is computed once: by path, sizes and times."""

from __future__ import annotations

import fcntl
import hashlib
import os
from contextlib import suppress
from pathlib import Path

import msgspec

from shared.checkpoints.scan import Stamp, stamp_of

FILE = "base-model-hashes.json"  # in the scratch folder
CHUNK = 2**20

Known = dict[str, tuple[str, str]]  # by path: the digest of the stamp, the SHA-256


def known(scratch: Path) -> Known:
    """What has been computed on this machine. A file that can't be read counts as empty."""
    with suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode((scratch / FILE).read_bytes(), type=Known)
    return {}


def look_up(known: Known, path: Path, stamp: Stamp) -> str:
    """The SHA-256 of a model with these sizes and times; empty if it has not been computed."""
    digest, sha256 = known.get(str(path), ("", ""))
    return sha256 if digest == _digest(stamp) else ""


def sha256(path: Path, scratch: Path) -> str:
    """The SHA-256 of a file, or that of a folder: over the names and hashes of all its files. Computed if need be.

    Raises:
        OSError: a file can't be read.
        BadModel: the folder holds too many files.
    """
    stamp = stamp_of(path)
    found = look_up(known(scratch), path, stamp)
    if not found:
        found = _of_folder(path, stamp) if path.is_dir() else _of_file(path)
        if stamp_of(path) == stamp:  # else it changed meanwhile, and the hash is of neither
            _remember(scratch, path, stamp, found)
    return found


def _of_folder(folder: Path, stamp: Stamp) -> str:
    lines = (f"{name}\0{_of_file(folder / name)}\n" for name, _, _ in stamp)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _of_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _remember(scratch: Path, path: Path, stamp: Stamp, sha256: str) -> None:
    """Add a hash to the file. A lock lets workers on one machine write one after the other."""
    scratch.mkdir(parents=True, exist_ok=True)
    with (scratch / f"{FILE}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        written = {each: value for each, value in known(scratch).items() if Path(each).exists()}
        partial = scratch / f"{FILE}.part"
        partial.write_bytes(msgspec.json.encode(written | {str(path): (_digest(stamp), sha256)}))
        os.replace(partial, scratch / FILE)


def _digest(stamp: Stamp) -> str:
    return hashlib.sha256(repr(stamp).encode()).hexdigest()
