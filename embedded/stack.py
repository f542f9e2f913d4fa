"""The service with all its servers, in one folder: what `make serve`, `make demo` and the end-to-end tests run."""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import urllib3
from sqlalchemy.orm import Session

from embedded import servers
from embedded.supervisor import Program, Supervisor, write_private
from shared import users
from shared.admin import upgrade
from shared.errors import NotFound
from shared.models import User
from shared.outside.db import Database
from shared.queue import jobs
from shared.runtime import open_storage
from shared.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
BUCKET = "bootlora"
USER = "local"  # the member whose key `make serve` prints
FIRST_USERS = {USER: "member", "local admin": "admin"}
ADMIN_KEY = "admin-key"  # a file, readable by its owner only
# The settings that are needed to make the tables, the bucket and the first key.
PLACES = (
    *("database_url", "broker_url", "storage_url", "secret_key"),
    *("s3_endpoint", "s3_public_endpoint", "s3_access_key", "s3_secret_key", "s3_region"),
)
# Enough for a step, a checkpoint and its upload. A job that takes longer is requeued, as if its worker had been lost.
GPU_STOP_SECONDS = 30


class Stack:
    """A running service. Use it as a context manager: entering starts everything, leaving stops it.

    `data_dir` holds its tables, objects, queue, secrets and logs. `database_url` may name another database. `settings`
    adds or overrides `BOOTLORA_*` variables.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        database_url: str | None = None,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        report: Callable[[str], None] = lambda line: None,
    ):
        self.data_dir = data_dir.absolute()
        self.database_url = database_url or f"sqlite:///{self.data_dir / 'bootlora.db'}"
        self.environment: dict[str, str] = {}
        self.url = ""
        self.api_key = ""
        self.report = report
        self.supervisor = Supervisor(self.data_dir, report)
        self._port = port
        self._settings = dict(settings or {})
        self._secrets: dict[str, Any] = {}
        self._database = Database(self.database_url)

    def __enter__(self) -> Stack:
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.supervisor.__enter__()
        try:
            self._start()
        except BaseException:  # also Ctrl-C: stop what has been started
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        self.supervisor.close()
        self._database.dispose()

    def kill(self, name: str) -> None:
        """`kill -9` a process. The supervisor starts it again."""
        self.supervisor.kill(name)

    def restart(self, name: str) -> None:
        self.supervisor.restart(name)

    def await_ready(self, name: str) -> None:
        self.supervisor.await_ready(name)

    def _start(self) -> None:
        self._secrets = known_secrets(self.data_dir / "secrets.json")
        broker_port, api_port, *s3_ports = servers.free_ports(7)
        api_port = self._port or api_port
        self.url = f"http://{servers.HOST}:{api_port}"
        self.environment = self._environment(broker_port, s3_ports)
        self.report("starting valkey and seaweedfs")
        self.supervisor.start(
            servers.valkey(self.data_dir / "valkey", broker_port, self._secrets["broker_password"]),
            servers.seaweedfs(
                self.data_dir / "seaweedfs", s3_ports, self._secrets["s3_access_key"], self._secrets["s3_secret_key"]
            ),
        )
        self.report("preparing the tables and the bucket")
        places: dict[str, Any] = {name: self.environment[f"BOOTLORA_{name.upper()}"] for name in PLACES}
        settings = Settings(**places)
        upgrade(settings.database_url)
        open_storage(settings).prepare()
        self.api_key = self._member_key(settings)
        self.report("starting the workers and the api")
        self.supervisor.start(self._gpu_worker(), self._cpu_worker(), self._io_worker(), self._api(api_port))

    def _environment(self, broker_port: int, s3_ports: list[int]) -> dict[str, str]:
        endpoint = f"http://{servers.HOST}:{s3_ports[0]}"
        ours = [port + twin for port in (broker_port, *s3_ports) for twin in (0, servers.GRPC_OFFSET)]
        named = {
            "DATABASE_URL": self.database_url,
            "BROKER_URL": f"redis://:{self._secrets['broker_password']}@{servers.HOST}:{broker_port}/0",
            "STORAGE_URL": f"s3://{BUCKET}",
            "S3_ENDPOINT": endpoint,
            "S3_PUBLIC_ENDPOINT": endpoint,
            "S3_ACCESS_KEY": self._secrets["s3_access_key"],
            "S3_SECRET_KEY": self._secrets["s3_secret_key"],
            "S3_REGION": "us-east-1",
            "SECRET_KEY": self._secrets["secret_key"],
            "PUBLIC_URL": self.url,
            "SCRATCH_DIR": str(self.data_dir / "scratch"),
            "LOG_FORMAT": "console",
            # Allow webhook receivers on the same machine.
            "WEBHOOK_ALLOW_HTTP": "true",
            "WEBHOOK_ALLOW_NETWORKS": "127.0.0.1/32,::1/128",  # localhost may be either
            "WEBHOOK_DENY_PORTS": ",".join(map(str, ours)),
        }
        return {**{f"BOOTLORA_{name}": value for name, value in named.items()}, **self._settings}

    def _member_key(self, settings: Settings) -> str:
        """The API key of this folder's member. For a new database, make it, and write the admin's key to a file."""
        kept = self._secrets.setdefault("member_keys", {})
        if settings.database_url not in kept:
            with self._database.transaction() as session:
                member_key, admin_key = (
                    users.create_key(
                        session,
                        first_user(session, name, role),
                        settings.secret_key,
                        name="first key",
                        scopes=users.scopes_of(role),
                    )[1]
                    for name, role in FIRST_USERS.items()
                )
            kept[settings.database_url] = member_key
            write_private(self.data_dir / ADMIN_KEY, f"{admin_key}\n")
            write_private(self.data_dir / "secrets.json", json.dumps(self._secrets, indent=2))
            self.report(f"the admin's key is in {self.data_dir / ADMIN_KEY}")
        return kept[settings.database_url]

    def _gpu_worker(self) -> Program:
        # One thread, unless OMP_NUM_THREADS says otherwise. Threads wait for each other at every operation. With a base
        # model as small as Chibi, a second thread saves a sixth of the time on idle cores, but makes training four
        # times as slow beside one other busy process.
        more = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        # Threads that wait for each other spin for a moment, then sleep. With endless spinning they compete with all
        # other processes (a training step takes eight seconds instead of one). Without any, they are woken hundreds of
        # times a step (.27 s instead of .11 on two idle cores, .62 on busy ones).
        more |= {"GOMP_SPINCOUNT": "10000"}
        # Each step allocates large tensors. It takes a fifth less time if malloc keeps their memory.
        more |= {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "4294967296"}
        return self._celery_worker("gpu", GPU_STOP_SECONDS, more)

    def _cpu_worker(self) -> Program:
        # One thread, so that scoring leaves a core to the training.
        return self._celery_worker("cpu", 15, {"OMP_NUM_THREADS": "1"})

    def _io_worker(self) -> Program:
        return self._worker("io", [sys.executable, "-m", "workers.io"], 15, {})

    def _celery_worker(self, queue: str, stop_seconds: float, more: dict[str, str]) -> Program:
        command = [
            *(sys.executable, "-m", "celery", "-A", "workers.tasks", "worker", "--loglevel", "INFO"),
            *("-Q", queue, "-c", "1", "-P", "prefork", "-n", f"{queue}@%h", "--without-gossip", "--without-mingle"),
        ]
        return self._worker(queue, command, stop_seconds, more)

    def _worker(self, queue: str, command: list[str], stop_seconds: float, more: dict[str, str]) -> Program:
        return Program(
            name=f"worker-{queue}",
            command=command,
            environment={**self.environment, **more},
            is_ready=lambda: self._has_checked_in(queue),
            stop_seconds=stop_seconds,
            folder=ROOT,
        )

    def _api(self, port: int) -> Program:
        command = [
            *(sys.executable, "-m", "gunicorn", "--bind", f"{servers.HOST}:{port}", "--no-control-socket"),
            *("--worker-class", "api.server.Worker", "--threads", "16", "--graceful-timeout", "5", "api.wsgi:app"),
        ]
        return Program(
            name="api",
            command=command,
            environment=self.environment,
            is_ready=lambda: urllib3.request("GET", f"{self.url}/healthz", retries=False, timeout=2).status == 200,
            folder=ROOT,
        )

    def _has_checked_in(self, short_name: str) -> bool:
        """Whether the worker has checked in since its process started; an older entry may be its predecessor's."""
        age = time.monotonic() - self.supervisor.processes[f"worker-{short_name}"].started_at
        with self._database.reading() as session:
            return jobs.is_alive(session, f"{short_name}@{socket.gethostname()}", age)


def first_user(session: Session, name: str, role: str) -> User:
    """The user of this name. It exists already if an earlier start was interrupted, or if an older version made it."""
    try:
        return users.by_name(session, name)
    except NotFound:
        return users.create(session, name, role)


def known_secrets(file: Path) -> dict[str, Any]:
    """This folder's secrets. The first start makes them at random; only the owner can read them."""
    if file.exists():
        return json.loads(file.read_text())
    made = {
        "secret_key": secrets.token_urlsafe(48),
        "broker_password": secrets.token_hex(24),
        "s3_access_key": secrets.token_hex(10),
        "s3_secret_key": secrets.token_hex(24),
        "member_keys": {},  # by database
    }
    write_private(file, json.dumps(made, indent=2))
    return made
