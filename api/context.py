"""What one request stands on: the runtime, who asks, and one session that lives until the answer is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import cast

from flask import current_app, g
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


@contextmanager
def sessions() -> Iterator[None]:
    """Whatever session the request begins ends here: committed after a good answer, rolled back after an error.

    The answer is made of rows before the commit, so that a stored answer (see idempotency) is part of it.
    """
    g.reading = g.writing = g.first = None
    g.after = []
    with ExitStack() as g.stack:
        yield
    for act in g.after:
        act()


def reading() -> Session:
    """The request's session for reading. It waits for no writer."""
    if g.writing is not None:
        return writing()
    if g.reading is None:
        g.reading = g.stack.enter_context(runtime().db.reading())
    return cast(Session, g.reading)


def writing() -> Session:
    """The request's transaction: all of it or nothing. Begin it late: on SQLite there is one writer at a time."""
    if g.writing is None:
        release()
        g.writing = g.stack.enter_context(runtime().transaction())
        if g.first is not None:
            g.first(g.writing)
    return cast(Session, g.writing)


def current_writing() -> Session | None:
    return cast(Session | None, g.writing)


def first(act: Callable[[Session], None]) -> None:
    """What the request's transaction is to begin with."""
    g.first = act


def after(act: Callable[[], None]) -> None:
    """What is to be done once the transaction has been committed."""
    g.after.append(act)


def undo(act: Callable[[], None]) -> None:
    """What is to be done if the request fails: for what is outside the database.

    When the connection broke, the row may have been committed all the same, and must find its object: then
    nothing is undone, and what turns out to be an orphan is collected later.
    """

    def unless_well(kind: object, error: object, trace: object) -> None:
        if kind is not None and not isinstance(error, DBAPIError):
            act()

    g.stack.push(unless_well)


def release() -> None:
    """Give back the connection of a request that has read all it needs for now."""
    if g.reading is not None:
        g.reading.close()
        g.reading = None
