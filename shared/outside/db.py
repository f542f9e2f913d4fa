"""The database: SQLite in WAL mode or Postgres, with common column types and a common clock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from sqlalchemy import JSON, DateTime, Engine, Select, create_engine, event, literal, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

from shared import json_text, records

# An unreachable server must not block a thread for ever. `tcp_user_timeout` is in milliseconds, the others in seconds.
PATIENCE = {"connect_timeout": 10, "tcp_user_timeout": 30_000, "keepalives_idle": 15, "keepalives_interval": 5}

Json = JSON().with_variant(JSONB(), "postgresql")


class Time(TypeDecorator[datetime]):
    """An aware datetime in UTC. SQLite does not store time zones, so UTC is added when it is read."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Record(TypeDecorator[Any]):
    """A record (see `shared/records.py`) or a list of them, stored as JSON."""

    impl = Json
    cache_ok = True

    def __init__(self, type_: type):
        super().__init__()
        self.type_ = type_

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        if value is None:
            return None
        return [records.write(each) for each in value] if isinstance(value, list) else records.write(value)

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else records.read(self.type_, value)


class clock(FunctionElement[datetime]):  # noqa: N801  (reads as a SQL function)
    """The database's time, `seconds` from now. Leases use only this clock, because workers' clocks drift."""

    type = Time()
    inherit_cache = True

    def __init__(self, seconds: float = 0.0):
        super().__init__(literal(float(seconds)))  # a parameter, so that the statement is compiled once


@compiles(clock)
def _clock(element: clock, compiler: Any, **kw: Any) -> str:
    # The time at which the statement began: an index can't be used with a volatile function such as clock_timestamp().
    return f"(statement_timestamp() + make_interval(secs => {compiler.process(element.clauses, **kw)}))"


@compiles(clock, "sqlite")
def _clock_sqlite(element: clock, compiler: Any, **kw: Any) -> str:
    # The zeros make it the text with microseconds that SQLAlchemy stores, so that texts compare as times.
    shift = f"printf('%+f seconds', {compiler.process(element.clauses, **kw)})"
    return f"(strftime('%Y-%m-%d %H:%M:%f', 'now', {shift}) || '000')"


def utcnow() -> datetime:
    return datetime.now(UTC)


def make_engine(url: str, **options: Any) -> Engine:
    """An engine for concurrent transactions. `options` are passed to SQLAlchemy's `create_engine`.

    On SQLite it uses WAL, and every transaction that may write begins with BEGIN IMMEDIATE. A deferred transaction
    that has read can't write after another one wrote: SQLite refuses that at once, whatever the timeout.
    """
    common: dict[str, Any] = {"pool_size": 10, "max_overflow": 20, **options}
    common |= {"json_serializer": json_text.write, "json_deserializer": json_text.read}
    if not url.startswith("sqlite"):
        return create_engine(url, connect_args=PATIENCE, pool_pre_ping=True, pool_recycle=1800, **common)
    engine = create_engine(url, connect_args={"timeout": 30}, **common)

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # the driver must not begin transactions itself
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=30000"):
            connection.execute(f"PRAGMA {pragma}")

    def _begin(connection: Any) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN IMMEDIATE"))

    if options.get("isolation_level") != "AUTOCOMMIT":
        event.listen(engine, "begin", _begin)
    return engine


class Database:
    """Sessions of one database. Rows can still be read after the commit."""

    def __init__(self, url: str):
        self.engine = make_engine(url)
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)
        self._readers = sessionmaker(self.engine.execution_options(begin="BEGIN"), expire_on_commit=False)
        self._autocommit = make_engine(url, isolation_level="AUTOCOMMIT")

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session that commits at the end, or rolls back after an exception."""
        with self._sessions.begin() as session:
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session for reads, which does not wait for writers."""
        with self._readers() as session:
            yield session

    def check(self) -> None:
        """Raise an error if the database doesn't answer, has no tables, or takes no writes. Nothing is written."""
        with self.transaction() as session:
            session.execute(text("UPDATE users SET name = name WHERE 1 = 0"))  # refused by a read-only database

    def row(self, query: Select[Any], **values: str) -> Any | None:
        """The one committed row that a query finds, or None. Its columns are attributes.

        It opens neither a session nor a transaction, so it takes a quarter of the time of `reading`.
        """
        with self._autocommit.connect() as connection:
            found = connection.execute(query, values).mappings().one_or_none()
        return None if found is None else SimpleNamespace(**found)

    def dispose(self) -> None:
        self._autocommit.dispose()
        self.engine.dispose()
