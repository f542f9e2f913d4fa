"""Jobs: the table is the queue. Every change is a guarded update, so a duplicate message has no effect.

A worker holds a job by a lease and a token. It renews the lease, and each later write checks the token. A worker that
lost its lease can waste time but can't change anything.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from functools import cache
from typing import Any

import structlog
from sqlalchemy import bindparam, func, or_, select, update
from sqlalchemy.orm import Session

from shared import events, records, usage
from shared.catalog import QUEUES, resolve
from shared.catalog.kinds import KINDS, I, JobKind, P
from shared.errors import Conflict, TooMany
from shared.lifecycle import TERMINAL_JOB_STATES, JobState
from shared.models import Job, Project, User, Worker
from shared.outside.db import clock, utcnow
from shared.settings import Settings

log = structlog.get_logger()
OPEN_STATES = (JobState.QUEUED, JobState.RUNNING)

# Statements against tables, not mapped classes: SQLAlchemy then does not synchronise loaded rows. They do not flush.
_jobs, _users = Job.__table__, User.__table__


@dataclass(frozen=True, kw_only=True)
class ClaimedJob:
    """A job that a worker has claimed, as plain values."""

    id: str
    kind: str
    project_id: str
    round_id: str | None
    attempt: int
    token: str
    params: dict[str, Any]
    inputs: dict[str, Any]
    checkpoint: dict[str, Any] | None


class LostLease(Exception):
    """This worker has lost the job's lease. It must stop and write nothing."""


def enqueue(
    session: Session,
    project: Project,
    kind: JobKind[P, I, Any],
    *,
    params: P,
    inputs: I,
    round_id: str | None = None,
    priority: int = 0,
    labels: dict[str, Any] | None = None,
    checkpoint: dict[str, Any] | None = None,
) -> Job:
    """Add a queued job. The runtime sends its message after the commit.

    Raises:
        TypeError: `params` or `inputs` are not the record types of the kind.
    """
    kind.check(params, kind.params)
    kind.check(inputs, kind.inputs)
    job = Job(
        user_id=project.user_id,
        project_id=project.id,
        round_id=round_id,
        kind=kind.name,
        queue=kind.queue,
        params=records.write(params),
        inputs=records.write(inputs),
        base_model=getattr(inputs, "base_model", None),
        stages=kind.stages_of(params, inputs) if checkpoint is None else None,  # else a part may be done
        priority=priority,
        labels=labels if labels is not None else project.labels,
        checkpoint=checkpoint,
    )
    session.add(job)
    session.flush()
    session.execute(_SET_IN_LINE, {"whose": job.user_id})  # after the job: see turns.repair_in_line
    wake(session, job.queue)
    return job


def wake(session: Session, queue: str) -> None:
    """Have the runtime dispatch jobs of a queue at the end of this transaction: a job is new or a slot is free."""
    session.info.setdefault("awake", set()).add(queue)


def check_cap(session: Session, user: User, settings: Settings) -> None:
    """Raise an error if the user may not start more work. Locks the user's row: one count at a time.

    Raises:
        TooMany: as many jobs are waiting as allowed.
        Conflict: as many bytes are stored as allowed.
    """
    usage.check_stored_bytes(session, user.id, settings)
    session.execute(_ONE_AT_A_TIME, {"whose": user.id})
    count, allowed = waiting(session, user), max_waiting(user, settings)
    if count >= allowed:
        raise TooMany(
            f"{count} of your jobs are waiting, and {allowed} are allowed; try again when some of them have run",
            code="too_many_queued_jobs",
        )


def waiting(session: Session, user: User) -> int:
    """How many of the user's waiting jobs count towards their cap."""
    return session.scalar(_WAITING_AND_CAPPED, {"whose": user.id}) or 0


def max_waiting(user: User, settings: Settings) -> int:
    return user.max_queued_jobs if user.max_queued_jobs is not None else settings.max_queued_jobs


def base_model_of(session: Session, job_id: str) -> str | None:
    """The base model that a job needs; None if it needs none, or there is no such job."""
    return session.scalar(_BASE_MODEL_OF, {"wanted": job_id})


