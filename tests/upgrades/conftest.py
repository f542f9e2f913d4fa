"""An installation of commit 7a09abe, taken over by the code of today.

`7a09abe.sql` has its tables, `7a09abe-objects.tar.xz` its store, `7a09abe-messages.json` what lay in its broker, and
`7a09abe.json` its secrets. `make_fixture.py` shows how they were made. What these tests know about the inside of
today's code is in this file; the tests themselves use the HTTP API, the workers and the broker.
"""

from __future__ import annotations

import json
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from flask import Flask
from sqlalchemy import JSON, MetaData, create_engine, null
from werkzeug.test import TestResponse

from api.app import create_app
from shared import catalog
from shared.admin import migrations, upgrade
from shared.outside.storage import storage_from_url
from shared.queue import jobs
from shared.runtime import Runtime
from shared.settings import Settings
from tests import servers
from tests.domain import RecordingBroker
from workers.runner import run_job

HERE = Path(__file__).parent
REVISION = "0005"  # of the tables at 7a09abe
ABOUT: dict[str, Any] = json.loads((HERE / "7a09abe.json").read_text())
MESSAGES: dict[str, list[dict[str, Any]]] = json.loads((HERE / "7a09abe-messages.json").read_text())
STOPPED_SECONDS = 300  # since the old code ended: its leases are over, its idempotency keys are still good

Row = dict[str, Any]
Tables = dict[str, list[Row]]


