"""From a message to a stored result: claim, work, finish. No Celery here, and no torch."""

from __future__ import annotations

from collections.abc import Callable

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
    with workspace(runtime.settings.scratch_dir) as folder, Pulse(runtime, held, draining) as pulse:
        try:
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
        except Exception:
            log.exception("job.crashed")
            return _failed(held, "internal", "something went wrong in the worker; its log has this job's id", True)
    return lambda session: rounds.job_succeeded(session, jobs.succeed(session, held, result))


@stamina.retry(on=DBAPIError, attempts=8, timeout=45)
def finish(runtime: Runtime, held: ClaimedJob, ending: Ending | None) -> None:
    """Job, round, events and what comes next, in one transaction; or nothing, if the lease is lost."""
    if ending is None:
        log.warning("job.lost")
        return
    try:
        with runtime.transaction() as session:
            ending(session)
    except LostLease:
        log.warning("job.lost")
    else:
        log.info("job.finished")


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
