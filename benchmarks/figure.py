"""What a bench prints of each thing that it has measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def figure(
    name: str,
    value: float | None,
    *,
    goal: float | None = None,
    better: str | None = None,
    runs: Sequence[float] = (),
    about: str,
) -> dict[str, Any]:
    """One line; `better` is lower or higher, `runs` are the single values that `value` was taken from."""
    return {
        "name": name,
        "value": None if value is None else round(value, 3),
        "goal": goal,
        "better": better,
        "runs": len(runs),
        "spread": [round(min(runs), 3), round(max(runs), 3)] if len(runs) else [],
        "about": about,
    }
