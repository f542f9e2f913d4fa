"""Scratch folders of running jobs, on this machine's disk."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NEW, AT_WORK = ".new-", "job-"


@contextmanager
def workspace(scratch: Path) -> Iterator[Path]:
    """A private folder, deleted afterwards. Its owner holds a lock on it, which ends with the process."""
    scratch.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=NEW, dir=scratch))
    handle = os.open(made, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        folder = made.rename(scratch / made.name.replace(NEW, AT_WORK))  # hidden from `sweep` until it is locked
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(handle)


def sweep(scratch: Path) -> int:
    """Delete the folders of killed workers. Returns how many were deleted."""
    swept = 0
    for folder in scratch.glob(f"{AT_WORK}*"):
        with suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
                swept += 1
            finally:
                os.close(handle)
    return swept