def claim(session: Session, job_id: str, attempt: int, worker: str, lease_seconds: float) -> ClaimedJob | None:
    """Claim a queued job. Returns None if this attempt is over or already claimed."""
    token = secrets.token_hex(16)
    _lock_project(session, job_id)
    given = {"wanted": job_id, "its_attempt": attempt, "worker": worker, "lease_token": token}
    if session.execute(_taking(lease_seconds), given).one_or_none() is None:
        return None
    job = session.get_one(Job, job_id, populate_existing=True)
    events.of_job(session, job, "job.started")
    return ClaimedJob(
        id=job.id,
        kind=job.kind,
        project_id=job.project_id,
        round_id=job.round_id,
        attempt=job.attempt,
        token=token,
        params=job.params,
        inputs=job.inputs,
        checkpoint=job.checkpoint,
    )


def renew(session: Session, held: ClaimedJob, lease_seconds: float, progress: dict[str, Any] | None) -> bool:
    """Renew the lease and save the progress. Returns True if a cancel was requested."""
    values: dict[str, Any] = {"lease_until": clock(lease_seconds)}
    if progress is not None:
        values["progress"] = progress
    cancel = session.execute(
        update(Job).where(*_mine(held)).values(**values).returning(Job.cancel_requested_at)
    ).one_or_none()
    if cancel is None:
        raise LostLease(held.id)
    return cancel[0] is not None


def save_checkpoint(session: Session, held: ClaimedJob, checkpoint: dict[str, Any]) -> None:
    """Save where the next attempt resumes."""
    _guarded(session, held, checkpoint=checkpoint)


def record_event(session: Session, held: ClaimedJob, type_: str, **data: Any) -> None:
    """Record an event about a job. Raises `LostLease` if another worker has it."""
    _lock_project(session, held.id)
    job = session.scalar(select(Job).where(*_mine(held)).with_for_update())
    if job is None:
        raise LostLease(held.id)
    events.of_job(session, job, type_, **data)


def succeed(session: Session, held: ClaimedJob, result: Any, seconds: dict[str, float] | None = None) -> Job:
    """End a job with its result, and let the kind's `taken_by` apply it.

    `seconds`: how long this attempt took, by stage. They are kept if no other attempt has done a part of the work.

    Raises:
        TypeError: the result is not the kind's result type.
    """
    kind = KINDS[held.kind]
    kind.check(result, kind.result)
    job = _end(session, held, JobState.SUCCEEDED, result=records.write(result), progress=None)
    if seconds and job.stages and job.attempt == 1:
        job.stages = _timed(job.stages, seconds)
    events.of_job(session, job, "job.succeeded")
    resolve(kind.taken_by)(session, job, result)
    return job


def fail(session: Session, held: ClaimedJob, error: dict[str, Any]) -> Job:
    """End a job with an error: `code`, `message` and `retryable`."""
    job = _end(session, held, JobState.FAILED, error=error)
    events.of_job(session, job, "job.failed", error=error)
    return job


def stop(session: Session, held: ClaimedJob) -> Job:
    """End a running job that was cancelled."""
    job = _end(session, held, JobState.CANCELLED)
    events.of_job(session, job, "job.cancelled")
    return job


def give_back(session: Session, held: ClaimedJob) -> Job:
    """Requeue the job of a worker that is shutting down, and check it out. The attempt does not count as lost.

    If a cancel was requested meanwhile, the job ends as cancelled, and the caller handles that.
    """
    _lock_project(session, held.id)
    _guarded(session, held, lease_token=None)
    job = session.get_one(Job, held.id, populate_existing=True)
    if job.worker is not None:
        check_out(session, job.worker)
        session.flush()  # a dispatcher locks the worker before the user
    _count_gpu_seconds(session, job)
    if not _ended_by_cancel(session, job):
        _requeue(session, job, "the worker was shut down")
    return job


def give_up(session: Session, held: ClaimedJob, settings: Settings) -> Job:
    """Requeue the job of a worker that broke. The attempt counts as lost, as the job may have broken the worker."""
    _lock_project(session, held.id)
    _guarded(session, held, lease_token=None)
    job = session.get_one(Job, held.id, populate_existing=True)
    lose(session, job, settings)
    return job


