"""Every fault in any order, for as long as is asked: `make soak`."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import redis

from shared import rounds
from shared.errors import Conflict, Unavailable
from shared.lifecycle import ProjectState
from shared.models import Job, Project
from tests import servers
from tests.faults.conftest import Trial, database_of
from tests.faults.invariants import assert_invariants
from tests.faults.service import Service

pytestmark = pytest.mark.soak

AT_ONCE = 12  # jobs that wait or run


@pytest.fixture(params=["sqlite", "postgres"])
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    server: servers.Postgres | None = None
    if request.param == "postgres":
        server = request.getfixturevalue("postgres")
    # So many faults hit one job now and then that none of them may be its last.
    with Service(tmp_path / "service", postgres=database_of(server), workers=2, MAX_LOST_ATTEMPTS="1000") as service:
        yield service


class Mischief:
    """What may happen, each as one method; which and when follows from a seed."""

    def __init__(self, trial: Trial, seed: int):
        self.trial, self.service, self.random = trial, trial.service, random.Random(seed)

    def kill_a_child(self) -> None:
        with suppress(IndexError):
            self.service.processes(self.a_worker())[1].kill()

    def kill_a_worker(self) -> None:
        self.service.kill(self.random.choice(["worker-gpu", "worker-gpu2", "worker-cpu", "worker-io"]))

    def freeze_a_worker(self) -> None:
        # With SQLite's one write lock in hand, maybe: so it thaws before the others have waited their 30 s in vain.
        with self.service.frozen(self.a_worker()):
            time.sleep(self.random.uniform(1, 9))

    def restart_a_worker(self) -> None:
        self.service.restart(self.a_worker())

    def kill_the_broker(self) -> None:
        self.service.kill("valkey")
        self.service.await_ready("valkey")

    def make_the_broker_forget(self) -> None:
        with suppress(redis.RedisError), redis.Redis.from_url(self.service.runtime.settings.broker_url) as client:
            client.flushall()

    def reset_connections(self) -> None:
        for proxy in self.service.proxies:
            proxy.reset()

    def black_out(self) -> None:
        proxy = self.random.choice(self.service.proxies)
        proxy.swallow()
        time.sleep(self.random.uniform(1, 8))
        proxy.heal()

    def cut_off(self) -> None:
        proxy = self.random.choice(self.service.proxies)
        proxy.cut()
        time.sleep(self.random.uniform(1, 6))
        proxy.heal()

    def kill_the_store(self) -> None:
        self.service.kill("seaweedfs")
        self.service.await_ready("seaweedfs")

    def spoil_answers(self) -> None:
        self.service.store.spoil(self.random.randint(1, 4))

    def break_a_commit(self) -> None:
        assert self.service.database is not None
        self.service.database.cut_once_at(b"COMMIT", after_it_was_done=self.random.random() < 0.5)

    def double_a_message(self) -> None:
        for job in self.open_jobs()[:3]:
            self.service.runtime.broker.send("gpu", job.id, job.attempt)

    def cancel_something(self) -> None:
        for job in self.random.sample(self.open_jobs(), min(1, len(self.open_jobs()))):
            with suppress(Conflict), self.service.runtime.transaction() as session:
                rounds.cancel_job(session, session.get_one(Job, job.id))

    def a_worker(self) -> str:
        return self.random.choice(["worker-gpu", "worker-gpu2"])

    def open_jobs(self) -> list[Job]:
        return [job for job in self.service.all_jobs() if job.state in ("queued", "running")]

    def names(self) -> list[str]:
        helpers = {"a_worker", "open_jobs", "names"} | ({"break_a_commit"} if self.service.database is None else set())
        return [name for name in vars(Mischief) if not name.startswith("_") and name not in helpers]


def test_a_long_day(service: Service, pytestconfig: pytest.Config, request: pytest.FixtureRequest) -> None:
    minutes = float(pytestconfig.getoption("--minutes", 10.0))
    seed = int(pytestconfig.getoption("--seed", 0)) or random.randrange(1 << 30)
    print(f"soak of {minutes} minutes, seed {seed}")
    trial = Trial(service, service.project(service.local_user()))
    mischief = Mischief(trial, seed)
    tried = dict.fromkeys(mischief.names(), 0)
    project: Project | None = None
    until = time.monotonic() + minutes * 60 / 2  # of each database
    while time.monotonic() < until:
        while len(mischief.open_jobs()) < AT_ONCE:
            trial.submit(mischief.random.randint(1, 40))
        if project is None or has_ended(service, project):
            project = trial.bootstrap()
        name = mischief.random.choice(mischief.names())
        with suppress(psutil.Error, ProcessLookupError, Unavailable):  # who is gone can't be hurt
            getattr(mischief, name)()
            tried[name] += 1
        time.sleep(mischief.random.uniform(0, 2))
    service.heal()
    trial.strike()
    service.await_quiet(seconds=600)
    trial.recovered()
    counted = assert_invariants(service, [job.id for job in service.all_jobs()])
    database = "postgres" if service.postgres else "sqlite"
    for name, times in tried.items():
        row = {"fault": "F19", "what": f"soak: {name.replace('_', ' ')}", "database": database, "times": times}
        request.node.user_properties.append(("trial", {**row, **counted, "seconds": trial.recovered_seconds}))


def has_ended(service: Service, project: Project) -> bool:
    with service.runtime.db.reading() as session:
        return session.get_one(Project, project.id).state != ProjectState.RUNNING
