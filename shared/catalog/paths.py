"""Dotted paths: how rows name code without importing it, so that the API needs no torch."""

from __future__ import annotations

import importlib
from typing import Any


def resolve(code: str) -> Any:
    """The object that a path `package.module:name` names. Its module is imported only now."""
    module, _, name = code.partition(":")
    return getattr(importlib.import_module(module), name)