def cancel(session: Session, job: Job) -> Job:
    """Cancel a job: at once if it is queued, at its next step if it runs. Doing it twice changes nothing."""
    lock(session, job)
    waiting = session.execute(
        update(Job)
        .where(Job.id == job.id, Job.state == JobState.QUEUED)
        .values(state=JobState.CANCELLED, finished_at=clock())
    )
    if _one(waiting):
        session.refresh(job)
        events.of_job(session, job, "job.cancelled")
        return job
    session.execute(
        update(Job)
        .where(Job.id == job.id, Job.state == JobState.RUNNING, Job.cancel_requested_at.is_(None))
        .values(cancel_requested_at=clock())
    )
    session.refresh(job)
    if job.state in (JobState.SUCCEEDED, JobState.FAILED):
        raise Conflict(f"the job has already {job.state}", code="job_ended")
    return job


def lock(session: Session, job: Job) -> None:
    """Lock a job and its project until the transaction ends, and refresh it."""
    _lock_project(session, job.id)
    session.refresh(job, with_for_update=True)


def overdue(session: Session, limit: int = 100) -> list[Job]:
    """Running jobs whose lease has expired: their worker is lost."""
    return list(session.scalars(select(Job).where(*_is_overdue()).order_by(Job.lease_until).limit(limit)))


def of_disabled_users(session: Session, limit: int = 100) -> list[Job]:
    """Open jobs that nobody has asked to stop, although their users are disabled."""
    unasked = (Job.state.in_(OPEN_STATES), Job.cancel_requested_at.is_(None))
    query = select(Job).join(User, Job.user_id == User.id).where(User.disabled_at.is_not(None), *unasked)
    return list(session.scalars(query.limit(limit)))


def take_overdue(session: Session, job_id: str) -> Job | None:
    """Lock an overdue job. Returns None if it is not overdue any more or another transaction has it."""
    _lock_project(session, job_id)
    query = select(Job).where(Job.id == job_id, *_is_overdue())
    return session.scalar(query.with_for_update(skip_locked=True))


def held_by(session: Session, worker: str) -> list[Job]:
    """Lock the running jobs of a worker by name. When it has just started, they are its dead predecessor's."""
    its = (Job.state == JobState.RUNNING, Job.worker == worker)
    of_them = select(Project.id).where(Project.id.in_(select(Job.project_id).where(*its)))
    session.execute(of_them.order_by(Project.id).with_for_update())
    return list(session.scalars(select(Job).where(*its).with_for_update(skip_locked=True)))


def lose(session: Session, job: Job, settings: Settings) -> bool:
    """Requeue a job whose worker was lost, or fail it after too many. Returns True if it has ended."""
    job.lost_attempts += 1
    if _ended_by_cancel(session, job):
        return True
    if job.lost_attempts < settings.max_lost_attempts:
        _requeue(session, job, "the worker was lost")
        return False
    job.error = {
        "code": "worker_lost",
        "message": f"{job.lost_attempts} workers were lost while they ran this job; check their logs, then retry",
        "retryable": True,
    }
    _close(job, JobState.FAILED)
    events.of_job(session, job, "job.failed", error=job.error)
    return True


def check_in(session: Session, name: str, queue: str, slots: int) -> None:
    """Record that a worker is alive and takes jobs."""
    seen = session.execute(update(Worker).where(Worker.name == name).values(seen_at=clock(), slots=slots))
    if not _one(seen):
        session.add(Worker(name=name, queue=queue, slots=slots, seen_at=clock()))


def is_alive(session: Session, name: str, seconds: float) -> bool:
    """Whether a worker has checked in within the last `seconds`."""
    seen = select(Worker.name).where(Worker.name == name, Worker.seen_at > clock(-seconds))
    return session.scalar(seen) is not None


def check_out(session: Session, name: str) -> None:
    """Record that a worker takes no more jobs."""
    worker = session.get(Worker, name)
    if worker is not None:
        session.delete(worker)


def _lock_project(session: Session, job_id: str) -> None:
    """Lock the project before its job, in the order that requests use; another order could deadlock."""
    session.execute(_PROJECT_OF, {"wanted": job_id})


