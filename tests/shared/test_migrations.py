"""The migrations make the tables that the models describe, indexes included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select, update

from shared.admin import migrations, upgrade
from shared.models import Base, Job
from shared.outside.db import Database, utcnow
from shared.runtime import Runtime
from tests.domain import make_job, make_project, make_runtime, make_user
from tests.servers import Postgres

DESCENDING = "jobs_waiting"  # alembic can't read such an index back from SQLite


def differences(url: str, *but: str) -> list[Any]:
    upgrade(url)
    database = Database(url)
    options = {"include_name": lambda name, *_: name not in but, "include_object": lambda _, name, *__: name not in but}
    try:
        with database.engine.connect() as connection:
            return list(compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata))
    finally:
        database.dispose()


@pytest.mark.filterwarnings("ignore:autogenerate skipping:UserWarning")
def test_migrations_make_what_the_models_say(tmp_path: Path) -> None:
    assert differences(f"sqlite:///{tmp_path}/bootlora.db", DESCENDING) == []


@pytest.mark.servers
def test_they_do_on_postgres_too(postgres_url: str) -> None:
    assert differences(postgres_url) == []


def test_open_jobs_of_the_former_queue_move_and_those_that_have_ended_stay(tmp_path: Path) -> None:
    move_and_look(make_runtime(tmp_path))


@pytest.mark.servers
def test_they_move_on_postgres_too(tmp_path: Path, postgres: Postgres) -> None:
    move_and_look(make_runtime(tmp_path, postgres.make_database()))


def move_and_look(runtime: Runtime) -> None:
    url = runtime.settings.database_url
    with runtime.transaction() as session:
        project = make_project(session, make_user(session))
        for state in ("queued", "running", "succeeded"):
            job = make_job(session, project, "score")
            session.flush()
            session.execute(update(Job).where(Job.id == job.id).values(state=state, queue="io", dispatched_at=utcnow()))
        make_job(session, project, "train")
    before = {("queued", "gpu", False), ("succeeded", "io", True)}
    command.downgrade(migrations(url), "0005")
    upgrade(url)
    assert places(runtime) == before | {("queued", "cpu", False), ("running", "cpu", True)}
    command.downgrade(migrations(url), "0005")
    assert places(runtime) == before | {("queued", "io", False), ("running", "io", True)}
    runtime.close()


def places(runtime: Runtime) -> set[tuple[str, str, bool]]:
    """The state of each job, its queue, and whether a message has been sent for it."""
    with runtime.db.reading() as session:
        found = session.execute(select(Job.state, Job.queue, Job.dispatched_at))  # columns of every revision
        return {(state, queue, dispatched_at is not None) for state, queue, dispatched_at in found}
