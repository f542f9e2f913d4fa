"""A clock: a thread that calls short functions at fixed intervals.

Celery's beat is not used: its messages would pile up behind a busy worker and be lost with the broker. The chores that
repair the queue must not depend on the queue.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

log = structlog.get_logger()


class Clock(threading.Thread):
    """Runs each function at its interval in seconds. A failure is logged, and the function runs again next time.

    `patience_seconds`: how long `stop` waits for a function that is running; after that, it ends with the process.
    """

    def __init__(self, chores: dict[Callable[[], object], float], patience_seconds: float = 10.0):
        super().__init__(name="clock", daemon=True)
        self._patience_seconds = patience_seconds
        self._chores = chores
        self._due = dict.fromkeys(chores, 0.0)
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.2):
            for chore, seconds in self._chores.items():
                if time.monotonic() < self._due[chore]:
                    continue
                try:
                    chore()
                except Exception:
                    log.exception("clock.chore_failed", chore=getattr(chore, "__name__", str(chore)))
                self._due[chore] = time.monotonic() + seconds

    def stop(self) -> None:
        self._ended.set()
        self.join(timeout=self._patience_seconds)