@cache
def _taking(lease_seconds: float) -> Any:
    waiting = (_jobs.c.state == JobState.QUEUED, _jobs.c.attempt == bindparam("its_attempt"))
    since = func.coalesce(_jobs.c.started_at, clock())
    return (
        update(_jobs)
        .where(_jobs.c.id == bindparam("wanted"), *waiting)
        .values(state=JobState.RUNNING, lease_until=clock(lease_seconds), started_at=since)
        .returning(_jobs.c.id)
    )


_SET_IN_LINE = update(_users).where(_users.c.id == bindparam("whose"), _users.c.in_line.is_(False)).values(in_line=True)
_BASE_MODEL_OF = select(_jobs.c.inputs["base_model"].as_string()).where(_jobs.c.id == bindparam("wanted"))
_ONE_AT_A_TIME = select(User.id).where(User.id == bindparam("whose")).with_for_update(key_share=True)
_WAITING_AND_CAPPED = select(func.count()).where(
    Job.user_id == bindparam("whose"),
    Job.state == JobState.QUEUED,
    or_(*(Job.queue == name for name, queue in QUEUES.items() if queue.capped)),
)
_PROJECT_OF = (
    select(Project.id)
    .where(Project.id == select(Job.project_id).where(Job.id == bindparam("wanted")).scalar_subquery())
    .with_for_update()
)


def _is_overdue() -> tuple[Any, ...]:
    return (Job.state == JobState.RUNNING, Job.lease_until < clock())


def _mine(held: ClaimedJob) -> tuple[Any, ...]:
    return (Job.id == held.id, Job.state == JobState.RUNNING, Job.lease_token == held.token)


def _guarded(session: Session, held: ClaimedJob, **values: Any) -> None:
    written = session.execute(update(Job).where(*_mine(held)).values(**values))
    if not _one(written):
        raise LostLease(held.id)


def _end(session: Session, held: ClaimedJob, state: JobState, **values: Any) -> Job:
    _lock_project(session, held.id)
    _guarded(session, held, state=state, finished_at=clock(), lease_token=None, lease_until=None, **values)
    job = session.get_one(Job, held.id, populate_existing=True)
    _count_gpu_seconds(session, job)
    wake(session, job.queue)
    return job


def _close(job: Job, state: JobState) -> None:
    assert state in TERMINAL_JOB_STATES
    job.state = state
    job.finished_at = utcnow()
    job.lease_token = job.lease_until = None


def _timed(stages: list[Any], seconds: dict[str, float]) -> list[Any]:
    """The stages with their seconds. If there is only one, all the time was spent on it, whatever it was called."""
    if len(stages) == 1:
        return [[*stages[0][:2], round(sum(seconds.values()), 3)]]
    return [[name, size, round(seconds[name], 3)] for name, size, *_ in stages if name in seconds]


def _ended_by_cancel(session: Session, job: Job) -> bool:
    """End a job instead of requeuing it if a cancel was requested. Returns whether it ended."""
    if job.cancel_requested_at is None:
        return False
    _close(job, JobState.CANCELLED)
    session.flush()
    events.of_job(session, job, "job.cancelled")
    return True


def _requeue(session: Session, job: Job, reason: str) -> None:
    job.state = JobState.QUEUED
    job.attempt += 1
    job.lease_token = job.lease_until = job.dispatched_at = job.worker = None
    job.queued_at = utcnow()
    session.flush()
    events.of_job(session, job, "job.requeued", reason=reason)
    wake(session, job.queue)
    log.info("job.requeued", job_id=job.id, attempt=job.attempt, reason=reason)


def _count_gpu_seconds(session: Session, job: Job) -> None:
    """Add this attempt's GPU seconds, counted from its dispatch, when a worker was free. Lost attempts are free."""
    if not QUEUES[KINDS[job.kind].queue].metered:
        return
    began_at = job.dispatched_at or job.started_at
    now = session.scalar(select(clock()))
    if began_at is None or now is None:
        return
    seconds = max(0.0, (now - began_at).total_seconds())
    session.execute(update(User).where(User.id == job.user_id).values(gpu_seconds=User.gpu_seconds + seconds))
    session.execute(
        update(Project).where(Project.id == job.project_id).values(gpu_seconds=Project.gpu_seconds + seconds)
    )


def _one(result: Any) -> bool:
    return bool(result.rowcount == 1)
