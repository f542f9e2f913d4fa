"""Fixtures: a real app on real SQLite and a real folder. Only the broker is a list."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from api import held
from api.app import create_app
from api.limits import Limiter
from shared import catalog, users
from shared.models import Base
from shared.outside.db import Database
from shared.outside.secrets import Vault
from shared.outside.storage import FolderStorage
from shared.runtime import Runtime
from shared.settings import Settings
from tests.domain import RecordingBroker

# Has each test of a module run on SQLite, and again on Postgres, where transactions really run side by side.
ON_BOTH = pytest.mark.parametrize(
    "database_url", ["sqlite", pytest.param("postgres", marks=pytest.mark.servers)], indirect=True
)
SECRET = "a secret for tests, 32 characters and more"


def make_runtime(folder: Path, database_url: str, **settings: Any) -> Runtime:
    given = Settings(database_url=database_url, broker_url="memory://", storage_url=folder.as_uri(), secret_key=SECRET)
    storage = FolderStorage(folder)
    storage.prepare()
    return Runtime(
        settings=replace(given, **settings),
        db=Database(database_url),
        storage=storage,
        broker=RecordingBroker(),
        vault=Vault(SECRET),
        base_models=catalog.base_models(),
    )


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file with the tables, to be copied."""
    path = tmp_path_factory.mktemp("database") / "empty.db"
    database = Database(f"sqlite:///{path}")
    Base.metadata.create_all(database.engine)
    database.dispose()
    return path


@pytest.fixture
def settings() -> dict[str, Any]:
    """Settings that a test module may set otherwise."""
    return {}


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path, empty_database: Path) -> str:
    """An empty database of SQLite, or of Postgres where `ON_BOTH` asks for it."""
    if getattr(request, "param", "sqlite") == "sqlite":
        path = tmp_path / "bootlora.db"
        path.write_bytes(empty_database.read_bytes())
        return f"sqlite:///{path}"
    url: str = request.getfixturevalue("postgres_url")
    database = Database(url)
    Base.metadata.drop_all(database.engine)
    Base.metadata.create_all(database.engine)
    database.dispose()
    return url


@pytest.fixture
def runtime(tmp_path: Path, database_url: str, settings: dict[str, Any]) -> Iterator[Runtime]:
    runtime = make_runtime(tmp_path / "store", database_url, **settings)
    yield runtime
    runtime.close()


@pytest.fixture(scope="session")
def built_app(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    """Building the routes and the spec takes longer than most tests, so it is done once."""
    return create_app(make_runtime(tmp_path_factory.mktemp("built"), "sqlite:////nowhere/bootlora.db"))


@pytest.fixture
def app(built_app: Flask, runtime: Runtime) -> Iterator[Flask]:
    built_app.extensions["bootlora"] = runtime
    built_app.extensions["bootlora.limiter"] = Limiter(runtime.settings)
    holder = held.register(built_app, runtime)
    yield built_app
    holder.close()


class Caller:
    """Somebody with an API key. Answers are what `json` of the HTTP answer says; `answer` gives all of it."""

    def __init__(self, client: FlaskClient, key: str, user_id: str):
        self.client = client
        self.key = key
        self.user_id = user_id

    def answer(self, method: str, path: str, **given: Any) -> TestResponse:
        headers = {"Authorization": f"Bearer {self.key}", **given.pop("headers", {})}
        return self.client.open(path, method=method, headers=headers, **given)

    def get(self, path: str, **given: Any) -> TestResponse:
        return self.answer("GET", path, **given)

    def post(self, path: str, json: Any = None, **given: Any) -> TestResponse:
        return self.answer("POST", path, **({"json": json} if "data" not in given else {}), **given)

    def change(self, method: str, path: str, json: Any, if_match: str | None = "*", **given: Any) -> TestResponse:
        headers = {**given.pop("headers", {}), **({"If-Match": if_match} if if_match else {})}
        return self.answer(method, path, json=json, headers=headers, **given)

    def patch(self, path: str, json: Any, if_match: str | None = "*", **given: Any) -> TestResponse:
        return self.change("PATCH", path, json, if_match, **given)

    def put(self, path: str, json: Any, if_match: str | None = "*", **given: Any) -> TestResponse:
        return self.change("PUT", path, json, if_match, **given)

    def delete(self, path: str, **given: Any) -> TestResponse:
        return self.answer("DELETE", path, **given)


@pytest.fixture
def make_caller(app: Flask, runtime: Runtime) -> Callable[..., Caller]:
    def make(name: str, role: str = "member", scopes: list[str] | None = None) -> Caller:
        with runtime.db.transaction() as session:
            user = users.create(session, name, role)
            every = users.scopes_of(role)
            _, text = users.create_key(session, user, SECRET, name="test", scopes=scopes or every)
        return Caller(app.test_client(), text, user.id)

    return make


@pytest.fixture
def ada(make_caller: Callable[..., Caller]) -> Caller:
    """A member with all the scopes of a member."""
    return make_caller("ada")


@pytest.fixture
def bob(make_caller: Callable[..., Caller]) -> Caller:
    """Somebody else."""
    return make_caller("bob")


@pytest.fixture
def admin(make_caller: Callable[..., Caller]) -> Caller:
    return make_caller("root", role="admin")


@pytest.fixture
def session_of(runtime: Runtime) -> Callable[[], AbstractContextManager[Session]]:
    """Begins a transaction to set a scene in, or to look at the rows."""
    return runtime.db.transaction
