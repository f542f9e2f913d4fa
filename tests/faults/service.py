"""The whole service with proxies between its parts, and a view of its tables that no fault reaches."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import psutil
import urllib3
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from embedded import servers
from embedded.stack import USER, Stack
from embedded.supervisor import Program
from shared import images, users
from shared.catalog import base_models
from shared.catalog.kinds import CROP, GENERATE, CropInputs, GenerateInputs
from shared.catalog.params import WantedPicture
from shared.lifecycle import TERMINAL_JOB_STATES
from shared.models import Image, Job, Project, User, Worker
from shared.outside.db import Database, clock
from shared.outside.secrets import Vault
from shared.queue import jobs
from shared.queue.broker import Broker
from shared.runtime import Runtime, open_storage
from shared.settings import Settings
from tests.domain import make_project, make_user
from tests.faults.handlers import TroubledCrop, TroubledGenerate
from tests.faults.proxy import Proxy

T = TypeVar("T")

# Short, so that faults are noticed in seconds; long enough that a busy machine is none.
QUICK = {
    "LEASE_SECONDS": "6",
    "HEARTBEAT_SECONDS": "0.5",
    "REDISPATCH_SECONDS": "5",
    "WORKER_SEEN_SECONDS": "6",
    "KILL_AFTER_SECONDS": "3",
    "MAX_WORKER_BYTES": "500000000",
    "MAX_RUNNING_JOBS": "10",
    "MAX_QUEUED_JOBS": "500",
    "SUBMITS_PER_MINUTE": "100000",
    "REQUESTS_PER_MINUTE": "100000",
    "WEBHOOK_RETRY_SECONDS": "1,1,1,1,1",
    "WEBHOOK_TIMEOUT_SECONDS": "5",
}
PATIENCE_SECONDS = 120  # for what takes a second on a machine that has nothing else to do


class Service(Stack):
    """Every connection of its workers and its API goes through a proxy: `broker`, `store`, and `database` if Postgres.

    `runtime` is the test's own, and goes straight.
    """

    broker: Proxy
    store: Proxy
    database: Proxy | None = None
    runtime: Runtime

    def __init__(self, folder: Path, *, postgres: tuple[str, Path] | None = None, workers: int = 1, **settings: str):
        self.postgres = postgres
        self.gpu_workers = workers
        self.straight_database_url = postgres[0] if postgres else f"sqlite:///{folder.absolute() / 'bootlora.db'}"
        if postgres:
            self.database = Proxy(postgres[1])
            name = postgres[0].partition("?")[0].rpartition("/")[2]
            through = f"postgresql+psycopg://postgres@127.0.0.1:{self.database.port}/{name}"
        super().__init__(
            folder,
            database_url=through if postgres else None,
            settings={f"BOOTLORA_{name}": value for name, value in {**QUICK, **settings}.items()},
        )

    def _start(self) -> None:
        super()._start()
        with mock.patch.dict(os.environ, self._straight | {"BOOTLORA_DATABASE_URL": self.straight_database_url}):
            settings = Settings.from_env()
        self.runtime = Runtime(
            settings=settings,
            db=Database(settings.database_url),
            storage=open_storage(settings),
            broker=Broker(settings),
            vault=Vault(settings.secret_key),
            base_models=base_models(),
        )
        for number in range(2, self.gpu_workers + 1):
            self.add_worker(f"gpu{number}")

    def __exit__(self, *_: object) -> None:
        self.heal()
        self.runtime.close()
        super().__exit__()
        for proxy in self.proxies:
            proxy.close()

    @property
    def proxies(self) -> list[Proxy]:
        return [proxy for proxy in (self.broker, self.store, self.database) if proxy is not None]

    def heal(self) -> None:
        for proxy in self.proxies:
            proxy.heal()

    def _environment(self, broker_port: int, s3_ports: list[int]) -> dict[str, str]:
        self.broker, self.store = Proxy((servers.HOST, broker_port)), Proxy((servers.HOST, s3_ports[0]))
        self._straight = super()._environment(broker_port, s3_ports)
        return super()._environment(self.broker.port, [self.store.port])

    def _celery_worker(self, queue: str, *more: Any) -> Program:
        program = super()._celery_worker(queue, *more)
        return replace(program, command=["tests.faults.worker" if w == "workers.tasks" else w for w in program.command])

    def add_worker(self, name: str, **environment: str) -> None:
        """Another worker of the GPU queue."""
        first = self._gpu_worker()
        program = replace(
            first,
            name=f"worker-{name}",
            command=[word.replace("gpu@", f"{name}@") for word in first.command],
            environment={**first.environment, **environment},
            is_ready=lambda: self._has_checked_in(name),
        )
        self.supervisor.start(program)

    # --- what is asked of it

    def user(self, name: str, **over: Any) -> User:
        with self.runtime.db.transaction() as session:
            return make_user(session, name, **over)

    def local_user(self) -> User:
        """The one whose API key it is."""
        with self.runtime.db.reading() as session:
            return users.by_name(session, USER)

    def project(self, user: User, **over: Any) -> Project:
        with self.runtime.db.transaction() as session:
            return make_project(session, user, references=0, **over)

    def submit(self, project: Project, pictures: int = 4, **params: Any) -> Job:
        """A generation, accepted; `params` are for the handler."""
        with self.runtime.transaction() as session:
            return enqueue(session, project, pictures, params)

    def mark_as_sent(self, project: Project, seconds: float) -> Job:
        """A job whose message was sent `seconds` from now, says its row; it was not."""
        with self.runtime.db.transaction() as session:  # sends nothing after the commit
            job = enqueue(session, project, 1, {})
            session.execute(update(Job).where(Job.id == job.id).values(dispatched_at=clock(seconds)))
            return job

    def post(self, path: str, body: dict[str, Any] | None = None, **headers: str) -> urllib3.BaseHTTPResponse:
        """Ask the API, as the service's first user."""
        given = {"Authorization": f"Bearer {self.api_key}", **headers}
        return urllib3.request(
            "POST", f"{self.url}/v1{path}", json=body or {}, headers=given, retries=False, timeout=90
        )

    def upload(self, project: Project, picture: bytes) -> urllib3.BaseHTTPResponse:
        url = f"{self.url}/v1/projects/{project.id}/images"
        given = {"Authorization": f"Bearer {self.api_key}"}
        form = {"file": ("a.png", picture, "image/png")}
        return urllib3.request("POST", url, fields=form, headers=given, retries=False, timeout=90)

    # --- what is seen of it

    def job(self, job: Job) -> Job:
        return self.job_of_id(job.id)

    def job_of_id(self, job_id: str) -> Job:
        with self.runtime.db.reading() as session:
            return session.get_one(Job, job_id)

    def all_jobs(self) -> list[Job]:
        with self.runtime.db.reading() as session:
            return list(session.scalars(select(Job).order_by(Job.id)))

    def live_workers(self) -> set[str]:
        alive = Worker.seen_at > clock(-self.runtime.settings.worker_seen_seconds)
        with self.runtime.db.reading() as session:
            return {name.partition("@")[0] for name in session.scalars(select(Worker.name).where(alive))}

    def done_pictures(self, job: Job) -> int:
        return len((self.job(job).checkpoint or {}).get("images", {}))

    def await_done(self, *jobs_: Job, seconds: float = PATIENCE_SECONDS) -> list[Job]:
        """Wait until they have ended, in whatever way."""
        self.await_that(lambda: all(self.job(job).state in TERMINAL_JOB_STATES for job in jobs_), seconds=seconds)
        return [self.job(job) for job in jobs_]

    def await_running(self, job: Job, pictures: int = 1) -> Job:
        self.await_that(lambda: self.job(job).state == "running" and self.done_pictures(job) >= pictures)
        return self.job(job)

    def await_quiet(self, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until nothing waits or runs, nor what followed from it."""
        self.await_that(lambda: all(job.state in TERMINAL_JOB_STATES for job in self.all_jobs()), seconds=seconds)

    def await_that(self, condition: Callable[[], T], seconds: float = PATIENCE_SECONDS) -> T:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := condition():
                return found
            time.sleep(0.1)
        raise AssertionError(f"it did not come to that in {seconds} s: {[(j.id, j.state) for j in self.all_jobs()]}")

    def secrets(self) -> dict[str, str]:
        """What must never stand in a log."""
        kept = {name: value for name, value in self._secrets.items() if isinstance(value, str)}
        del kept["s3_access_key"]  # a name, not a secret
        return {**kept, "api_key": self.api_key}

    def logs(self) -> Iterator[Path]:
        return (self.data_dir / "logs").glob("*.log")

    # --- processes

    def processes(self, name: str) -> list[psutil.Process]:
        """A worker's main process, and its children."""
        main = psutil.Process(self.supervisor.processes[name].popen.pid)
        return [main, *main.children(recursive=True)]

    def child_of(self, name: str) -> psutil.Process:
        """The process of a worker that does its jobs."""
        return self.await_that(lambda: self.processes(name)[1:])[0]

    def terminate_group(self, name: str) -> None:
        """Tell a worker and its child to end, as systemd does."""
        os.killpg(self.supervisor.processes[name].popen.pid, signal.SIGTERM)

    @contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """A worker that stands still, and goes on later as if nothing had happened."""
        group = self.supervisor.processes[name].popen.pid
        os.killpg(group, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(group, signal.SIGCONT)


def enqueue_crop(session: Session, project: Project, image_id: str, params: dict[str, Any]) -> Job:
    inputs = CropInputs(base_model="chibi", image=images.as_input(session.get_one(Image, image_id)))
    trouble = TroubledCrop(**params)
    return jobs.enqueue(session, session.get_one(Project, project.id), CROP, params=trouble, inputs=inputs)


def enqueue(session: Session, project: Project, pictures: int, params: dict[str, Any]) -> Job:
    wanted = [WantedPicture(prompt="a", seed=seed) for seed in range(pictures)]
    inputs = GenerateInputs(base_model="chibi", pictures=wanted, loras=[])
    trouble = TroubledGenerate(**params)
    return jobs.enqueue(session, session.get_one(Project, project.id), GENERATE, params=trouble, inputs=inputs)
