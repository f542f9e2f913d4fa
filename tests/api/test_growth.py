"""Queries don't slow down as tables grow: each uses an index, whatever its filters."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Connection, event, select
from sqlalchemy.orm import Session

from api.app import create_app
from benchmarks import crowd
from shared import figures, users
from shared.admin import upgrade
from shared.models import Job
from shared.outside.db import utcnow
from shared.queue import estimates, jobs, turns
from shared.runtime import Runtime
from tests.api.conftest import SECRET, Caller, make_runtime

pytestmark = pytest.mark.servers

JOBS = 20_000
MAX_ROWS = 1_100  # that a look-up may read: some look at the next, or the latest, thousand
STEPS_OF_A_ROW = 60  # of SQLite's machine


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def busy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """A runtime on tables with many jobs."""
    folder = tmp_path_factory.mktemp("busy")
    sqlite = request.param == "sqlite"
    url = f"sqlite:///{folder}/bootlora.db" if sqlite else request.getfixturevalue("postgres_url")
    upgrade(url)
    runtime = make_runtime(folder / "store", url)
    crowd.fill(runtime.db, JOBS)
    yield runtime
    runtime.close()


@pytest.fixture(scope="module")
def caller(busy: Runtime) -> Caller:
    with busy.db.transaction() as session:
        user = crowd.busy_user(session)
        _, key = users.create_key(session, user, SECRET, name="test")
    app: Flask = create_app(busy)
    return Caller(app.test_client(), key, user.id)


def waiting_job(session: Session, queue: str = "gpu") -> Job:
    query = select(Job).where(Job.user_id == crowd.busy_user(session).id, Job.state == "queued", Job.queue == queue)
    return session.scalars(query.limit(1)).one()


def claim(session: Session, runtime: Runtime) -> None:
    assert jobs.claim(session, waiting_job(session).id, 1, "gpu@one", 90)


def take_next(session: Session, runtime: Runtime) -> None:
    assert turns.free_slots(session, "gpu", runtime.settings) > 0
    assert turns.take_next(session, "gpu", runtime.settings)


def foresee(session: Session, runtime: Runtime) -> None:
    figures.forget()
    running = select(Job).where(Job.state == "running", Job.queue == "gpu").limit(1)
    assert estimates.of_job(session, session.scalars(running).one(), runtime.settings).to_finish
    assert estimates.of_job(session, waiting_job(session), runtime.settings) == estimates.Wait()  # too many to count
    assert estimates.of_job(session, waiting_job(session, "cpu"), runtime.settings).to_start


WORK: dict[str, Callable[[Session, Runtime], Any]] = {
    "claim": claim,
    "dispatch": take_next,
    "foresee": foresee,
    "reap": lambda session, runtime: jobs.overdue(session),
    "held by a worker": lambda session, runtime: jobs.held_by(session, "gpu@one"),
    "reroute": lambda session, runtime: turns.reroute(session),
    "sent": lambda session, runtime: turns.unclaimed(session, "gpu"),
}


@pytest.mark.parametrize("name", WORK)
def test_queries_of_workers_use_an_index(busy: Runtime, name: str) -> None:
    with busy.db._sessions() as session, watched(busy) as statements:
        WORK[name](session, busy)
        session.rollback()
    assert_bounded(busy, statements)


LISTS = {
    "": 10,
    "&state=queued": 10,
    "&state=failed": 10,
    "&state=running": 0,
    "&kind=train": 10,
    "&project_id=prj_00000000000000000000000070": 10,
    "&state=succeeded&created_after={before}": 10,
    "&created_after={before}&created_before={before}": 0,
    "&state=succeeded&created_before={before}": 10,
}


@pytest.mark.parametrize("filters", LISTS)
def test_queries_of_lists_use_an_index(busy: Runtime, caller: Caller, filters: str) -> None:
    before = (utcnow() - timedelta(hours=5)).strftime("%Y-%m-%dT%H:%M:%SZ")
    with watched(busy) as statements:
        page = caller.get("/v1/jobs?limit=10" + filters.format(before=before))
    assert len(page.json["items"]) == LISTS[filters]
    assert_bounded(busy, [(text, values) for text, values in statements if "ORDER BY jobs.created_at" in text])


@contextmanager
def watched(runtime: Runtime) -> Iterator[list[tuple[str, Any]]]:
    """The statements that the block sends."""
    sent: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, values: Any, *rest: Any) -> None:
        sent.append((statement, values))

    event.listen(runtime.db.engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(runtime.db.engine, "before_cursor_execute", note)


def assert_bounded(runtime: Runtime, statements: list[tuple[str, Any]]) -> None:
    about_jobs = [(statement, values) for statement, values in statements if " jobs" in statement]
    assert about_jobs
    for statement, values in about_jobs:
        with runtime.db.engine.connect() as connection:
            check = check_sqlite if connection.dialect.name == "sqlite" else check_postgres
            check(connection, statement, values if isinstance(values, dict) else tuple(values))
            connection.rollback()


def check_sqlite(connection: Connection, statement: str, values: Any) -> None:
    plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)]
    assert not any(step.startswith("SCAN jobs") for step in plan), (statement, plan)
    steps = itertools.count()
    driver = connection.connection.driver_connection
    assert driver is not None
    driver.set_progress_handler(lambda: next(steps) and None, 1000)
    try:
        connection.exec_driver_sql(statement, values).close()
    finally:
        driver.set_progress_handler(None, 0)
    assert next(steps) * 1000 < MAX_ROWS * STEPS_OF_A_ROW, (statement, plan)


def check_postgres(connection: Connection, statement: str, values: Any) -> None:
    plan = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", values).scalar_one()[0]["Plan"]
    for node in nodes(plan):
        assert (node["Node Type"], node.get("Relation Name")) != ("Seq Scan", "jobs"), (statement, plan)
        rows = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        assert rows <= MAX_ROWS, (statement, plan)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", []):
        yield from nodes(part)
