"""From a message to a stored result: claim, work, finish. No Celery here, and no torch."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress

import stamina
import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from shared import jobs, rounds
from shared.catalog import JOB_KINDS, resolve
from shared.errors import BootloraError, JobFailed, Unavailable
from shared.jobs import ClaimedJob, LostLease
from shared.lifecycle import JobState
from shared.models import Job
from shared.runtime import Runtime
from workers.pulse import Pulse, Stopped
from workers.scratch import workspace
from workers.work import Work

log = structlog.get_logger()

Ending = Callable[[Session], None]
# How libraries, Postgres and SQLite put it; a full disk under SQLite's log of changes is an I/O error to it.
FULL_DISK = ("No space left on device", "database or disk is full", "disk I/O error")
BUG = ("internal", "something went wrong in the worker; its log has this job's id", True)


def run_job(runtime: Runtime, job_id: str, attempt: int, worker: str, draining: Callable[[], bool]) -> None:
    """Do a job, if it is still there to be done."""
    with runtime.transaction() as session:
        held = jobs.claim(session, job_id, attempt, worker, runtime.settings.lease_seconds)
    if held is None:
        log.info("job.not_mine", job_id=job_id, attempt=attempt)
        return
    with structlog.contextvars.bound_contextvars(job_id=job_id, attempt=attempt, kind=held.kind):
        log.info("job.claimed", worker=worker)
        finish(runtime, held, work_on(runtime, held, draining))


def work_on(runtime: Runtime, held: ClaimedJob, draining: Callable[[], bool]) -> Ending | None:
    """Run the handler. What comes back is how the job ends; None when it isn't ours to end."""
    try:
        with workspace(runtime.settings.scratch_dir) as folder, Pulse(runtime, held, draining) as pulse:
            result = resolve(JOB_KINDS[held.kind].code)(Work(job=held, folder=folder, runtime=runtime, pulse=pulse))
    except Stopped as stopped:
        return _after_stop(held, stopped)
    except LostLease:
        return None
    except JobFailed as error:
        return _failed(held, error.code, error.message, error.retryable)
    except Unavailable as error:
        return _failed(held, "store_unavailable", error.message, True)
    except BootloraError as error:
        return _failed(held, error.code, error.message, False)
    except MemoryError:
        return _failed(held, "out_of_memory", "the worker ran out of memory", True)
    except Exception as error:
        if disk_is_full(error):
            return _failed(held, "disk_full", "the worker's disk is full; the job can be retried", True)
        log.exception("job.crashed")
        return _failed(held, *BUG)
    return lambda session: rounds.job_succeeded(session, jobs.succeed(session, held, result))


def disk_is_full(error: BaseException | None) -> bool:
    """Whether this came of it. Libraries that write files by themselves tell it only in words."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(words in str(error) for words in FULL_DISK):
            return True
        error = error.__cause__ or error.__context__
    return False


def finish(runtime: Runtime, held: ClaimedJob, ending: Ending | None) -> None:
    """Job, round, events and what comes next, in one transaction; or nothing, if the lease is lost."""
    if ending is None:
        log.warning("job.lost")
        return
    try:
        _write(runtime, ending)
    except LostLease:
        log.warning("job.lost")
    except DBAPIError:
        raise  # the database is gone for longer than the lease: another attempt will come
    except Exception:
        log.exception("job.result_unusable")
        with suppress(LostLease):
            _write(runtime, _failed(held, *BUG))
    else:
        log.info("job.finished")


def _write(runtime: Runtime, ending: Ending) -> None:
    for attempt in stamina.retry_context(on=DBAPIError, attempts=None, timeout=runtime.settings.lease_seconds):
        with attempt, runtime.transaction() as session:
            ending(session)


def _after_stop(held: ClaimedJob, stopped: Stopped) -> Ending | None:
    if stopped.reason == "cancelled":
        return lambda session: rounds.job_ended_badly(session, jobs.stop(session, held))
    if stopped.reason == "drained":
        return lambda session: _put_back(session, jobs.give_back(session, held))
    if stopped.reason == "timeout":
        seconds = JOB_KINDS[held.kind].timeout_seconds
        return _failed(held, "timeout", f"the job took longer than {seconds} seconds", True)
    return None


def _failed(held: ClaimedJob, code: str, message: str, retryable: bool) -> Ending:
    log.warning("job.failed", code=code, error=message)
    error = {"code": code, "message": message, "retryable": retryable}
    return lambda session: rounds.job_ended_badly(session, jobs.fail(session, held, error))


def _put_back(session: Session, job: Job) -> None:
    """What waits again ends nothing; what was cancelled meanwhile does."""
    if job.state == JobState.CANCELLED:
        rounds.job_ended_badly(session, job)
