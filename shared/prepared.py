"""Statements that are asked with every request: put together once, then straight to the driver.

SQLAlchemy takes several times longer to send a small statement than the database to do it. What is sent here must be a
constant of the program, sent with the same names each time, or it would be put together each time and kept for ever.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Column, Dialect, Engine, Executable, Insert, insert, inspect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, make_transient_to_detached
from sqlalchemy.orm.attributes import set_committed_value

Convert = Callable[[Any], Any]

_known: WeakKeyDictionary[Dialect, dict[Executable, Prepared]] = WeakKeyDictionary()


class Prepared:
    """The text of a statement, how to write its parameters, how to read its rows."""

    def __init__(self, statement: Any, dialect: Dialect, given: Iterable[str]):
        compiled = statement.compile(dialect=dialect, column_keys=list(given))
        if compiled.post_compile_params or compiled.literal_execute_params:
            raise TypeError("the text of this statement depends on its parameters")
        columns = list(statement.exported_columns)
        self.text = str(compiled)
        self._order: list[str] | None = compiled.positiontup
        types = {name: bind.type for bind, name in compiled.bind_names.items()}
        self._writers = _converters(types, dialect, "bind_processor")
        # A column's default in Python is not looked for: whoever sends the statement gives it.
        needed = {column.key for column in compiled.prefetch} | set(given)
        needed |= {name for bind, name in compiled.bind_names.items() if bind.required}
        fixed = {name: value for name, value in compiled.params.items() if name not in needed}
        self._constants = {name: self._written(name, value) for name, value in fixed.items()}
        readers = _converters(dict(enumerate(each.type for each in columns)), dialect, "result_processor", None)
        self._readers = list(readers.items())
        self._row = _row_type(tuple(str(column.key) for column in columns))

    def execute(self, connection: Any, values: dict[str, Any]) -> list[Any]:
        """Its rows, on a connection of the driver."""
        cursor = connection.execute(self.text, self.parameters(values))
        return [self._read(row) for row in cursor.fetchall()] if cursor.description else []

    def parameters(self, values: dict[str, Any]) -> Any:
        """All of them, as the driver wants them."""
        given = self._constants | {name: self._written(name, value) for name, value in values.items()}
        return given if self._order is None else [given[name] for name in self._order]

    def _written(self, name: str, value: Any) -> Any:
        return self._writers[name](value) if name in self._writers else value

    def _read(self, row: tuple[Any, ...]) -> Any:
        values = list(row)
        for number, read in self._readers:
            values[number] = read(values[number])
        return self._row._make(values)


def _converters(types: dict[Any, Any], dialect: Dialect, name: str, *more: Any) -> dict[Any, Convert]:
    """Those of types that the driver doesn't take or give as they are."""
    found = {key: getattr(type_.dialect_impl(dialect), name)(dialect, *more) for key, type_ in types.items()}
    return {key: convert for key, convert in found.items() if convert}


def _row_type(names: tuple[str, ...]) -> Any:
    return namedtuple("Row", names, rename=True)


def _of(statement: Executable, dialect: Dialect, given: Iterable[str]) -> Prepared:
    known = _known.setdefault(dialect, {})
    if statement not in known:
        known[statement] = Prepared(statement, dialect, given)
    return known[statement]


def run(session: Session, statement: Executable, **values: Any) -> list[Any]:
    """The rows of a statement in a session's transaction, after what the session has to write by itself."""
    session.flush()
    connection = session.connection()
    prepared = _of(statement, connection.dialect, values)
    try:
        return prepared.execute(connection.connection.driver_connection, values)
    except connection.dialect.loaded_dbapi.Error as error:
        raise _as_sqlalchemy_says_it(error, prepared.text, connection.dialect) from error


def one(session: Session, statement: Executable, **values: Any) -> Any | None:
    """The only row, or None."""
    rows = run(session, statement, **values)
    return rows[0] if rows else None


def scalar(session: Session, statement: Executable, **values: Any) -> Any | None:
    """The only column of the only row, or None."""
    row = one(session, statement, **values)
    return None if row is None else row[0]


def add(session: Session, row: Any) -> None:
    """Write a new row at once, as the session's flush would with some ten times the work; the session has it then."""
    model: Any = type(row)
    columns, left_out = _columns(model), []
    for name, default in _defaults(model).items():
        if name not in row.__dict__:
            if default is None:
                left_out.append(name)
            else:
                setattr(row, name, default())
    values = {columns[name]: value for name, value in row.__dict__.items() if name in columns}
    run(session, _inserting(model, frozenset(values)), **values)
    for name in left_out:
        set_committed_value(row, name, None)
    make_transient_to_detached(row)
    session.add(row)


@cache
def _columns(model: Any) -> dict[str, str]:
    """The names of a model's columns, by those of its attributes."""
    return {each.key: each.columns[0].key for each in inspect(model).column_attrs}


@cache
def _defaults(model: Any) -> dict[str, Callable[[], Any] | None]:
    """What an attribute is when nobody says."""
    return {name: _default(model.__table__.c[column]) for name, column in _columns(model).items()}


def _default(column: Column[Any]) -> Callable[[], Any] | None:
    given: Any = column.default
    if given is None:
        return None
    return partial(given.arg, None) if given.is_callable else lambda: given.arg


@cache
def _inserting(model: Any, names: frozenset[str]) -> Insert:
    """One statement for each choice of attributes: what is left out is NULL, where None may be a JSON null."""
    return insert(model.__table__)


def _as_sqlalchemy_says_it(error: Exception, text: str, dialect: Dialect) -> Exception:
    base: Any = dialect.loaded_dbapi.Error
    gone = dialect.is_disconnect(error, None, None)  # type: ignore[arg-type]
    return DBAPIError.instance(text, None, error, base, connection_invalidated=gone, dialect=dialect)  # type: ignore[call-overload,no-any-return]


class Lookups:
    """One row at a time, on connections of their own that are never in a transaction: as many as ask at once."""

    def __init__(self, engine: Engine):
        self._engine = engine
        self._idle: list[Any] = []
        self.errors: type[Exception] = engine.dialect.loaded_dbapi.Error

    def row(self, query: Executable, values: dict[str, Any]) -> Any | None:
        """The one row of a query.

        Raises:
            errors: the driver's own, of this one connection, which is gone then.
        """
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._connect()
        try:
            found = _of(query, self._engine.dialect, values).execute(connection, values)
        except self.errors:
            connection.close()
            raise
        self._idle.append(connection)
        return found[0] if found else None

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
