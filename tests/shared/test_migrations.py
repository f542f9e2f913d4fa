"""The migrations make the tables that the models describe, indexes included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from shared.admin import upgrade
from shared.db import Database
from shared.models import Base

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
