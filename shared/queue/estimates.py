"""How long until a job begins and until it ends. Where too little is known, there is no estimate.

A job that runs takes what is left of its present stage, and the stages that follow. One that waits begins when enough
of the jobs before it have ended, each on a slot of the queue's workers.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from math import inf
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from shared import figures, inventory
from shared.catalog import QUEUES
from shared.lifecycle import JobState
from shared.models import Job, Worker
from shared.outside.db import clock, utcnow
from shared.queue import speeds, turns
from shared.queue.speeds import NO_TIME, UNKNOWN, Seconds
from shared.settings import Settings

KEEP_SECONDS = 2.0  # how long the starts of a queue are kept before they are computed again
OWN_SHARE = 0.1  # of a stage; once so much is done, its own speed counts too
OWN_CHANGE = 1.25  # by this factor, at least, the speed of a stage is expected to change until its end

Models = frozenset[str] | None
Slots = dict[Models, list[float]]

_jobs = Job.__table__


@dataclass(frozen=True, kw_only=True)
class Wait:
    """Seconds until a job begins and until it ends. None: unknown, or already past."""

    to_start: Seconds | None = None
    to_finish: Seconds | None = None


def of_job(session: Session, job: Job, settings: Settings) -> Wait:
    """The estimated wait for a job that has not ended, if no more jobs are submitted."""
    if job.state == JobState.RUNNING:
        return Wait(to_start=NO_TIME, to_finish=_known(_left(session, job, utcnow())))
    starts = _starts(session, job, settings)
    start = None if starts is None else _known(starts.get(job.id, UNKNOWN))
    if start is None:
        return Wait()
    return Wait(to_start=start, to_finish=_known(start + _whole(session, job)))


def _known(seconds: Seconds) -> Seconds | None:
    return seconds if seconds.is_known else None


# --- a job that runs


def _left(session: Session, job: Any, now: datetime) -> Seconds:
    """What is left of the present stage, and the stages after it."""
    stages = speeds.of_stages(session, job.kind, job.base_model, _sizes(job))
    if not stages:
        return UNKNOWN
    progress: dict[str, Any] = job.progress or {}
    names = list(stages)
    present = names.index(progress["stage"]) if progress.get("stage") in names else 0
    following = sum((stages[name] for name in names[present + 1 :]), NO_TIME)
    return _left_of_stage(stages[names[present]], progress, _running_seconds(job, now)) + following


def _left_of_stage(whole: Seconds, progress: dict[str, Any], running_seconds: float) -> Seconds:
    """By earlier jobs alone, until a tenth of the stage is done; from then on by its own speed too.

    Args:
        whole: how long such a stage takes.
        progress: as the worker has reported it, some seconds ago.
        running_seconds: since the attempt began.
    """
    reported = running_seconds - progress.get("seconds", running_seconds)  # seconds ago
    own = progress.get("seconds_left")
    share = progress["step"] / progress["total_steps"] if own is not None else 0.0
    if own is not None and share >= OWN_SHARE:
        return _from_here(own, whole * (1.0 - share)).after(max(0.0, reported))
    return whole.after(max(0.0, reported + progress.get("stage_seconds", running_seconds)))


def _from_here(own: float, usual: Seconds) -> Seconds:
    """Halfway between the speed of the last steps and that of earlier jobs: what slows a machine down comes and goes.

    The bounds include both. They lie a quarter away from the stage's own speed, or as far as earlier jobs differed.
    """
    low, high = own / OWN_CHANGE, own * OWN_CHANGE
    if not usual.is_known or usual.middle == 0:
        return Seconds(low, own, high)
    low = min(low, own * usual.low / usual.middle, usual.middle)
    high = max(high, own * usual.high / usual.middle, usual.middle)
    return Seconds(low, (own + usual.middle) / 2, high)


def _running_seconds(job: Any, now: datetime) -> float:
    """Since this attempt began. The start of a job that was requeued is that of its first attempt."""
    began_at = job.started_at if job.attempt == 1 else job.dispatched_at
    return 0.0 if began_at is None else max(0.0, (now - began_at).total_seconds())


# --- a job that waits


def _whole(session: Session, job: Any) -> Seconds:
    """How long a job takes from its start. Of one that was requeued, a part may have been done."""
    if not job.stages:
        return UNKNOWN
    whole = speeds.expected(session, job.kind, job.base_model, dict(_sizes(job)))
    return whole if job.attempt == 1 else Seconds(0.0, whole.middle, whole.high)


def _sizes(job: Any) -> list[tuple[str, float]]:
    return [(name, size) for name, size, *_ in job.stages or ()]


def _starts(session: Session, job: Job, settings: Settings) -> dict[str, Seconds] | None:
    """The starts of the jobs that wait in a job's queue; None if no worker is alive, or too many jobs wait."""
    name = f"starts {job.queue}"

    def look() -> dict[str, Seconds] | None:
        return _all_starts(session, job.queue, settings)

    starts = figures.kept(session, name, KEEP_SECONDS, look)
    if starts is None or job.id in starts:
        return starts
    figures.forget(name)  # the job is newer than these
    return figures.kept(session, name, KEEP_SECONDS, look)


