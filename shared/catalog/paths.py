"""Dotted paths. Rows name code by them without importing it, so that the API needs no torch."""

from __future__ import annotations

import importlib
from typing import Any


def resolve(code: str) -> Any:
    """Import the object that a path `package.module:name` names."""
    module, _, name = code.partition(":")
    return getattr(importlib.import_module(module), name)
