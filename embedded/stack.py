"""The service with all its servers, in one folder: what `make serve`, `make demo` and the end-to-end tests run."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import urllib3

from embedded import servers
from embedded.supervisor import Program, Supervisor, write_private
from shared.broker import make_celery
from shared.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
BUCKET = "bootlora"
USER = "local"
# Its soft shutdown gives a running job 20 seconds to lay down its work.
GPU_STOP_SECONDS = 30


class Stack:
    """A running service. Use it as a context manager: entering starts everything, leaving stops it.

    What it needs is kept below `data_dir`: tables, objects, queue, secrets, logs. `database_url` may name
    another database; `settings` adds `BOOTLORA_*` variables, or overrides them.
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

    def __enter__(self) -> Stack:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.supervisor.__enter__()
        try:
            self._start()
        except BaseException:  # Ctrl-C included: whatever has begun must end
            self.supervisor.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.supervisor.close()

    def kill(self, name: str) -> None:
        """`kill -9`; the process comes back by itself."""
        self.supervisor.kill(name)

    def restart(self, name: str) -> None:
        self.supervisor.restart(name)

    def await_ready(self, name: str) -> None:
        self.supervisor.await_ready(name)

    def admin(self, *words: str) -> str:
        """Run one of the operator's commands, and return what it prints."""
        command = [sys.executable, "-m", "shared.admin", *words]
        done = subprocess.run(
            command, env={**os.environ, **self.environment}, cwd=ROOT, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(words[:1])} failed:\n{done.stderr.strip()}")
        return done.stdout.strip()

    def _start(self) -> None:
        self._secrets = known_secrets(self.data_dir / "secrets.json")
        broker_port, api_port, *s3_ports = servers.free_ports(7)
        api_port = self._port or api_port
        self.url = f"http://{servers.HOST}:{api_port}"
        self.environment = self._environment(broker_port, s3_ports[0])
        self.report("starting valkey and seaweedfs")
        self.supervisor.start(
            servers.valkey(self.data_dir / "valkey", broker_port, self._secrets["broker_password"]),
            servers.seaweedfs(
                self.data_dir / "seaweedfs", s3_ports, self._secrets["s3_access_key"], self._secrets["s3_secret_key"]
            ),
        )
        self.report("preparing the tables and the bucket")
        self.admin("migrate")
        self.admin("create-bucket")
        self.api_key = self._first_key()
        self.report("starting the workers and the api")
        self.supervisor.start(self._gpu_worker(), self._io_worker(), self._api(api_port))

    def _environment(self, broker_port: int, s3_port: int) -> dict[str, str]:
        endpoint = f"http://{servers.HOST}:{s3_port}"
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
            # Who tries webhooks here has the receiver on the same machine.
            "WEBHOOK_ALLOW_HTTP": "true",
            "WEBHOOK_ALLOW_NETWORKS": "127.0.0.1/32",
        }
        return {**{f"BOOTLORA_{name}": value for name, value in named.items()}, **self._settings}

    def _first_key(self) -> str:
        """The API key of this folder's first user, made when the database is new."""
        kept = self._secrets["api_keys"]
        if self.database_url not in kept:
            with contextlib.suppress(RuntimeError):  # an interrupted first start may have made the user already
                self.admin("create-user", USER, "--role", "admin")
            kept[self.database_url] = self.admin("create-key", USER)
            write_private(self.data_dir / "secrets.json", json.dumps(self._secrets, indent=2))
        return kept[self.database_url]

    def _gpu_worker(self) -> Program:
        # One process for the GPU. Only prefork can be told to lay down its work at once, and SIGQUIT tells it.
        return self._worker("gpu", 1, "prefork", GPU_STOP_SECONDS, {"REMAP_SIGTERM": "SIGQUIT"})

    def _io_worker(self) -> Program:
        # Its few numbers must not fight the training for the cores.
        return self._worker("io", 4, "threads", 15, {"OMP_NUM_THREADS": "1"})

    def _worker(self, queue: str, count: int, pool: str, stop_seconds: float, more: dict[str, str]) -> Program:
        node = f"{queue}@{socket.gethostname()}"
        command = [
            *(sys.executable, "-m", "celery", "-A", "workers.tasks", "worker", "--loglevel", "INFO"),
            *("-Q", queue, "-c", str(count), "-P", pool, "-n", f"{queue}@%h", "--without-gossip", "--without-mingle"),
        ]
        return Program(
            name=f"worker-{queue}",
            command=command,
            environment={**self.environment, **more},
            is_ready=lambda: self._celery_answers(node),
            stop_seconds=stop_seconds,
            folder=ROOT,
        )

    def _api(self, port: int) -> Program:
        command = [
            *(sys.executable, "-m", "gunicorn", "--bind", f"{servers.HOST}:{port}", "--no-control-socket"),
            *("--worker-class", "gthread", "--threads", "16", "--graceful-timeout", "5", "api.wsgi:app"),
        ]
        return Program(
            name="api",
            command=command,
            environment=self.environment,
            is_ready=lambda: urllib3.request("GET", f"{self.url}/healthz", retries=False, timeout=2).status == 200,
            folder=ROOT,
        )

    def _celery_answers(self, node: str) -> bool:
        value = self.environment
        settings = Settings(
            database_url=self.database_url,
            broker_url=value["BOOTLORA_BROKER_URL"],
            storage_url=value["BOOTLORA_STORAGE_URL"],
            secret_key=value["BOOTLORA_SECRET_KEY"],
        )
        with make_celery(settings) as app:
            return bool(app.control.ping(destination=[node], timeout=1))


def known_secrets(file: Path) -> dict[str, Any]:
    """This folder's secrets, made at random on the first start and readable by its owner only."""
    if file.exists():
        return json.loads(file.read_text())
    made = {
        "secret_key": secrets.token_urlsafe(48),
        "broker_password": secrets.token_hex(24),
        "s3_access_key": secrets.token_hex(10),
        "s3_secret_key": secrets.token_hex(24),
        "api_keys": {},  # of the first user, by database
    }
    write_private(file, json.dumps(made, indent=2))
    return made