def _all_starts(session: Session, queue: str, settings: Settings) -> dict[str, Seconds] | None:
    workers = session.execute(_live_workers(queue, settings)).all()
    waiting = turns.in_order(session, queue)
    if not workers or waiting is None:
        return None
    now = utcnow()
    having = inventory.of_workers(session, [worker.name for worker in workers]) if QUEUES[queue].uses_device else {}
    running = [(row.worker, _left(session, row, now)) for row in session.execute(_running(queue))]
    wholes = [(row.base_model, _whole(session, row)) for row in waiting]
    lows, middles, highs = (
        starts_of(
            _slots(workers, having, [(worker, getattr(left, bound)) for worker, left in running]),
            [(base_model, getattr(whole, bound)) for base_model, whole in wholes],
        )
        for bound in ("low", "middle", "high")
    )
    return {row.id: Seconds(*each) for row, *each in zip(waiting, lows, middles, highs, strict=True)}


def _slots(workers: Sequence[Any], having: dict[str, set[str]], running: list[tuple[str | None, float]]) -> Slots:
    """When the slots of the live workers are free, by the base models of these workers; None: they can load any.

    Jobs of workers that are not alive any more are taken for jobs of the first one: they will be requeued.
    """
    models = {worker.name: frozenset(having[worker.name]) if worker.name in having else None for worker in workers}
    count, left = Counter[Models](), defaultdict[Models, list[float]](list)
    for worker in workers:
        count[models[worker.name]] += worker.slots
    for name, seconds in running:
        left[models.get(name or "", models[workers[0].name])].append(seconds)
    return {each: free_at(left[each], slots) for each, slots in count.items()}


def free_at(running: list[float], slots: int) -> list[float]:
    """When each of so many slots is free. If more jobs are running, the first of them to end free no slot.

    Args:
        running: seconds that the running jobs have left.
    """
    return [0.0] * (slots - len(running)) + sorted(running)[-slots:] if slots else []


def starts_of(slots: Slots, waiting: list[tuple[str | None, float]]) -> list[float]:
    """When each of the waiting jobs begins, in their order: each on the slot that is free first and has its base model.

    Args:
        slots: by base models, when each slot is free.
        waiting: the base model of each job, and the seconds that it takes.
    """
    heaps = {models: list(times) for models, times in slots.items() if times}
    for heap in heaps.values():
        heapq.heapify(heap)
    starts = []
    for base_model, seconds in waiting:
        fits = [heap for models, heap in heaps.items() if models is None or base_model is None or base_model in models]
        if not fits:
            starts.append(inf)
            continue
        heap = min(fits, key=lambda heap: heap[0])
        starts.append(heap[0])
        heapq.heapreplace(heap, heap[0] + seconds)
    return starts


@cache
def _live_workers(queue: str, settings: Settings) -> Select[str, int]:
    alive = (Worker.queue == queue, Worker.seen_at > clock(-settings.worker_seen_seconds))
    return select(Worker.name, Worker.slots).where(*alive).order_by(Worker.name)


@cache
def _running(queue: str) -> Select[Any]:
    names = ("worker", "kind", "base_model", "stages", "attempt", "progress", "started_at", "dispatched_at")
    running = (_jobs.c.state == JobState.RUNNING, _jobs.c.queue == queue)
    return select(*(_jobs.c[name] for name in names)).where(*running).limit(turns.MAX_COUNTED)
