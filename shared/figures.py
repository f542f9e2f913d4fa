"""Figures that answers need often and that change slowly. A process keeps each for some seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

from sqlalchemy.orm import Session

T = TypeVar("T")
_found: dict[tuple[str, str], tuple[float, Any]] = {}  # by database and name: until when it is kept, and the figure


def kept(session: Session, name: str, seconds: float, look: Callable[[], T]) -> T:
    """The figure of this name in this database. `look` computes it if the last one is older than so many seconds."""
    place = (str(session.get_bind().engine.url), name)
    until, found = _found.get(place, (0.0, None))
    if time.monotonic() >= until:
        found = look()
        _found[place] = (time.monotonic() + seconds, found)
    return cast(T, found)


def forget(name: str = "") -> None:
    """Drop the figures whose names begin so; by default all."""
    for place in [place for place in _found if place[1].startswith(name)]:
        _found.pop(place, None)
