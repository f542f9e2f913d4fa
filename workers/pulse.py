"""The pulse of a job: a thread that holds its lease while the work goes on, and learns when to stop."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError

from shared import jobs
from shared.catalog import JOB_KINDS
from shared.jobs import ClaimedJob, LostLease
from shared.runtime import Runtime

log = structlog.get_logger()

GLANCE_SECONDS = 0.5  # how soon a drain is noticed


class Stopped(Exception):
    """The work is to end before its time: `reason` is cancelled, drained, timeout or lost."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


class Pulse:
    """Renews the lease of one job in the background.

    The handler reports progress and calls `check` at each step; `check` raises when it must stop. A
    handler that doesn't come to a step within the limit is killed with its process: the GPU is worth more.
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

    def __enter__(self) -> Pulse:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def draining(self) -> bool:
        """The worker is about to shut down: save what there is, and stop at the next step."""
        return self.reason == "drained"

    def check(self) -> None:
        """Raise `Stopped` when the work must end: also when the lease ran out while the renewal hangs."""
        if self._overdue:
            self._stop("lost")
        if self.reason is not None:
            raise Stopped(self.reason)

    @property
    def _overdue(self) -> bool:
        """By now somebody else may have been given the job."""
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
        kind = JOB_KINDS[self._held.kind]
        if time.monotonic() - self._started > kind.timeout_seconds:
            self._stop("timeout")
        ignored = self.reason and time.monotonic() - self._stopped_at > self._runtime.settings.kill_after_seconds
        if ignored and kind.queue == "gpu":  # such a worker's process does nothing else
            log.error("pulse.killing", job_id=self._held.id, reason=self.reason)
            os.kill(os.getpid(), signal.SIGKILL)

    def _stop(self, reason: str) -> None:
        if self.reason is None or reason == "lost":
            self.reason = reason
            self._stopped_at = self._stopped_at or time.monotonic()
            log.info("pulse.stop", job_id=self._held.id, reason=reason)
