"""Folders of jobs at work, on this machine's disk."""

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
    """A folder of one's own, gone afterwards. A lock on it says that its owner lives, and ends with its process."""
    scratch.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=NEW, dir=scratch))
    handle = os.open(made, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        folder = made.rename(scratch / made.name.replace(NEW, AT_WORK))  # only now may others look at the lock
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(handle)


def sweep(scratch: Path) -> int:
    """Remove what workers that were killed have left here. Returns how many folders there were."""
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
