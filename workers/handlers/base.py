"""The base model of a job, cached in this process between jobs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from shared.catalog.kinds import LOADING
from shared.checkpoints import hashes
from shared.checkpoints.header import BadModel
from shared.errors import JobFailed
from workers.diffusion import families
from workers.diffusion.families.base import Family
from workers.diffusion.families.original import BadCheckpoint
from workers.work import Work

log = structlog.get_logger()

MOST_REPORTED = 10  # cut-off texts in one event


def load(work: Work[Any, Any]) -> Family:
    """The job's base model, on this worker's device.

    The job's checkpoint is used only with the files that it was made with. If they have changed, a later attempt fails,
    and a retry by the client begins anew.
    """
    device = work.runtime.settings.device
    model = work.base_model
    work.begin(LOADING)
    if not model.path:
        raise JobFailed(
            "base_model_unavailable",
            f"this worker has no base model {model.name!r}; put the file there, then retry",
        )
    found = _hashes(work)
    work.base_sha256 = _joined(found)
    before = (work.job.checkpoint or {}).get("base_sha256")
    if before and before != work.base_sha256:
        if work.job.attempt > 1:
            raise _changed(model.name, before, work.base_sha256)
        log.warning("base_model.changed", base_model=model.name, before=before, now=work.base_sha256)
        work.job = replace(work.job, checkpoint=None)
    try:
        return families.load(
            replace(model, sha256=found[0], notes=()),
            None if device == "auto" else device,
            work.runtime.settings.keep_model_bytes,
        )
    except BadCheckpoint as error:
        raise JobFailed("base_model_unusable", str(error)) from error
    except (OSError, ValueError) as error:
        log.exception("base_model.unavailable", base_model=model.name)
        raise JobFailed(
            "base_model_unavailable", f"base model {model.name!r} can't be loaded; see the worker's log"
        ) from error


def check_unchanged(work: Work[Any, Any]) -> None:
    """Refuse the result if the base model's files have changed while the job ran, because it says which they are."""
    now = _joined(_hashes(work))
    if now != work.base_sha256:
        raise _changed(work.base_model.name, work.base_sha256, now)


def _hashes(work: Work[Any, Any]) -> list[str]:
    """The SHA-256 of the base model, then those of the VAE and the configs that its row names."""
    model, scratch = work.base_model, work.runtime.settings.scratch_dir
    try:
        return [hashes.sha256(Path(path), scratch) for path in (model.path, *model.companions)]
    except (OSError, BadModel) as error:
        reason = error.strerror if isinstance(error, OSError) else error  # users read it: no place on the disk
        raise JobFailed(
            "base_model_unavailable",
            f"base model {model.name!r} can't be read: {reason}; put it back, then retry",
        ) from error


def _joined(found: list[str]) -> str:
    """One SHA-256 for all; that of the base model where it is alone."""
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()


def _changed(name: str, before: str, now: str) -> JobFailed:
    return JobFailed(
        "base_model_changed",
        f"the base model {name!r} changed while the job ran: the SHA-256 of its files was {before[:12]} and is "
        f"{now[:12]}; retry",
        retryable=True,
    )


def report_cut_texts(work: Work[Any, Any], family: Family, texts: Iterable[str]) -> None:
    """Record an event with the text that the text encoder cuts off; the loss would go unnoticed otherwise."""
    ends = {text: family.cut_off(text) for text in dict.fromkeys(texts)}
    cut = {text: end for text, end in ends.items() if end}
    if cut:
        log.warning("prompt.cut", texts=len(cut))
        work.record_event("prompt.cut", texts=len(cut), unread=list(dict.fromkeys(cut.values()))[:MOST_REPORTED])
