"""Which waiting job is dispatched next, and how many jobs are before a given one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, bindparam, exists, func, or_, select, update
from sqlalchemy.orm import Session

from shared import inventory
from shared.catalog import FORMER_QUEUES, QUEUES
from shared.lifecycle import JobState
from shared.models import Job, User, Worker
from shared.outside.db import clock
from shared.settings import Settings

MAX_COUNTED = 1_000  # waiting jobs of a queue; with more, no places are computed

# Statements against tables, not mapped classes: SQLAlchemy then does not synchronise loaded rows. They do not flush.
_jobs, _users = Job.__table__, User.__table__
_BASE_MODEL = _jobs.c.inputs["base_model"].as_string()


class Turn(NamedTuple):
    """A message to send, which wakes a worker for this job."""

    queue: str
    id: str
    attempt: int
    base_model: str | None = None  # that it needs


class Fleet:
    """The free slots of live workers, and the base models that each can load; None: any."""

    def __init__(self, slots: dict[str, int], models: dict[str, set[str]]):
        self._free = slots
        self._models = {name: models.get(name) for name in slots}

    def able(self) -> set[str] | None:
        """The base models that the workers with free slots can load; None: any."""
        each = [self._models[name] for name, free in self._free.items() if free > 0]
        return None if None in each else set[str]().union(*(models for models in each if models is not None))

    def occupy(self, base_model: str | None) -> None:
        """Take a slot for a job: of the worker with the fewest base models, so that those with more stay free."""
        fits = [name for name, free in self._free.items() if free > 0 and self._can_load(name, base_model)]
        if fits:
            self._free[min(fits, key=self._choice)] -= 1

    def _can_load(self, name: str, base_model: str | None) -> bool:
        models = self._models[name]
        return base_model is None or models is None or base_model in models

    def _choice(self, name: str) -> float:
        models = self._models[name]
        return math.inf if models is None else len(models)


def hand_out(session: Session, queue: str, settings: Settings, *, patient: bool) -> list[Turn] | None:
    """Mark the next jobs as dispatched, as many as live workers have free slots, and return them.

    The caller sends their messages after the commit. When a message is lost, the mark expires and the job is handed out
    again. Returns None if another dispatcher is at work, and this one is not `patient`.
    """
    live = _live(session, queue, settings, patient=patient)
    if live is None:
        return None
    free = sum(worker.slots for worker in live) - _busy(session, queue, settings)
    fleet = _fleet(session, queue, settings, live) if free > 0 and QUEUES[queue].uses_device else None
    taken: list[Turn] = []
    while len(taken) < free:
        turn = take_next(session, queue, settings, None if fleet is None else fleet.able())
        if turn is None:
            break
        taken.append(turn)
        if fleet is not None:
            fleet.occupy(turn.base_model)
    return taken


def take_next(
    session: Session, queue: str, settings: Settings, base_models: Collection[str] | None = None
) -> Turn | None:
    """Mark the next job: of the user served least recently, the one with the highest priority, then the oldest.

    `base_models`: only jobs that need one of these, or none.

    Skips users whose rows are locked, to avoid a deadlock: the holder of such a lock may be waiting for a lock that is
    held here. It usually hands out jobs itself before its commit; if not, the clock does within a second.
    """
    session.flush()
    which: dict[str, Any] = {} if base_models is None else {"able": list(base_models)}
    user_id = session.scalar(_next_user(queue, settings, base_models is not None), which)
    if user_id is None:
        return None
    marking = _marking(queue, settings, base_models is not None)
    taken = session.execute(marking, which | {"whose": user_id}).one_or_none()
    if taken is None:
        return None
    session.execute(_SERVED, {"whose": user_id})
    return Turn(queue, taken.id, taken.attempt, taken.base_model)


def repair_in_line(session: Session) -> int:
    """Set `in_line` for users with open jobs and clear it for all others. Returns how many rows changed.

    `jobs.enqueue` sets it for the user of a new job. This function repairs it after an API of an older version has
    written a job, which does not set it. It skips users who are submitting a job at this moment: on Postgres, a new job
    locks its user's row.
    """
    wrong = _users.c.in_line != _HAS_OPEN_JOBS
    found = session.scalars(select(_users.c.id).where(wrong).with_for_update(skip_locked=True)).all()
    if found:
        session.execute(update(_users).where(_users.c.id.in_(found)).values(in_line=_HAS_OPEN_JOBS))
    return len(found)


def reroute(session: Session) -> int:
    """Move waiting jobs out of former queues, and have their messages sent again. Returns how many were moved.

    An API or a worker of an older version still uses these queues while it runs beside newer ones. Locked jobs are left
    for the next call.
    """
    moved = 0
    for old, new in FORMER_QUEUES.items():
        stray = select(_jobs.c.id).where(_jobs.c.state == JobState.QUEUED, _jobs.c.queue == old)
        found = session.scalars(stray.limit(MAX_COUNTED).with_for_update(skip_locked=True)).all()
        if found:
            session.execute(update(_jobs).where(_jobs.c.id.in_(found)).values(queue=new, dispatched_at=None))
            moved += len(found)
    return moved


def free_slots(session: Session, queue: str, settings: Settings) -> int:
    """How many more jobs the live workers of a queue can take right now."""
    live = _live(session, queue, settings, patient=True) or []
    return sum(worker.slots for worker in live) - _busy(session, queue, settings)


def anything_waits(session: Session, queue: str, settings: Settings) -> bool:
    """Whether there is a job to hand out. If not, a dispatcher need not hold up other writers."""
    return session.scalar(_one_that_waits(queue, settings)) is not None


def unclaimed(session: Session, queue: str) -> set[tuple[str, int]]:
    """The jobs of a queue, with their attempts, whose messages were sent and which no worker has claimed yet."""
    sent = select(Job.id, Job.attempt).where(
        Job.queue == queue, Job.state == JobState.QUEUED, Job.dispatched_at <= clock()
    )
    return {(job_id, attempt) for job_id, attempt in session.execute(sent)}


def unsend(session: Session, job_id: str, attempt: int) -> None:
    """Clear the mark of a job whose message was not sent, or was refused. It is handed out again at once."""
    session.execute(
        update(Job)
        .where(Job.id == job_id, Job.state == JobState.QUEUED, Job.attempt == attempt)
        .values(dispatched_at=None)
    )


def place(session: Session, job: Job) -> int | None:
    """How many jobs run before a waiting one, if no more are submitted. None if it doesn't wait, or too many do.

    Users take turns (see `take_next`): before a user's second job, each other user gets one or two of theirs.
    """
    if job.state != JobState.QUEUED:
        return None
    turns = _turns(session, job.queue)
    if sum(turns.values()) >= MAX_COUNTED or job.user_id not in turns:
        return None  # too many to count, or it has just been claimed
    before = _mine_before(session, job) if turns[job.user_id] > 1 else 0
    users = list(turns)
    first = users[: users.index(job.user_id)]
    return before + sum(min(turns[user], before + (user in first)) for user in users if user != job.user_id)


def in_order(session: Session, queue: str) -> list[Any] | None:
    """The waiting jobs in the order in which they are dispatched, if no more are submitted. None if they are too many.

    Each row has `id`, `kind`, `base_model`, `stages` and `attempt`. See `place`.
    """
    users = _turns(session, queue)
    if sum(users.values()) >= MAX_COUNTED:
        return None
    rank = {user: number for number, user in enumerate(users)}
    keyed, counted = [], Counter[str]()
    for row in session.execute(_waiting_by_user(queue)):
        keyed.append((counted[row.user_id], rank.get(row.user_id, len(rank)), row))
        counted[row.user_id] += 1
    return [row for *_, row in sorted(keyed, key=lambda each: each[:2])]


def _mine_before(session: Session, job: Job) -> int:
    sooner = or_(Job.priority > job.priority, and_(Job.priority == job.priority, Job.id < job.id))
    same = (Job.state == JobState.QUEUED, Job.queue == job.queue, Job.user_id == job.user_id)
    return session.scalar(select(func.count()).where(*same, sooner)) or 0


def _turns(session: Session, queue: str) -> dict[str, int]:
    """How many jobs each user has waiting, in the order of their turns. Read once per session."""
    known: dict[str, dict[str, int]] = session.info.setdefault("turns", {})
    if queue not in known:
        known[queue] = dict(session.execute(_counted_by_user(queue)).all())
    return known[queue]


def _live(session: Session, queue: str, settings: Settings, *, patient: bool) -> list[Any] | None:
    """All live workers with their slots. None if there are none, or if another dispatcher has locked some of them.

    Dispatchers lock the rows of the workers, so that two can't both count the last slot. A transaction that already
    holds other locks must not wait for these, or two could wait for each other: it is not `patient`, and skips locked
    rows.
    """
    mine = session.execute(_live_workers(queue, settings, patient)).all()
    if not mine or (not patient and len(mine) < mine[0].number):
        return None
    return list(mine)


def _fleet(session: Session, queue: str, settings: Settings, live: list[Any]) -> Fleet | None:
    """Who can take which job now. None if no worker has reported base models: then anyone takes any."""
    models = inventory.of_workers(session, [worker.name for worker in live])
    if not models:
        return None
    slots = {worker.name: worker.slots for worker in live}
    sent = []
    for job in session.execute(_occupying(queue, settings)):
        if job.state == JobState.QUEUED:
            sent.append(job.base_model)
        elif job.worker in slots:
            slots[job.worker] -= 1
    fleet = Fleet(slots, models)
    for base_model in sent:  # after the running ones, which have their slots already
        fleet.occupy(base_model)
    return fleet


def _busy(session: Session, queue: str, settings: Settings) -> int:
    return session.scalar(_counting_busy(queue, settings)) or 0


# The clock runs these each second, and so does each submit. They are cached: building them takes as long as a run.


@cache
def _counted_by_user(queue: str) -> Select[str, int]:
    waiting = select(Job.user_id).where(Job.state == JobState.QUEUED, Job.queue == queue).limit(MAX_COUNTED).subquery()
    counted = select(User.id, func.count()).join(waiting, waiting.c.user_id == User.id)
    return counted.group_by(User.id, User.served_at).order_by(User.served_at, User.id)


@cache
def _waiting_by_user(queue: str) -> Select[Any]:
    """The jobs of each user in the order in which they are dispatched."""
    columns = (_jobs.c.id, _jobs.c.user_id, _jobs.c.kind, _jobs.c.base_model, _jobs.c.stages, _jobs.c.attempt)
    waiting = select(*columns).where(_jobs.c.state == JobState.QUEUED, _jobs.c.queue == queue)
    return waiting.order_by(_jobs.c.user_id, _jobs.c.priority.desc(), _jobs.c.id)


@cache
def _occupies(queue: str, settings: Settings) -> ColumnElement[bool]:
    """Jobs that hold a slot or were sent to one. Each half names the queue, so that each uses an index."""
    sent = _jobs.c.dispatched_at > clock(-settings.redispatch_seconds)
    return or_(
        and_(_jobs.c.state == JobState.RUNNING, _jobs.c.queue == queue),
        and_(_jobs.c.state == JobState.QUEUED, _jobs.c.queue == queue, sent),
    )


@cache
def _waits(queue: str, settings: Settings, choosy: bool = False) -> ColumnElement[bool]:
    """Jobs to hand out: never sent, or sent so long ago that the message must be lost. Of base models, if `choosy`."""
    sent_at = _jobs.c.dispatched_at
    unsent = or_(sent_at.is_(None), sent_at < clock(-settings.redispatch_seconds))
    waits = and_(_jobs.c.state == JobState.QUEUED, _jobs.c.queue == queue, unsent)
    if not choosy:
        return waits
    return and_(waits, or_(_BASE_MODEL.is_(None), _BASE_MODEL.in_(bindparam("able", expanding=True))))


@cache
def _one_that_waits(queue: str, settings: Settings) -> Select[str]:
    return select(Job.id).where(_waits(queue, settings)).limit(1)


@cache
def _live_workers(queue: str, settings: Settings, patient: bool) -> Select[str, int, int]:
    alive = (Worker.queue == queue, Worker.seen_at > clock(-settings.worker_seen_seconds))
    number = select(func.count()).where(*alive).correlate(None).scalar_subquery()
    live = select(Worker.name, Worker.slots, number.label("number")).where(*alive).order_by(Worker.name)
    return live.with_for_update(of=Worker, skip_locked=not patient)


@cache
def _occupying(queue: str, settings: Settings) -> Select[Any]:
    return select(_jobs.c.state, _jobs.c.worker, _BASE_MODEL.label("base_model")).where(_occupies(queue, settings))


@cache
def _counting_busy(queue: str, settings: Settings) -> Select[int]:
    return select(func.count()).where(_occupies(queue, settings))


@cache
def _next_user(queue: str, settings: Settings, choosy: bool) -> Select[str]:
    counted = (
        select(_jobs.c.user_id, func.count().label("jobs")).where(_occupies(queue, settings)).group_by(_jobs.c.user_id)
    )
    busy = counted.subquery()
    allowed = func.coalesce(_users.c.max_running_jobs, settings.max_running_jobs)
    return (
        select(_users.c.id)
        .outerjoin(busy, busy.c.user_id == _users.c.id)
        .where(
            _users.c.in_line,
            func.coalesce(busy.c.jobs, 0) < allowed,
            exists().where(_waits(queue, settings, choosy), _jobs.c.user_id == _users.c.id),
        )
        .order_by(_users.c.served_at, _users.c.id)
        .limit(1)
        .with_for_update(of=_users, key_share=True, skip_locked=True)
    )


@cache
def _marking(queue: str, settings: Settings, choosy: bool) -> Any:
    theirs = select(_jobs.c.id).where(_waits(queue, settings, choosy), _jobs.c.user_id == bindparam("whose"))
    first = theirs.order_by(_jobs.c.priority.desc(), _jobs.c.id)
    next_one = _jobs.c.id == first.limit(1).correlate(None).scalar_subquery()
    marked = update(_jobs).where(next_one, _waits(queue, settings)).values(dispatched_at=clock())
    return marked.returning(_jobs.c.id, _jobs.c.attempt, _BASE_MODEL.label("base_model"))


_HAS_OPEN_JOBS = exists().where(_jobs.c.user_id == _users.c.id, _jobs.c.state.in_((JobState.QUEUED, JobState.RUNNING)))
_SERVED = update(_users).where(_users.c.id == bindparam("whose")).values(served_at=clock())
