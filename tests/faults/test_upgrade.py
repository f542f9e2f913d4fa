"""A new version takes over the tables and the messages of the one before, with everything in flight."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import redis
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Column, Integer, select, update

from shared import rounds
from shared.lifecycle import ProjectState, RoundState
from shared.models import Base, Job, Round
from shared.outside.db import clock, make_engine
from shared.queue import jobs
from tests.factories import png
from tests.faults.conftest import Trial
from tests.faults.service import enqueue_crop

# As they lay in the broker; each version whose messages look otherwise adds its own, and none is ever removed.
MESSAGES = sorted(Path(__file__).with_name("messages").glob("*.json"))


@pytest.mark.fault("F27", "the tables are brought up to date while jobs run, queue and wait for a person")
def test_an_upgrade_with_jobs_in_flight_loses_nothing(trial: Trial) -> None:
    """This code is the older version here: it must survive what the migrations of the next one may do."""
    service = trial.service
    project = trial.bootstrap(curation="manual")
    waiting = service.await_that(lambda: curating(trial, project.id))
    for _ in range(8):
        trial.submit(20)
    service.await_running(trial.accepted[-8])
    trial.strike()
    migrate_as_the_next_version(service.straight_database_url)
    trial.recovered()
    with service.runtime.transaction() as session:
        rounds.finish(session, session.get_one(Round, waiting.id), accept_fewer=True)
    service.await_that(lambda: trial.state_of(project) == ProjectState.COMPLETED)
    assert {job.attempt for job in trial.all_done()} == {1}, "nobody was disturbed"


@pytest.mark.fault("F27", "a message of an earlier version")
@pytest.mark.parametrize("file", MESSAGES, ids=lambda file: file.stem)
def test_a_message_of_an_earlier_version_is_understood(trial: Trial, file: Path) -> None:
    job = trial.service.mark_as_sent(trial.project, 3600)  # so long, nobody sends another
    trial.accepted.append(job)
    trial.strike()
    with redis.Redis.from_url(trial.service.runtime.settings.broker_url) as client:
        client.lpush("gpu", json.dumps(message_for(job, file, queue="gpu")))
    trial.all_done()


@pytest.mark.fault("F27", "jobs in a queue of an earlier version, waiting and running, and their messages")
def test_what_lies_in_a_former_queue_is_done(trial: Trial) -> None:
    """As an API and a worker of the earlier version leave it, which run on while the others are replaced."""
    service = trial.service
    image_id = service.upload(trial.project, png()).json()["id"]
    with service.runtime.db.transaction() as session:  # sends nothing after the commit
        waiting, running = (enqueue_crop(session, trial.project, image_id, {}) for _ in range(2))
        session.execute(update(Job).values(queue="io", dispatched_at=clock(3600)).where(Job.id == waiting.id))
        session.execute(update(Job).values(queue="io").where(Job.id == running.id))
        jobs.claim(session, running.id, 1, "io@an-earlier-version", 1)
    trial.accepted += [waiting, running]
    trial.strike()
    with redis.Redis.from_url(service.runtime.settings.broker_url) as client:
        client.lpush("io", json.dumps(message_for(waiting, MESSAGES[0], queue="io")))
    done = trial.all_done()
    assert [(job.queue, job.attempt) for job in done] == [("cpu", 1), ("cpu", 2)]


def migrate_as_the_next_version(url: str) -> None:
    """Add a column and an index to every table, as a migration that CONTRIBUTING allows."""
    engine = make_engine(url)
    with engine.begin() as connection:
        operations = Operations(MigrationContext.configure(connection))
        for table in Base.metadata.sorted_tables:
            new = Column("of_the_next_version", Integer, nullable=False, server_default="1")
            operations.add_column(table.name, new)
            operations.create_index(f"{table.name}_of_the_next_version", table.name, [new.name])
    engine.dispose()


def message_for(job: Job, file: Path, queue: str) -> dict[str, Any]:
    """The message of a file, for this job and queue."""
    message: dict[str, Any] = json.loads(file.read_text())
    (_, attempt), *more = json.loads(base64.b64decode(message["body"]))
    message["body"] = base64.b64encode(json.dumps([[job.id, attempt], *more]).encode()).decode()
    message["properties"]["delivery_info"]["routing_key"] = queue
    return message


def curating(trial: Trial, project_id: str) -> Round | None:
    """The project's round that waits for a person."""
    with trial.service.runtime.db.reading() as session:
        return session.scalar(select(Round).where(Round.project_id == project_id, Round.state == RoundState.CURATING))
