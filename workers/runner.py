"""From a message to a stored result: claim, work, finish. No Celery here, and no torch."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import stamina
import structlog
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session

from shared import records, rounds
from shared.catalog import resolve
from shared.catalog.kinds import KINDS
from shared.errors import BootloraError, JobFailed, Unavailable
from shared.lifecycle import TERMINAL_JOB_STATES
from shared.models import Job
from shared.queue import jobs
from shared.queue.jobs import ClaimedJob, LostLease
from shared.runtime import Runtime
from workers.pulse import Pulse, Stopped
from workers.scratch import workspace
from workers.work import Work

log = structlog.get_logger()

Ending = Callable[[Session], object]
AWAY = (InterfaceError, OperationalError)  # a database that will be back; other errors come of what was to be written
# How libraries, Postgres and SQLite put it; a full disk under SQLite's log of changes is an I/O error to it.
FULL_DISK = ("No space left on device", "database or disk is full", "disk I/O error")
LOST_GPU = (
    *("CUDA error", "CUDA driver error", "cuDNN error", "device-side assert"),
    *("No CUDA GPUs are available", "no CUDA-capable device"),
)
BUG = ("internal", "something went wrong in the worker; its log has this job's id", True)


def run_job(runtime: Runtime, job_id: str, attempt: int, worker: str, draining: Callable[[], bool]) -> bool:
    """Do a job, if it is still there to be done. False when the work has hurt this process: it should do no other."""
    with runtime.transaction() as session:
        held = jobs.claim(session, job_id, attempt, worker, runtime.settings.lease_seconds)
    if held is None:
        log.info("job.not_mine", job_id=job_id, attempt=attempt)
        return True
    with structlog.contextvars.bound_contextvars(job_id=job_id, attempt=attempt, kind=held.kind):
        log.info("job.claimed", worker=worker)
        unhurt = True
        try:
            ending: Ending | None = _succeeded(held, work_on(runtime, held, draining))
        except Exception as error:
            ending, unhurt = _after(runtime, held, error), not has_hurt(error)
        finish(runtime, held, ending)
    return unhurt


def work_on(runtime: Runtime, held: ClaimedJob, draining: Callable[[], bool]) -> Any:
    """Run the handler, with a folder and a pulse. Returns the result record of the job's kind."""
    kind = KINDS[held.kind]
    given = {"params": records.read(kind.params, held.params), "inputs": records.read(kind.inputs, held.inputs)}
    with workspace(runtime.settings.scratch_dir) as folder, Pulse(runtime, held, draining) as pulse:
        return resolve(kind.handler)(Work(job=held, folder=folder, runtime=runtime, pulse=pulse, **given))


def has_hurt(error: Exception) -> bool:
    """Whether the process in which this happened is good for nothing more."""
    return gpu_is_lost(error) or (isinstance(error, Stopped) and error.by_force)


def gpu_is_lost(error: BaseException) -> bool:
    """Whether CUDA has failed, after which it goes on failing until the process ends. Its libraries say it in words."""
    return any(words in str(each) for each in causes(error) for words in LOST_GPU)


def disk_is_full(error: BaseException) -> bool:
    """Whether this came of it. Libraries that write files by themselves tell it only in words."""
    return any(
        (isinstance(each, OSError) and each.errno in (errno.ENOSPC, errno.EDQUOT))
        or any(words in str(each) for words in FULL_DISK)
        for each in causes(error)
    )


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came of."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def finish(runtime: Runtime, held: ClaimedJob, ending: Ending | None) -> None:
    """Job, round, events and what comes next, in one transaction; or nothing, if the lease is lost."""
    if ending is None:
        log.warning("job.lost")
        return
    try:
        _write(runtime, ending)
    except LostLease:
        log.warning("job.lost")
    except AWAY:
        raise  # the database is gone for longer than the lease: another attempt will come
    except Exception:
        log.exception("job.result_unusable")
        with suppress(LostLease):
            _write(runtime, _failed(held, *BUG))
    else:
        log.info("job.finished")


def _write(runtime: Runtime, ending: Ending) -> None:
    for attempt in stamina.retry_context(on=AWAY, attempts=None, timeout=runtime.settings.lease_seconds):
        with attempt, runtime.transaction() as session:
            ending(session)


def _succeeded(held: ClaimedJob, result: Any) -> Ending:
    return lambda session: jobs.succeed(session, held, result)


def _after(runtime: Runtime, held: ClaimedJob, error: Exception) -> Ending | None:
    """How the job ends after this; None when it isn't ours to end."""
    match error:
        case Stopped():
            return _after_stop(held, error)
        case LostLease():
            return None
        case JobFailed():
            return _failed(held, error.code, error.message, error.retryable)
        case Unavailable():
            return _failed(held, "store_unavailable", error.message, True)
        case BootloraError():
            return _failed(held, error.code, error.message, False)
        case MemoryError():
            return _failed(held, "out_of_memory", "the worker ran out of memory", True)
    if disk_is_full(error):
        return _failed(held, "disk_full", "the worker's disk is full; the job can be retried", True)
    log.error("job.crashed", exc_info=error)
    if gpu_is_lost(error):
        return lambda session: _put_back(session, jobs.give_up(session, held, runtime.settings))
    return _failed(held, *BUG)


def _after_stop(held: ClaimedJob, stopped: Stopped) -> Ending | None:
    if stopped.reason == "cancelled":
        return lambda session: rounds.job_ended_badly(session, jobs.stop(session, held))
    if stopped.reason == "drained":
        return lambda session: _put_back(session, jobs.give_back(session, held))
    if stopped.reason == "timeout":
        seconds = KINDS[held.kind].timeout_seconds
        return _failed(held, "timeout", f"the job took longer than {seconds} seconds", True)
    return None


def _failed(held: ClaimedJob, code: str, message: str, retryable: bool) -> Ending:
    log.warning("job.failed", code=code, error=message)
    error = {"code": code, "message": message, "retryable": retryable}
    return lambda session: rounds.job_ended_badly(session, jobs.fail(session, held, error))


def _put_back(session: Session, job: Job) -> None:
    """What waits again ends nothing; what was cancelled meanwhile, or was given up too often, does."""
    if job.state in TERMINAL_JOB_STATES:
        session.flush()
        rounds.job_ended_badly(session, job)
