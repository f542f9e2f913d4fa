"""Alembic's entry: runs the migrations on the database that the caller names."""

from typing import Any, Literal

from alembic import context
from sqlalchemy import JSON

from shared.models import Base
from shared.outside.db import Time, make_engine


def render_item(kind: str, item: Any, autogen_context: Any) -> str | Literal[False]:
    """Write our own types as what they are in the database, so that old migrations need none of our code."""
    if kind == "type" and isinstance(item, Time):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and isinstance(item, JSON):
        return 'sa.JSON().with_variant(postgresql.JSONB(), "postgresql")'
    return False


def run() -> None:
    engine = make_engine(context.config.attributes["database_url"])
    with engine.begin() as connection:
        context.configure(
            connection=connection, target_metadata=Base.metadata, render_as_batch=True, render_item=render_item
        )
        context.run_migrations()
    engine.dispose()


run()
