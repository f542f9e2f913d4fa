"""Run a job from its message to its stored result: claim, work, finish. Imports neither Celery nor torch."""

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
# The database is away and may come back. Any other error comes from the data that was written.
AWAY = (InterfaceError, OperationalError)
# Messages of libraries, Postgres and SQLite. SQLite reports a full disk under its write-ahead log as an I/O error.
FULL_DISK = ("No space left on device", "database or disk is full", "disk I/O error")
LOST_GPU = (
    *("CUDA error", "CUDA driver error", "cuDNN error", "device-side assert"),
    *("No CUDA GPUs are available", "no CUDA-capable device"),
)
BUG = ("internal", "the worker failed unexpectedly; search its log for this job's id, then retry", True)


def run_job(runtime: Runtime, job_id: str, attempt: int, worker: str, draining: Callable[[], bool]) -> bool:
    """Claim and run a job. Returns False if the process can't be used for another job, see `has_hurt`."""
    with runtime.transaction() as session:
        held = jobs.claim(session, job_id, attempt, worker, runtime.settings.lease_seconds)
    if held is None:
        log.info("job.not_mine", job_id=job_id, attempt=attempt)
        return True
    with structlog.contextvars.bound_contextvars(job_id=job_id, attempt=attempt, kind=held.kind):
        log.info("job.claimed", worker=worker)
        unhurt = True
        try:
            ending: Ending | None = _succeeded(held, *work_on(runtime, held, draining))
        except Exception as error:
            ending, unhurt = _after(runtime, held, error), not has_hurt(error)
        finish(runtime, held, ending)
    return unhurt


def work_on(runtime: Runtime, held: ClaimedJob, draining: Callable[[], bool]) -> tuple[Any, dict[str, float]]:
    """Run the handler in a scratch folder, with a pulse. Returns the result record of the job's kind, and the seconds
    of each stage.
    """
    kind = KINDS[held.kind]
    given = {"params": records.read(kind.params, held.params), "inputs": records.read(kind.inputs, held.inputs)}
    with workspace(runtime.settings.scratch_dir) as folder, Pulse(runtime, held, draining) as pulse:
        work = Work(job=held, folder=folder, runtime=runtime, pulse=pulse, **given)
        return resolve(kind.handler)(work), work.stopwatch.seconds()


def has_hurt(error: Exception) -> bool:
    """Whether this error leaves the process unusable for other jobs."""
    return gpu_is_lost(error) or (isinstance(error, Stopped) and error.by_force)


def gpu_is_lost(error: BaseException) -> bool:
    """Whether CUDA has failed; it then fails until the process ends. Only the message tells, not the error's type."""
    return any(words in str(each) for each in causes(error) for words in LOST_GPU)


def disk_is_full(error: BaseException) -> bool:
    """Whether a full disk caused the error. Some libraries report it only in the message."""
    return any(
        (isinstance(each, OSError) and each.errno in (errno.ENOSPC, errno.EDQUOT))
        or any(words in str(each) for words in FULL_DISK)
        for each in causes(error)
    )


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its chain of causes."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def finish(runtime: Runtime, held: ClaimedJob, ending: Ending | None) -> None:
    """Write job, round, events and next jobs in one transaction. Writes nothing if the lease is lost."""
    if ending is None:
        log.warning("job.lost")
        return
    try:
        _write(runtime, ending)
    except LostLease:
        log.warning("job.lost")
    except AWAY:
        raise  # the database was away for longer than the lease; the job is requeued and run again
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


def _succeeded(held: ClaimedJob, result: Any, seconds: dict[str, float]) -> Ending:
    return lambda session: jobs.succeed(session, held, result, seconds)


def _after(runtime: Runtime, held: ClaimedJob, error: Exception) -> Ending | None:
    """How the job ends after this error; None if this worker has lost the job."""
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
            return _failed(held, "out_of_memory", "the worker ran out of memory; retry, or use smaller pictures", True)
    if disk_is_full(error):
        return _failed(held, "disk_full", "the worker's disk is full; free some space, then retry", True)
    log.error("job.crashed", exc_info=error)
    if gpu_is_lost(error):
        return lambda session: _requeued(session, jobs.give_up(session, held, runtime.settings))
    return _failed(held, *BUG)


def _after_stop(held: ClaimedJob, stopped: Stopped) -> Ending | None:
    if stopped.reason == "cancelled":
        return lambda session: rounds.job_ended_badly(session, jobs.stop(session, held))
    if stopped.reason == "drained":
        return lambda session: _requeued(session, jobs.give_back(session, held))
    if stopped.reason == "timeout":
        seconds = KINDS[held.kind].timeout_seconds
        return _failed(held, "timeout", f"the job took longer than {seconds} seconds; retry with less work", True)
    return None


def _failed(held: ClaimedJob, code: str, message: str, retryable: bool) -> Ending:
    log.warning("job.failed", code=code, error=message)
    error = {"code": code, "message": message, "retryable": retryable}
    return lambda session: rounds.job_ended_badly(session, jobs.fail(session, held, error))


def _requeued(session: Session, job: Job) -> None:
    """A requeued job leaves its round open. One that was cancelled meanwhile, or lost too often, fails its round."""
    if job.state in TERMINAL_JOB_STATES:
        session.flush()
        rounds.job_ended_badly(session, job)
