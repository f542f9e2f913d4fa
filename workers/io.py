"""worker-io, `python -m workers.io`: dispatches jobs, requeues lost ones, delivers webhooks, deletes old rows.

It runs no jobs and reads no messages, so busy workers can't delay it. It must not import torch or a picture decoder,
not even indirectly; an import rule checks that. Any number of worker-io processes may run.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable

import structlog

from shared import ownership, reconcile, retention
from shared.outside import logs
from shared.queue import jobs, turns
from shared.runtime import Runtime
from shared.settings import Settings
from workers.clock import Clock
from workers.delivery import DeliverySender

log = structlog.get_logger()

QUEUE = "io"  # carries no jobs; it lists worker-io among the workers
COLLECT_SECONDS = 3600.0
FORGET_SECONDS = 5.0
REROUTE_SECONDS = 5.0
REPAIR_SECONDS = 60.0
ENDS = (signal.SIGTERM, signal.SIGINT)


class Keeper:
    """The chores of worker-io, on two clocks, so that slow chores don't delay quick ones."""

    def __init__(self, settings: Settings):
        self.name = f"{QUEUE}@{socket.gethostname()}"
        self.settings = settings
        self.runtime = Runtime.from_settings(settings)
        self.sender = DeliverySender(self.runtime)
        quick: dict[Callable[[], object], float] = {
            self.check_in: settings.heartbeat_seconds,
            self.runtime.dispatch: 1.0,
            self.runtime.reap: 2.0,
            self.runtime.stop_disabled: 2.0,
            self.sender.tick: 1.0,
            self.reroute: REROUTE_SECONDS,
        }
        slow: dict[Callable[[], object], float] = {
            self.forget: FORGET_SECONDS,
            self.repair_in_line: REPAIR_SECONDS,
            self.collect_orphans: COLLECT_SECONDS,
        }
        self.clocks = [Clock(quick), Clock(slow)]

    def start(self) -> None:
        for clock in self.clocks:
            clock.start()

    def stop(self) -> None:
        for clock in self.clocks:
            clock.stop()
        self.sender.close()
        with self.runtime.transaction() as session:
            jobs.check_out(session, self.name)
        self.runtime.close()

    def check_in(self) -> None:
        with self.runtime.db.transaction() as session:
            jobs.check_in(session, self.name, QUEUE, slots=0)

    def reroute(self) -> None:
        with self.runtime.db.transaction() as session:
            turns.reroute(session)

    def forget(self) -> None:
        with self.runtime.db.transaction() as session:
            retention.forget(session, self.settings)

    def repair_in_line(self) -> None:
        with self.runtime.db.transaction() as session:
            turns.repair_in_line(session)

    def collect_orphans(self) -> None:
        reconcile.collect(self.runtime, grace_seconds=self.settings.orphan_grace_seconds)


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)  # before any thread starts, so that all threads inherit the mask
    settings = Settings.from_env()
    logs.configure(settings.log_format)
    keeper = Keeper(settings)
    try:
        ownership.check_at_start(keeper.runtime)
    except ownership.WrongStore as error:
        log.error("worker.start_refused", error=str(error))
        raise SystemExit(1) from None
    keeper.start()
    signal.sigwait(ENDS)
    keeper.stop()


if __name__ == "__main__":
    main()
