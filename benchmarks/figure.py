"""A benchmark's result, as it is printed."""

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
    """One line of output. `better` is lower or higher; `runs` are the single values from which `value` was taken."""
    return {
        "name": name,
        "value": None if value is None else round(value, 3),
        "goal": goal,
        "better": better,
        "runs": len(runs),
        "spread": [round(min(runs), 3), round(max(runs), 3)] if len(runs) else [],
        "about": about,
    }
