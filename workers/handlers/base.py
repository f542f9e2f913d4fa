"""The base model of a job, cached in this process between jobs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import structlog

from shared.errors import JobFailed
from workers.diffusion import families
from workers.diffusion.families.base import Family
from workers.work import Work

log = structlog.get_logger()

MOST_REPORTED = 10  # cut-off texts in one event


def load(work: Work[Any, Any]) -> Family:
    """The job's base model, on this worker's device."""
    device = work.runtime.settings.device
    work.step("loading the base model", 0, 1)
    try:
        return families.load(work.base_model, None if device == "auto" else device)
    except (OSError, ValueError) as error:
        log.exception("base_model.unavailable", base_model=work.base_model.name)
        raise JobFailed(
            "base_model_unavailable", f"base model {work.base_model.name!r} can't be loaded; see the worker's log"
        ) from error


def report_cut_texts(work: Work[Any, Any], family: Family, texts: Iterable[str]) -> None:
    """Record an event with the text that the text encoder cuts off; the loss would go unnoticed otherwise."""
    ends = {text: family.cut_off(text) for text in dict.fromkeys(texts)}
    cut = {text: end for text, end in ends.items() if end}
    if cut:
        log.warning("prompt.cut", texts=len(cut))
        work.record_event("prompt.cut", texts=len(cut), unread=list(dict.fromkeys(cut.values()))[:MOST_REPORTED])
