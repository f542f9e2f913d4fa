"""Estimated times: a middle value, and bounds."""

from __future__ import annotations

from typing import Any

from marshmallow import fields

from api.schemas.fields import Answer
from shared.queue.speeds import Seconds

MIDDLE = "A middle value, by what such jobs took here lately. Null: unknown."


class BoundsSchema(Answer):
    """Seconds: the 10th and the 90th percentile of what such jobs took lately; wider, if these were few."""

    low = fields.Float(required=True)
    high = fields.Float(required=True)


def middle(description: str = MIDDLE) -> fields.Float:
    return fields.Float(required=True, allow_none=True, metadata={"description": description})


def bounds() -> fields.Nested:
    return fields.Nested(BoundsSchema, required=True, allow_none=True)


def shown(name: str, seconds: Seconds | None) -> dict[str, Any]:
    """The two fields of an estimate: `name` and `name_range`. Both are None if it is unknown."""
    if seconds is None or not seconds.is_known:
        return {name: None, f"{name}_range": None}
    bounds = {"low": round(seconds.low, 1), "high": round(seconds.high, 1)}
    return {name: round(seconds.middle, 1), f"{name}_range": bounds}
