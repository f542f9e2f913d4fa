"""One service for each database, and what every fault has in common: it is timed, healed and checked."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import urllib3
from sqlalchemy import select

from shared import projects
from shared.models import Image, Job, Project
from tests import servers
from tests.domain import make_project
from tests.factories import png
from tests.faults.invariants import assert_invariants
from tests.faults.service import Service, enqueue_crop

PASSED = pytest.StashKey[bool]()
TRAINING = {"train_steps": 30, "checkpoint_every_steps": 10}
STYLE = {"kind": "style", "target": 6, "max_generations": 1, "enough": 4, "candidates_per_pick": 2}
TWO_ROUNDS = {"rounds": [{**STYLE, "train": TRAINING}, {"kind": "character", "train": TRAINING}]}
COLUMNS = ("fault", "what", "database", "times", "recovered in s (worst)", "lost", "doubled")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--minutes", type=float, default=10.0, help="of the soak")
    parser.addoption("--seed", type=int, default=0, help="of the soak; 0: another each time")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is here. In `make test` a fault is tried on one database, the one that it is about."""
    for item in items[:]:
        if Path(__file__).parent not in item.path.parents:
            continue
        item.add_marker(pytest.mark.faults)
        item.add_marker(pytest.mark.servers)
        item.add_marker(pytest.mark.timeout(900))
        on = item.get_closest_marker("on")
        if on and f"[{on.args[0]}" not in item.name:
            items.remove(item)
        elif item.get_closest_marker("soak") or (not on and "[postgres" in item.name):
            item.add_marker(pytest.mark.long)


def database_of(server: servers.Postgres | None) -> tuple[str, Path] | None:
    """A fresh database, and the socket that a proxy leads to."""
    return (server.make_database(), server.folder / ".s.PGSQL.5432") if server else None


@pytest.fixture(scope="session", params=["sqlite", "postgres"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service with two GPU workers."""
    server = request.getfixturevalue("postgres") if request.param == "postgres" else None
    with Service(tmp_path_factory.mktemp(request.param), postgres=database_of(server), workers=2) as service:
        yield service


@dataclass
class Trial:
    """One fault, tried: what was accepted meanwhile, and how long it took until work went on."""

    service: Service
    project: Project
    accepted: list[Job] = field(default_factory=list)
    struck_at: float = 0.0
    recovered_seconds: float | None = None

    def submit(self, pictures: int = 6, **params: Any) -> Job:
        job = self.service.submit(self.project, pictures, **params)
        self.accepted.append(job)
        return job

    def crop(self, **params: Any) -> Job:
        """Submit a crop of an uploaded picture: a job for worker-cpu."""
        image_id = self.service.upload(self.project, png()).json()["id"]
        with self.service.runtime.transaction() as session:
            job = enqueue_crop(session, self.project, image_id, params)
        self.accepted.append(job)
        return job

    def ask(self, pictures: int = 1, **headers: str) -> urllib3.BaseHTTPResponse:
        """Submit over HTTP. What is answered with 202 is accepted."""
        body = {"pictures": [{"prompt": "a", "count": pictures}]}
        answer = self.service.post(f"/projects/{self.project.id}/generations", body, **headers)
        if answer.status == 202:
            self.accepted.append(self.service.job_of_id(answer.json()["id"]))
        return answer

    def running(self, pictures: int = 6, **params: Any) -> Job:
        """A job that a worker is in the middle of."""
        return self.service.await_running(self.submit(pictures, **params))

    def bootstrap(self, **over: Any) -> Project:
        """Start a project of two rounds, whose pictures are really in the store."""
        runtime = self.service.runtime
        with runtime.transaction() as session:
            user = session.merge(self.service.local_user())
            project = make_project(session, user, plan=TWO_ROUNDS, **over)
            for image in session.scalars(select(Image).where(Image.project_id == project.id)):
                key = f"projects/{project.id}/images/{image.id}.png"
                stored = runtime.storage.put_bytes(key, image.id.encode() * 200)
                image.key, image.sha256 = stored.key, stored.sha256
            self.accepted.append(projects.start(session, project))
        return project

    def state_of(self, project: Project) -> str:
        with self.service.runtime.db.reading() as session:
            return session.get_one(Project, project.id).state

    def strike(self) -> None:
        self.struck_at = time.monotonic()

    def recovered(self) -> None:
        self.recovered_seconds = time.monotonic() - self.struck_at

    def all_done(self, state: str = "succeeded") -> list[Job]:
        done = self.service.await_done(*self.accepted)
        if self.recovered_seconds is None:
            self.recovered()
        assert {job.state for job in done} == {state}, [(job.id, job.state, job.error) for job in done]
        return done


@pytest.fixture
def trial(request: pytest.FixtureRequest, service: Service) -> Iterator[Trial]:
    """The fault that a test's mark `fault("F1", "what happens")` names, on the service that it uses."""
    mark = request.node.get_closest_marker("fault")
    service.heal()
    service.await_that(lambda: {"gpu", "gpu2", "cpu", "io"} <= service.live_workers())
    trial = Trial(service, service.project(service.local_user()))
    yield trial
    service.heal()
    service.await_quiet()
    counted = assert_invariants(service, [job.id for job in trial.accepted])
    database = "postgres" if service.postgres else "sqlite"
    row = {"fault": mark.args[0], "what": mark.args[1], "database": database, "times": 1, **counted}
    if request.node.stash.get(PASSED, False):
        request.node.user_properties.append(("trial", {**row, "seconds": trial.recovered_seconds}))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[PASSED] = report.passed
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The table of all faults that were tried."""
    rows = [
        value
        for report in (*terminalreporter.stats.get("", []), *terminalreporter.stats.get("passed", []))
        for name, value in getattr(report, "user_properties", [])
        if name == "trial" and report.when == "teardown"
    ]
    if not rows:
        return
    terminalreporter.section("faults")
    for line in table(rows):
        terminalreporter.write_line(line)


def table(rows: list[dict[str, Any]]) -> list[str]:
    """The trials as a table in Markdown, one line for each fault and database."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    keys = sorted({(int(row["fault"][1:]), row["what"], row["database"]) for row in rows})
    for number, what, database in keys:
        same = [row for row in rows if (row["what"], row["database"]) == (what, database)]
        times = [row["seconds"] for row in same if row["seconds"] is not None]
        worst = f"{max(times):.1f}" if times else "-"
        lost, doubled = (sum(row[name] for row in same) for name in ("lost", "doubled"))
        lines.append(
            f"| F{number} | {what} | {database} | {sum(row['times'] for row in same)} | {worst} | {lost} | {doubled} |"
        )
    return lines
