"""Detects a worker that is connected and idle but receives no messages. Some broker clients never recover."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import structlog

log = structlog.get_logger()

Message = tuple[str, int]  # a job and its attempt


class Watchdog:
    """Reports the worker as deaf if a message stays unclaimed for `seconds` while the worker is idle all the time."""

    def __init__(self, seconds: float, unclaimed: Callable[[], set[Message]], busy: Callable[[], bool]):
        self._seconds = seconds
        self._unclaimed = unclaimed
        self._busy = busy
        self._seen: dict[Message, float] = {}

    def is_deaf(self) -> bool:
        now = time.monotonic()
        waiting = set() if self._busy() else self._unclaimed()
        self._seen = {message: self._seen.get(message, now) for message in waiting}
        return any(now - since > self._seconds for since in self._seen.values())

    def look(self) -> None:
        """Kill this worker if it is deaf. Its supervisor starts it again."""
        if self.is_deaf():
            log.error("worker.deaf", unclaimed=[job_id for job_id, _ in self._seen], seconds=self._seconds)
            end_worker()


def end_worker() -> None:
    """Kill the worker with SIGKILL. It is idle, and a clean shutdown would wait for the broken connection."""
    parent = os.getppid()
    if os.getpgid(parent) == os.getpgid(0):  # this process is the child of a prefork worker
        os.kill(parent, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
