"""Look-ups that are asked over and over: straight to the driver, without what SQLAlchemy does for each statement."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from typing import Any

from sqlalchemy import Dialect, Engine, Select


class Prepared:
    """A query, put together once: its text, the order of its parameters, how to read its columns."""

    def __init__(self, query: Select[Any], dialect: Dialect):
        compiled: Any = query.compile(dialect=dialect)
        columns = list(query.selected_columns)
        readers = [column.type.dialect_impl(dialect).result_processor(dialect, None) for column in columns]
        self.text = str(compiled)
        self._constants: dict[str, Any] = compiled.params
        self._order: list[str] | None = compiled.positiontup
        self._readers: list[tuple[int, Callable[[Any], Any]]] = [(n, read) for n, read in enumerate(readers) if read]
        self._row = _row_type(tuple(str(column.key) for column in columns))

    def parameters(self, values: dict[str, str]) -> Any:
        given = self._constants | values
        return given if self._order is None else [given[name] for name in self._order]

    def row(self, found: tuple[Any, ...]) -> Any:
        shown = list(found)
        for number, read in self._readers:
            shown[number] = read(shown[number])
        return self._row._make(shown)


def _row_type(names: tuple[str, ...]) -> Any:
    return namedtuple("Row", names)


class Lookups:
    """One row at a time, on connections of their own that are never in a transaction: as many as ask at once."""

    def __init__(self, engine: Engine):
        self._engine = engine
        self._prepared: dict[Select[Any], Prepared] = {}
        self._idle: list[Any] = []
        self.errors: type[Exception] = engine.dialect.loaded_dbapi.Error

    def row(self, query: Select[Any], values: dict[str, str]) -> Any | None:
        """The one row of a query that is a constant of the program.

        Raises:
            errors: the driver's own, of this one connection, which is gone then.
        """
        prepared = self._prepared.get(query)
        if prepared is None:
            prepared = self._prepared[query] = Prepared(query, self._engine.dialect)
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._connect()
        try:
            found = connection.execute(prepared.text, prepared.parameters(values)).fetchall()
        except self.errors:
            connection.close()
            raise
        self._idle.append(connection)
        return prepared.row(found[0]) if found else None

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _connect(self) -> Any:
        """A connection made as the pool makes them, but not the pool's."""
        made = self._engine.raw_connection()
        made.detach()
        connection: Any = made.dbapi_connection
        self._engine.dialect.set_isolation_level(connection, "AUTOCOMMIT")
        return connection
