"""A new version takes over the tables and the messages of the one before, with everything in flight."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
import redis
from alembic import command
from sqlalchemy import select

from shared import rounds
from shared.admin import migrations, upgrade
from shared.lifecycle import ProjectState, RoundState
from shared.models import Round
from tests.faults.conftest import Trial
from tests.faults.test_store import bootstrap, state_of

# The oldest tables that today's workers can work on: a migration that adds a column moves this to itself.
OLDEST = "0005"
# As they lay in the broker; each version whose messages look otherwise adds its own, and none is ever removed.
MESSAGES = sorted(Path(__file__).with_name("messages").glob("*.json"))


@pytest.mark.fault("F27", "the tables are brought up to date while jobs run, queue and wait for a person")
def test_an_upgrade_with_jobs_in_flight_loses_nothing(trial: Trial) -> None:
    service = trial.service
    command.downgrade(migrations(service.straight_database_url), OLDEST)
    project = bootstrap(trial, curation="manual")
    waiting = service.await_that(lambda: curating(trial, project.id))
    for _ in range(8):
        trial.submit(20)
    service.await_running(trial.accepted[-8])
    trial.strike()
    upgrade(service.straight_database_url)
    trial.recovered()
    with service.runtime.transaction() as session:
        rounds.finish(session, session.get_one(Round, waiting.id), accept_fewer=True)
    service.await_that(lambda: state_of(trial, project) == ProjectState.COMPLETED)
    assert {job.attempt for job in trial.all_done()} == {1}, "nobody was disturbed"


@pytest.mark.fault("F27", "a message of an earlier version")
@pytest.mark.parametrize("file", MESSAGES, ids=lambda file: file.stem)
def test_a_message_of_an_earlier_version_is_understood(trial: Trial, file: Path) -> None:
    job = trial.service.mark_as_sent(trial.project, 3600)  # so long, nobody sends another
    trial.accepted.append(job)
    message = json.loads(file.read_text())
    (_, attempt), *more = json.loads(base64.b64decode(message["body"]))
    message["body"] = base64.b64encode(json.dumps([[job.id, attempt], *more]).encode()).decode()
    trial.strike()
    with redis.Redis.from_url(trial.service.runtime.settings.broker_url) as client:
        client.lpush(message["properties"]["delivery_info"]["routing_key"], json.dumps(message))
    trial.all_done()


def curating(trial: Trial, project_id: str) -> Round | None:
    """The project's round that waits for a person."""
    with trial.service.runtime.db.reading() as session:
        return session.scalar(select(Round).where(Round.project_id == project_id, Round.state == RoundState.CURATING))
