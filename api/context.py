"""The state of a request: the runtime, the caller's API key, and one session, which ends after the answer is built."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import cast

from flask import current_app, g, request
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from shared import inventory
from shared.catalog import BaseModel
from shared.models import ApiKey, User
from shared.runtime import Runtime


def runtime() -> Runtime:
    return cast(Runtime, current_app.extensions["bootlora"])


def base_models() -> dict[str, BaseModel]:
    """The base models of all workers, by name."""
    session = reading()
    if "base_models" not in session.info:
        session.info["base_models"] = inventory.known(session, runtime().settings)
    return cast(dict[str, BaseModel], session.info["base_models"])


def api_key() -> ApiKey:
    return cast(ApiKey, g.api_key)


def user() -> User:
    return api_key().user


def allowed(scope: str) -> bool:
    return scope in api_key().scopes


@dataclass
class Unit:
    """A request's sessions, and its actions before and after the commit."""

    stack: ExitStack
    reading: Session | None = None
    writing: Session | None = None
    first: Callable[[Session], None] | None = None
    after: list[Callable[[], None]] = field(default_factory=list)


@contextmanager
def sessions() -> Iterator[None]:
    """End the request's session: commit after an answer, roll back after an error.

    The answer is built before the commit, because a stored answer (see `idempotency`) is part of the transaction.
    """
    with ExitStack() as stack:
        unit = g.unit = Unit(stack)
        yield
    for act in unit.after:
        act()


def reading() -> Session:
    """The request's session for reads, which waits for no writer; once it has begun, the request's transaction."""
    unit = _unit()
    if unit.writing is not None:
        return unit.writing
    if unit.reading is None:
        unit.reading = unit.stack.enter_context(runtime().db.reading())
    return unit.reading


def begin_transaction() -> Session:
    """Begin the request's transaction, or return it if it has begun. It is committed once the answer has been built.

    Call it late: SQLite has one writer at a time.
    """
    unit = _unit()
    if unit.writing is None:
        release()
        unit.writing = unit.stack.enter_context(runtime().transaction())
        if unit.first is not None:
            unit.first(unit.writing)
    return unit.writing


def in_transaction() -> bool:
    return _unit().writing is not None


def first(act: Callable[[Session], None]) -> None:
    """Call this at the beginning of the request's transaction."""
    _unit().first = act


def after(act: Callable[[], None]) -> None:
    """Call this after the commit."""
    _unit().after.append(act)


def undo(act: Callable[[], None]) -> None:
    """Call this if the request fails. It is for changes outside the database, such as a stored object.

    It is not called if the connection to the database broke: the commit may have succeeded, and then the object must
    exist. An object without a row is deleted later.
    """

    def after_an_error(kind: object, error: object, trace: object) -> None:
        if kind is not None and not isinstance(error, DBAPIError):
            act()

    _unit().stack.push(after_an_error)


def release() -> None:
    """Close the session for reads, to free its connection before something slow."""
    unit = _unit()
    if unit.reading is not None:
        unit.reading.close()
        unit.reading = None


def connection() -> socket.socket | None:
    """The client's socket, if the server exposes it (gunicorn does)."""
    return cast("socket.socket | None", request.environ.get("gunicorn.socket"))


def is_closed(connection: socket.socket | None) -> bool:
    """Whether the client has hung up."""
    if connection is None:
        return False
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except (BlockingIOError, ValueError):  # nothing to read, as expected; or TLS, which can't be peeked into
        return False
    except OSError:
        return True


def _unit() -> Unit:
    return cast(Unit, g.unit)
