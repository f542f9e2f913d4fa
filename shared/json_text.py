"""JSON by orjson, ten times as fast as the standard library. Responses, ETags and rows use it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import orjson

# Refuse the types that the standard library refuses.
STRICT = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
SORTED = STRICT | orjson.OPT_SORT_KEYS


def write(value: Any, *, sort_keys: bool = False, default: Callable[[Any], Any] | None = None) -> str:
    """A value as JSON. NaN becomes null. `default` converts values that JSON has no type for."""
    try:
        return orjson.dumps(value, default, SORTED if sort_keys else STRICT).decode()
    except TypeError:  # a lone surrogate, an integer over 64 bits, or keys that are not strings
        return json.dumps(value, sort_keys=sort_keys, default=default)


def read(text: str | bytes) -> Any:
    """Parse JSON. Old rows may contain NaN, which only the standard library accepts."""
    try:
        return orjson.loads(text)
    except ValueError:
        return json.loads(text)