def load(database: Path) -> Tables:
    """Make an SQLite database of 7a09abe, as if it had been stopped a moment ago. Returns the rows of its tables."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.executescript((HERE / "7a09abe.sql").read_text())
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        tables = {name: types_of(connection, name) for name in names}
        shift_times(connection, tables)
        return {name: rows_of(connection, name, types) for name, types in tables.items()}


def types_of(connection: sqlite3.Connection, table: str) -> dict[str, str]:
    """The columns of a table, and the type of each."""
    return {name: type_ for _, name, type_, *_ in connection.execute(f"PRAGMA table_info({table})")}


def shift_times(connection: sqlite3.Connection, tables: dict[str, dict[str, str]]) -> None:
    """Move every time by the same amount, so that the newest event is `STOPPED_SECONDS` old."""
    (age,) = connection.execute("SELECT (julianday('now') - julianday(max(created_at))) * 86400 FROM events").fetchone()
    later = f"{age - STOPPED_SECONDS:+f} seconds"
    for table, types in tables.items():
        for name in (name for name, type_ in types.items() if type_ == "DATETIME"):
            moved = f"strftime('%Y-%m-%d %H:%M:%f', {name}, ?) || '000'"
            connection.execute(f"UPDATE {table} SET {name} = {moved} WHERE {name} IS NOT NULL", (later,))


def rows_of(connection: sqlite3.Connection, table: str, types: dict[str, str]) -> list[Row]:
    rows = connection.execute(f"SELECT {', '.join(types)} FROM {table}")
    return [{name: value_of(value, types[name]) for name, value in zip(types, row, strict=True)} for row in rows]


def value_of(value: Any, type_: str) -> Any:
    """A value as Python knows it. The JSON null is not the NULL of the database: the old code wrote both."""
    if value is None:
        return None
    if type_ == "JSON":
        return json.loads(value) if value != "null" else JSON.NULL
    if type_ == "DATETIME":
        return datetime.fromisoformat(value).replace(tzinfo=UTC)
    return bool(value) if type_ == "BOOLEAN" else value


def copy(tables: Tables, database_url: str, revision: str = REVISION) -> None:
    """Make a database of a revision, and write the rows into it as 7a09abe would: it knows no later column."""
    command.upgrade(migrations(database_url), revision)
    engine = create_engine(database_url)
    metadata = MetaData()
    metadata.reflect(engine)
    with engine.begin() as connection:
        for table in metadata.sorted_tables:
            for row in tables.get(table.name, []) if table.name != "alembic_version" else ():
                values = {name: null() if value is None else value for name, value in row.items()}
                connection.execute(table.insert().values(values))
    engine.dispose()


def sent_just_now(database: Path) -> set[str]:
    """Mark the messages as sent now, so that the clock sends none again. Returns the ids of their queued jobs."""
    sent = "state = 'queued' AND dispatched_at IS NOT NULL"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            f"UPDATE jobs SET dispatched_at = strftime('%Y-%m-%d %H:%M:%f', 'now') || '000' WHERE {sent}"
        )
        return {job_id for (job_id,) in connection.execute(f"SELECT id FROM jobs WHERE {sent}")}


def unpack_into(storage_url: str) -> None:
    """Put the objects into a store that is a folder."""
    target = storage_from_url(storage_url)
    target.prepare()
    with tarfile.open(HERE / "7a09abe-objects.tar.xz") as tar:
        for entry in tar:
            file = tar.extractfile(entry)
            assert file is not None
            target.put_bytes(entry.name, file.read())


@dataclass(kw_only=True)
class Installation:
    """The code of today on the old tables and objects, in this process. `old` has the rows as they were."""

    old: Tables
    runtime: Runtime
    app: Flask

    def ask(self, method: str, path: str, json: Any = None, *, caller: str = "ada", **headers: str) -> TestResponse:
        """Ask the API, with one of the old keys."""
        given = {"Authorization": f"Bearer {ABOUT['api_keys'][caller]}", "If-Match": "*"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        return self.app.test_client().open(f"/v1{path}", method=method, json=json, headers=given)

    def done(self, method: str, path: str, json: Any = None, **given: str) -> Any:
        """Ask, and fail the test if the API refuses."""
        answer = self.ask(method, path, json, **given)
        assert answer.status_code < 300, (method, path, answer.json)
        return answer.json

    def get(self, path: str, **given: str) -> Any:
        return self.done("GET", path, **given)

    def all(self, path: str, **given: str) -> list[Any]:
        """Every item of a list, page by page."""
        items, more = [], "?limit=100" if "?" not in path else "&limit=100"
        page = self.get(f"{path}{more}", **given)
        while page.get("has_more"):
            items += page["items"]
            page = self.get(f"{path}{more}&cursor={page['next_cursor']}", **given)
        return items + page["items"]

    def caller(self, user_id: str) -> str:
        """The name of an old user."""
        return next(user["name"] for user in self.old["users"] if user["id"] == user_id)

    def project_of(self, row: Row) -> Row:
        return next(project for project in self.old["projects"] if project["id"] == row.get("project_id", row["id"]))

    def named(self, name: str) -> Any:
        """A project as it is now."""
        (row,) = (project for project in self.old["projects"] if project["name"] == name)
        return self.get(f"/projects/{row['id']}")

    def rounds(self, project: Any) -> list[Any]:
        return self.get(f"/projects/{project['id']}/rounds")["items"]

    # --- what workers do

    def reap(self) -> int:
        """Put back the jobs of lost workers, as the clock of worker-io does."""
        return self.runtime.reap()

    def work_off(self) -> None:
        """Do every queued job, and those that follow, as workers of every queue do."""
        with self.runtime.db.transaction() as session:
            for queue in catalog.QUEUES:
                jobs.check_in(session, f"{queue}@new", queue, 1000)
        broker = self.runtime.broker
        assert isinstance(broker, RecordingBroker)
        while broker.sent or self.runtime.dispatch():
            queue, job_id, attempt = broker.sent.pop(0)
            assert run_job(self.runtime, job_id, attempt, f"{queue}@new", lambda: False)


def settings_of(database_url: str, folder: Path, **more: Any) -> Settings:
    return Settings(
        database_url=database_url,
        broker_url="memory://",
        storage_url=f"file://{folder}/objects",
        secret_key=ABOUT["secret_key"],
        scratch_dir=folder / "scratch",
        worker_seen_seconds=3600.0,
        max_running_jobs=1000,
        requests_per_minute=1_000_000,
        submits_per_minute=1_000_000,
        **more,
    )


def taken_over(folder: Path, server: servers.Postgres | None) -> Iterator[Installation]:
    """Load the old installation, run the migrations, and start the code of today on it."""
    database = folder / "bootlora.db"
    old, database_url = load(database), f"sqlite:///{database}"
    if server is not None:
        database_url = server.make_database()
        copy(old, database_url)
    upgrade(database_url)
    runtime = replace(Runtime.from_settings(settings_of(database_url, folder)), broker=RecordingBroker())
    unpack_into(runtime.settings.storage_url)
    yield Installation(old=old, runtime=runtime, app=create_app(runtime))
    runtime.close()


DATABASES = ["sqlite", pytest.param("postgres", marks=pytest.mark.servers)]


@pytest.fixture(scope="module", params=DATABASES)
def installation(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The old installation after the migrations."""
    server = request.getfixturevalue("postgres") if request.param == "postgres" else None
    yield from taken_over(tmp_path_factory.mktemp("installation"), server)
