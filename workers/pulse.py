"""The pulse of a job: a thread that renews the lease while the handler works, and detects when the work must stop."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError

from shared.catalog.kinds import KINDS
from shared.queue import jobs
from shared.queue.jobs import ClaimedJob, LostLease
from shared.runtime import Runtime

log = structlog.get_logger()

GLANCE_SECONDS = 0.5  # how soon a drain is noticed


class Stopped(Exception):
    """The work must end early. `reason`: cancelled, drained, timeout or lost.

    `by_force`: SIGTERM interrupted the handler at an arbitrary line, so the process may be in an inconsistent state.
    """

    def __init__(self, reason: str, *, by_force: bool = False):
        super().__init__(reason)
        self.reason = reason
        self.by_force = by_force


class Pulse:
    """Renews the lease of one job in the background.

    The handler reports progress and calls `check` at each step; `check` raises when the work must stop. A handler that
    reaches no step gets SIGTERM after half of `kill_after_seconds`, if it runs in the main thread. After all of it, the
    process is killed. Nothing else is lost: a worker's child runs one job at a time, and Celery replaces it.
    """

    def __init__(self, runtime: Runtime, held: ClaimedJob, draining: Callable[[], bool]):
        self.progress: dict[str, Any] = {}
        self.reason: str | None = None
        self._runtime = runtime
        self._held = held
        self._draining = draining
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"pulse-{held.id}", daemon=True)
        self._started = self._renewed = time.monotonic()
        self._stopped_at = 0.0
        self._may_interrupt = threading.current_thread() is threading.main_thread()
        self._interrupting = False
        self._at_sigterm: Any = None  # the previous signal handler, restored after the job

    def __enter__(self) -> Pulse:
        if self._may_interrupt:
            self._at_sigterm = signal.signal(signal.SIGTERM, self._interrupt)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            self._ended.set()
            self._thread.join()
        finally:
            if self._at_sigterm is not None:
                signal.signal(signal.SIGTERM, self._at_sigterm)

    @property
    def draining(self) -> bool:
        """Whether the worker is shutting down. The handler then saves a checkpoint and stops at the next step."""
        return self.reason == "drained"

    def check(self) -> None:
        """Raise `Stopped` if the work must end, also if the lease expired while a renewal hangs."""
        if self._overdue:
            self._stop("lost")
        if self.reason is not None:
            raise Stopped(self.reason)

    @property
    def _overdue(self) -> bool:
        """Whether the lease may have expired, so that another worker may have the job."""
        return time.monotonic() - self._renewed > self._runtime.settings.lease_seconds

    def _beat(self) -> None:
        settings = self._runtime.settings
        due = 0.0
        while not self._ended.wait(min(GLANCE_SECONDS, settings.heartbeat_seconds)):
            if self.reason is None and self._draining():
                self._stop("drained")
            if time.monotonic() >= due:
                self._renew()
                due = time.monotonic() + settings.heartbeat_seconds
            self._enforce()

    def _renew(self) -> None:
        try:
            with self._runtime.db.transaction() as session:
                cancelled = jobs.renew(session, self._held, self._runtime.settings.lease_seconds, dict(self.progress))
        except LostLease:
            self._stop("lost")
        except SQLAlchemyError as error:
            log.warning("pulse.database", job_id=self._held.id, error=str(error))
            if self._overdue:
                self._stop("lost")
        else:
            self._renewed = time.monotonic()
            if cancelled:
                self._stop("cancelled")

    def _enforce(self) -> None:
        if time.monotonic() - self._started > KINDS[self._held.kind].timeout_seconds:
            self._stop("timeout")
        if self.reason is None:
            return
        ignored_seconds, limit = time.monotonic() - self._stopped_at, self._runtime.settings.kill_after_seconds
        if ignored_seconds > limit:
            log.error("pulse.killing", job_id=self._held.id, reason=self.reason)
            os.kill(os.getpid(), signal.SIGKILL)
        elif ignored_seconds > limit / 2 and self._may_interrupt:
            self._may_interrupt, self._interrupting = False, True
            log.warning("pulse.breaking_in", job_id=self._held.id, reason=self.reason)
            signal.pthread_kill(main_thread_id(), signal.SIGTERM)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """Raise in the main thread, in the middle of the handler. Ignores a SIGTERM that `_enforce` has not sent."""
        if self._interrupting and self.reason is not None:
            self._interrupting = False
            raise Stopped(self.reason, by_force=True)

    def _stop(self, reason: str) -> None:
        if self.reason is None or reason == "lost":
            self.reason = reason
            self._stopped_at = self._stopped_at or time.monotonic()
            log.info("pulse.stop", job_id=self._held.id, reason=reason)


def main_thread_id() -> int:
    """The id of the main thread, where Python runs signal handlers. A signal sent to it also interrupts its sleep."""
    number = threading.main_thread().ident
    assert number is not None
    return number
