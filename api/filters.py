"""Filters of lists: by columns, by time and by metadata."""

from __future__ import annotations

import re
from typing import Any

from flask import request
from sqlalchemy import Select

from shared.errors import Invalid
from shared.texts import normal

METADATA = "metadata."


def narrowed(query: Select[Any], model: Any, given: dict[str, Any], *names: str) -> Select[Any]:
    """The query with filters by the columns `names`, by time and by metadata, as far as they are given."""
    for name in names:
        if name in given:
            query = query.where(getattr(model, name) == given[name])
    if "created_after" in given:
        query = query.where(model.created_at > given["created_after"])
    if "created_before" in given:
        query = query.where(model.created_at < given["created_before"])
    for key, value in metadata().items():
        query = query.where(model.labels[key].as_string() == value)
    return query


def metadata() -> dict[str, str]:
    """The `metadata.KEY=VALUE` parameters of this request."""
    pairs = {
        name.removeprefix(METADATA): normal(value) for name, value in request.args.items() if name.startswith(METADATA)
    }
    for key, value in pairs.items():
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", key) or len(value) > 512 or "\0" in value:
            raise Invalid(
                f"metadata.{key[:64]} is not a valid filter; a key has up to 64 of A-Z, a-z, 0-9, `_`, `.` and `-`, "
                "a value up to 512 characters",
                errors=[{"parameter": METADATA + key[:64], "detail": "bad"}],
            )
    return pairs
