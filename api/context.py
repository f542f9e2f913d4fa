"""What one request stands on: the runtime, who asks, and one session that lives until the answer is written."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import cast

from flask import current_app, g, request
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from shared.models import ApiKey, User
from shared.runtime import Runtime


def runtime() -> Runtime:
    return cast(Runtime, current_app.extensions["bootlora"])


def api_key() -> ApiKey:
    return cast(ApiKey, g.api_key)


def user() -> User:
    return api_key().user


def allowed(scope: str) -> bool:
    return scope in api_key().scopes


@dataclass
class Unit:
    """A request's unit of work: its sessions, and what is to be done around them."""

    stack: ExitStack
    reading: Session | None = None
    writing: Session | None = None
    first: Callable[[Session], None] | None = None
    after: list[Callable[[], None]] = field(default_factory=list)


@contextmanager
def sessions() -> Iterator[None]:
    """Whatever session the request begins ends here: committed after a good answer, rolled back after an error.

    The answer is made of rows before the commit, so that a stored answer (see idempotency) is part of it.
    """
    with ExitStack() as stack:
        unit = g.unit = Unit(stack)
        yield
    for act in unit.after:
        act()


def reading() -> Session:
    """The request's session for reading. It waits for no writer."""
    unit = _unit()
    if unit.writing is not None:
        return unit.writing
    if unit.reading is None:
        unit.reading = unit.stack.enter_context(runtime().db.reading())
    return unit.reading


def writing() -> Session:
    """The request's transaction: all of it or nothing. Begin it late: on SQLite there is one writer at a time."""
    unit = _unit()
    if unit.writing is None:
        release()
        unit.writing = unit.stack.enter_context(runtime().transaction())
        if unit.first is not None:
            unit.first(unit.writing)
    return unit.writing


def current_writing() -> Session | None:
    return _unit().writing


def first(act: Callable[[Session], None]) -> None:
    """What the request's transaction is to begin with."""
    _unit().first = act


def after(act: Callable[[], None]) -> None:
    """What is to be done once the transaction has been committed."""
    _unit().after.append(act)


def undo(act: Callable[[], None]) -> None:
    """What is to be done if the request fails: for what is outside the database.

    When the connection broke, the row may have been committed all the same, and must find its object: then
    nothing is undone, and what turns out to be an orphan is collected later.
    """

    def unless_well(kind: object, error: object, trace: object) -> None:
        if kind is not None and not isinstance(error, DBAPIError):
            act()

    _unit().stack.push(unless_well)


def release() -> None:
    """Give back the connection of a request that has read all it needs for now."""
    unit = _unit()
    if unit.reading is not None:
        unit.reading.close()
        unit.reading = None


def connection() -> socket.socket | None:
    """The client's end, where the server shows it (gunicorn does)."""
    return cast("socket.socket | None", request.environ.get("gunicorn.socket"))


def is_closed(connection: socket.socket | None) -> bool:
    """Whether the client has hung up. A write would find that out, but may be long in coming."""
    if connection is None:
        return False
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except (BlockingIOError, ValueError):  # it says nothing, as it should; TLS can't be looked into
        return False
    except OSError:
        return True


def _unit() -> Unit:
    return cast(Unit, g.unit)
