from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from embedded.backup import backup, restore
from embedded.supervisor import InUse, lock


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder like that of a stopped service; its last transaction is still in the write-ahead log."""
    folder = tmp_path / "data"
    (folder / "seaweedfs").mkdir(parents=True)
    (folder / "seaweedfs" / "1.dat").write_bytes(b"objects")
    (folder / "secrets.json").write_text("{}")
    database = sqlite3.connect(folder / "bootlora.db", isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("CREATE TABLE jobs (id)")
    database.execute("INSERT INTO jobs VALUES ('job_1')")
    database.close()
    return folder


def test_a_backup_is_restored(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "backup.tar.gz"
    backup(data, file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    restore(file, tmp_path / "other")
    with closing(sqlite3.connect(tmp_path / "other" / "bootlora.db")) as database:
        assert database.execute("SELECT id FROM jobs").fetchall() == [("job_1",)]
    assert (tmp_path / "other" / "seaweedfs" / "1.dat").read_bytes() == b"objects"


def test_a_running_service_is_not_backed_up(data: Path, tmp_path: Path) -> None:
    with closing(lock(data / "lock")), pytest.raises(InUse):
        backup(data, tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


def test_a_restore_needs_an_empty_folder(data: Path, tmp_path: Path) -> None:
    backup(data, tmp_path / "backup")
    with pytest.raises(FileExistsError):
        restore(tmp_path / "backup", data)
