"""The database goes away, stands still, and loses connections at the worst of moments."""

from __future__ import annotations

import sqlite3
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.factories import png
from tests.faults.conftest import Trial
from tests.faults.proxy import Proxy

OUTAGE_SECONDS = 10


@pytest.fixture
def database(trial: Trial) -> Proxy:
    """What leads to a database that is a server."""
    assert trial.service.database is not None
    return trial.service.database


@pytest.mark.on("postgres")
@pytest.mark.fault("F7", "the database is down for 10 s: submit, claim, heartbeat, publish")
def test_a_database_that_is_down_is_waited_for(trial: Trial, database: Proxy) -> None:
    for _ in range(3):
        trial.submit(40)
    trial.service.await_running(trial.accepted[0])
    trial.strike()
    database.cut()
    until = time.monotonic() + OUTAGE_SECONDS
    while time.monotonic() < until:
        answer = trial.ask()
        assert answer.status == 503
        assert answer.headers["Retry-After"]
        time.sleep(0.5)
    database.heal()
    answer = trial.service.await_that(lambda: (got := trial.ask()).status == 202 and got)
    assert answer.status == 202
    trial.recovered()
    trial.all_done()


@pytest.mark.on("postgres")
@pytest.mark.fault("F7", "the database is a black hole for 10 s")
def test_a_database_that_says_nothing_is_waited_for(trial: Trial, database: Proxy) -> None:
    trial.running(100)
    trial.strike()
    database.swallow()
    time.sleep(OUTAGE_SECONDS)
    database.heal()
    trial.service.await_that(lambda: (answer := trial.ask()).status == 202 and answer)
    trial.recovered()
    trial.all_done()


@pytest.mark.on("postgres")
@pytest.mark.fault("F7", "workers have to start while the database is down")
def test_workers_that_start_without_a_database_wait_for_it(trial: Trial, database: Proxy) -> None:
    service = trial.service
    trial.running(40)
    database.cut()
    for name in ("worker-gpu", "worker-gpu2"):
        child = service.child_of(name)
        child.kill()
        service.await_that(lambda name=name, child=child: service.child_of(name) != child)
    service.kill("worker-io")
    time.sleep(OUTAGE_SECONDS)
    trial.strike()
    database.heal()
    service.await_ready("worker-io")
    trial.all_done()


@pytest.mark.on("postgres")
@pytest.mark.fault("F8", "the connection breaks during the COMMIT of a submit; the client repeats it")
@pytest.mark.parametrize("after_it_was_done", [True, False], ids=["done", "undone"])
def test_a_submit_that_broke_off_and_is_repeated_is_one_job(
    trial: Trial, database: Proxy, after_it_was_done: bool
) -> None:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    before = len(trial.service.all_jobs())
    trial.strike()
    cut = database.cut_once_at(b"COMMIT", after_it_was_done=after_it_was_done, on_a_link_that_said=b"INSERT INTO jobs")
    assert trial.ask(**key).status == 503
    assert cut.is_set()
    assert trial.ask(**key).status == 202
    trial.recovered()
    assert len(trial.service.all_jobs()) == before + 1
    trial.all_done()


@pytest.mark.on("postgres")
@pytest.mark.fault("F8", "the connection breaks during the COMMIT of a result")
@pytest.mark.parametrize("after_it_was_done", [True, False], ids=["done", "undone"])
def test_a_result_whose_commit_broke_off_is_published_once(
    trial: Trial, database: Proxy, after_it_was_done: bool
) -> None:
    job = trial.running(20)
    trial.strike()
    cut = database.cut_once_at(
        b"COMMIT", after_it_was_done=after_it_was_done, on_a_link_that_said=b"INSERT INTO images"
    )
    trial.all_done()
    assert cut.is_set()
    assert trial.service.job(job).attempt == 1


@pytest.mark.on("sqlite")
@pytest.mark.fault("F7", "somebody holds SQLite's write lock for 10 s")
def test_a_locked_file_is_waited_for(trial: Trial) -> None:
    for _ in range(3):
        trial.submit(20)
    trial.service.await_running(trial.accepted[0])
    trial.strike()
    path = Path(trial.service.straight_database_url.removeprefix("sqlite:///"))
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        time.sleep(OUTAGE_SECONDS)
        other.execute("ROLLBACK")
    trial.recovered()
    assert trial.ask().status == 202
    trial.all_done()


@pytest.mark.fault("F9", "50 parallel identical POSTs with one key; then the key with another body")
def test_one_key_is_one_job(trial: Trial) -> None:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    before = len(trial.service.all_jobs())
    trial.strike()
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: trial.ask(**key), range(50)))
    trial.recovered()
    assert {answer.status for answer in answers} <= {202, 409}
    assert len({answer.json()["id"] for answer in answers if answer.status == 202}) == 1
    assert trial.ask(pictures=2, **key).status == 422
    assert len(trial.service.all_jobs()) == before + 1
    trial.all_done()


@pytest.mark.on("postgres")
@pytest.mark.fault("F8", "the connection breaks during the COMMIT of an upload")
@pytest.mark.parametrize("after_it_was_done", [True, False], ids=["done", "undone"])
def test_a_picture_whose_commit_broke_off_is_there_or_not_but_never_half(
    trial: Trial, database: Proxy, after_it_was_done: bool
) -> None:
    trial.strike()
    cut = database.cut_once_at(
        b"COMMIT", after_it_was_done=after_it_was_done, on_a_link_that_said=b"INSERT INTO images"
    )
    assert trial.service.upload(trial.project, png()).status == 503
    assert cut.is_set()
    assert trial.service.upload(trial.project, png()).status == 201
    trial.recovered()
