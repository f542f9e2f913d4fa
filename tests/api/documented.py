"""The routes and examples of `openapi.yaml`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

METHODS = ("get", "post", "put", "patch", "delete")


def operations(spec: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every route of a document: its path, method and operation."""
    for path, item in spec["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, method, item[method]


def real(text: str, things: dict[str, str]) -> str:
    """Text in which the ids of the examples are replaced by those of things that exist."""
    for example, id_ in things.items():
        text = text.replace(example, id_)
    return text
