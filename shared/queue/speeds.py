"""How fast this installation has been lately. The estimates of waits are computed from it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, TypeVar, cast

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from shared.catalog.kinds import KINDS, JobKind
from shared.lifecycle import JobState
from shared.models import Job, Project, Worker
from shared.outside.db import clock, utcnow
from shared.settings import Settings

LATEST = 20  # jobs that an estimate is computed from
RECENT = 1_000  # the latest jobs, among which these are searched
KEEP_SECONDS = 15.0  # how long a figure is kept before it is computed again

T = TypeVar("T")
_found: dict[tuple[str, str], tuple[float, Any]] = {}


@dataclass(frozen=True, kw_only=True)
class Wait:
    """Seconds until a job begins and until it ends. None: unknown, or already past."""

    to_start: float | None = None
    to_finish: float | None = None


def wait(session: Session, job: Job, place: int | None, settings: Settings) -> Wait:
    """The estimated wait for a job that has not ended, if no more jobs are submitted."""
    kind = KINDS[job.kind]
    whole = seconds(session, kind, job.inputs.get("base_model", ""), kind.size_of(job))
    if job.state == JobState.RUNNING:
        left = (job.progress or {}).get("seconds_left")
        if left is None and whole is not None and job.started_at is not None:
            left = max(0.0, whole - (utcnow() - job.started_at).total_seconds())
        return Wait(to_start=0.0, to_finish=left)
    mean = _kept(session, f"queue {job.queue}", lambda: _mean_of_queue(session, job.queue))
    slots, busy = session.execute(_slots_and_busy(job.queue, settings)).one()
    if not slots or mean is None:
        return Wait()
    # On average a busy slot is halfway through its job.
    before = max(0.0, (place or 0) + 1 - (slots - busy)) - (0.5 if busy >= slots else 0.0)
    to_start = round(max(0.0, before) * mean / slots, 1)
    return Wait(to_start=to_start, to_finish=None if whole is None else round(to_start + whole, 1))


@cache
def _slots_and_busy(queue: str, settings: Settings) -> Select[Any]:
    live = (Worker.queue == queue, Worker.seen_at > clock(-settings.worker_seen_seconds))
    slots = select(func.sum(Worker.slots)).where(*live).scalar_subquery()
    busy = select(func.count()).where(Job.queue == queue, Job.state == JobState.RUNNING).scalar_subquery()
    return select(slots, busy)


def seconds(session: Session, kind: JobKind[Any, Any, Any], base_model: str, size: int) -> float | None:
    """How long a job of this size takes, by the latest ones on this base model that succeeded; None: not known yet."""
    each = _kept(session, f"{kind.name} {base_model}", lambda: _seconds_each(session, kind, base_model))
    return None if each is None else round(size * each, 1)


def _seconds_each(session: Session, kind: JobKind[Any, Any, Any], base_model: str) -> float | None:
    latest = _latest(session, base_model, kind)
    return _mean((job.started_at, job.finished_at, kind.size_of(job)) for job in latest)


def _mean_of_queue(session: Session, queue: str) -> float | None:
    query = select(Job.started_at, Job.finished_at).where(Job.queue == queue, Job.state == JobState.SUCCEEDED)
    latest = session.execute(query.order_by(Job.id.desc()).limit(LATEST))
    return _mean((started_at, finished_at, 1) for started_at, finished_at in latest)


def _kept(session: Session, name: str, look: Callable[[], T]) -> T:
    """The figure of a moment ago, or a fresh one. Every answer about an open job needs it, and it changes slowly."""
    place = (str(session.get_bind()), name)
    until, found = _found.get(place, (0.0, None))
    if time.monotonic() >= until:
        found = look()
        _found[place] = (time.monotonic() + KEEP_SECONDS, found)
    return cast(T, found)


def _latest(session: Session, base_model: str, kind: JobKind[Any, Any, Any]) -> list[Job]:
    ended = select(Job.id).where(Job.queue == kind.queue, Job.state == JobState.SUCCEEDED)
    recent = ended.order_by(Job.id.desc()).limit(RECENT).subquery()
    query = (
        select(Job)
        .join(recent, recent.c.id == Job.id)
        .join(Project, Project.id == Job.project_id)
        .where(Job.kind == kind.name, Project.base_model == base_model, Job.attempt == 1)
    )
    return list(session.scalars(query.order_by(Job.id.desc()).limit(LATEST)))


def _mean(runs: Any) -> float | None:
    spent, done = 0.0, 0
    for started_at, finished_at, amount in runs:
        if isinstance(started_at, datetime) and isinstance(finished_at, datetime) and amount:
            spent += (finished_at - started_at).total_seconds()
            done += amount
    return spent / done if done else None
