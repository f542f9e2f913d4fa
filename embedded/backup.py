"""Back up the folder of a stopped service into one file, and restore it.

A backup leaves out the broker's data: the jobs table is the queue, and its waiting jobs are sent again after a restore.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from embedded.stack import ROOT
from embedded.supervisor import InUse, end_leftovers, lock

DATABASE = "bootlora.db"
PARTS = ("secrets.json", "seaweedfs")
DATA = click.option("--data", type=click.Path(path_type=Path), default=ROOT / "data", help="The service's folder.")
FILE = click.argument("file", type=click.Path(dir_okay=False, path_type=Path))


@click.command("backup")
@DATA
@FILE
def backup_command(data: Path, file: Path) -> None:
    """Write the folder of a stopped service into one file."""
    with _reporting_errors():
        size = backup(data.absolute(), file)
    click.echo(f"bootlora: {data} is backed up in {file}, {size / 1e6:.1f} MB; it contains secrets, so keep it safe")


@click.command("restore")
@DATA
@FILE
def restore_command(data: Path, file: Path) -> None:
    """Make a service's folder from a backup. The folder must be empty or not exist."""
    with _reporting_errors():
        restore(file, data.absolute())
    click.echo(f"bootlora: {data} is restored; start the service with --data {data}")


def backup(data: Path, file: Path) -> int:
    """Write the backup and return its size in bytes. Only the owner can read it. A failed backup leaves no file."""
    if not (data / DATABASE).exists():
        raise FileNotFoundError(f"{data} contains no {DATABASE}; name the folder of a service that uses SQLite")
    with contextlib.closing(lock(data / "lock")), _part_of(file) as part, tempfile.TemporaryDirectory() as scratch:
        end_leftovers(data / "pids.json")
        copy = Path(scratch) / DATABASE
        _copy_database(data / DATABASE, copy)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as target:
            with tarfile.open(fileobj=target, mode="w:gz", compresslevel=1) as archive:
                archive.add(copy, DATABASE)
                for name in PARTS:
                    archive.add(data / name, name)
            target.flush()
            os.fsync(target.fileno())
    return file.stat().st_size


def restore(file: Path, data: Path) -> None:
    if data.exists() and any(data.iterdir()):
        raise FileExistsError(f"{data} is not empty; restore into a new folder")
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tarfile.open(file) as archive:
        archive.extractall(data, filter="data")
    with contextlib.closing(sqlite3.connect(data / DATABASE)) as database:
        (verdict,) = database.execute("PRAGMA integrity_check").fetchone()
    if verdict != "ok":
        raise OSError(f"the database in {file} is damaged: {verdict}")


def _copy_database(source: Path, target: Path) -> None:
    """Copy the database together with its write-ahead log."""
    with contextlib.closing(sqlite3.connect(source)) as old, contextlib.closing(sqlite3.connect(target)) as new:
        old.backup(new)


@contextlib.contextmanager
def _part_of(file: Path) -> Iterator[Path]:
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def _reporting_errors() -> Iterator[None]:
    try:
        yield
    except (InUse, OSError, tarfile.TarError) as error:
        raise SystemExit(f"bootlora: {error}") from None
