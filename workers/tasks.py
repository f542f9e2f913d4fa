"""The Celery side of the workers: one task for all kinds, and what starts and ends with a process.

- worker-gpu is prefork with one child: torch lives in the child, and dies with it.
- worker-io is a pool of threads; its clock hands out jobs, notices lost workers and delivers webhooks.

A child that has grown or has been hurt is replaced after its job; worker-io, when it has grown, as a whole.
"""

from __future__ import annotations

import logging
import mmap
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import psutil
import structlog
from celery import signals

from shared import jobs, logs, reconcile, retention, turns
from shared.broker import TASK, make_celery
from shared.runtime import Runtime
from shared.settings import Settings
from workers.clock import Clock
from workers.delivery import Sender
from workers.diffusion import families
from workers.runner import run_job
from workers.scratch import sweep
from workers.watchdog import Watchdog

log = structlog.get_logger()
settings = Settings.from_env()
app = make_celery(settings)
app.conf.worker_max_memory_per_child = settings.max_worker_bytes // 1024

DEAF_AFTER = 3  # times that a message has been sent again while this worker was idle
COLLECT_SECONDS = 3600.0
FORGET_SECONDS = 5.0
STRAIGHTEN_SECONDS = 60.0

# One byte that parent and children see alike: set when the worker has been told to shut down.
_draining = mmap.mmap(-1, 1)


class Node:
    """This worker: its name, its queue, and what it stands on once it has started."""

    name = ""
    queue = ""
    slots = 1
    runtime: Runtime
    busy = 0
    sender: Sender | None = None  # worker-io only

    def __init__(self) -> None:
        self.clocks: list[Clock] = []
        self.at_work = threading.Lock()

    def start(self, *, with_control: bool) -> None:
        """Connect, put back what a dead predecessor held, look for the card, and give a sign of life from now on."""
        self.runtime = Runtime.from_settings(settings)
        self.runtime.bury_predecessor(self.name)
        if self.queue == "gpu" and settings.device != "auto":
            families.check_device(settings.device)
        sweep(settings.scratch_dir)
        watchdog = Watchdog(DEAF_AFTER * settings.redispatch_seconds, self.unclaimed, lambda: self.busy > 0)
        chores: dict[Callable[[], object], float] = {
            self.check_in: settings.heartbeat_seconds,
            watchdog.look: settings.heartbeat_seconds,
        }
        if with_control:
            self.sender = Sender(self.runtime)
            chores |= {self.runtime.dispatch: 1.0, self.runtime.reap: 2.0, self.sender.tick: 1.0}
            chores[self.leave_if_grown] = settings.heartbeat_seconds
            # These may take long: their own thread.
            slow: dict[Callable[[], object], float] = {
                self.collect_orphans: COLLECT_SECONDS,
                self.forget: FORGET_SECONDS,
                self.straighten_line: STRAIGHTEN_SECONDS,
            }
            self.clocks.append(Clock(slow))
        self.clocks.append(Clock(chores))
        for clock in self.clocks:
            clock.start()

    def work(self, job_id: str, attempt: int) -> None:
        if draining():
            self.decline(job_id, attempt)
            return
        with self.at_work:
            self.busy += 1
        try:
            unhurt = run_job(self.runtime, job_id, attempt, self.name, draining)
        finally:
            with self.at_work:
                self.busy -= 1
        if not unhurt and threading.current_thread() is threading.main_thread():
            raise SystemExit  # of this child of a prefork pool, which puts another in its place

    def unclaimed(self) -> set[tuple[str, int]]:
        with self.runtime.db.reading() as session:
            return turns.unclaimed(session, self.queue)

    def straighten_line(self) -> None:
        with self.runtime.db.transaction() as session:
            turns.straighten_line(session)

    def collect_orphans(self) -> None:
        reconcile.collect(self.runtime, grace_seconds=settings.orphan_grace_seconds)

    def forget(self) -> None:
        with self.runtime.db.transaction() as session:
            retention.forget(session, settings)

    def check_in(self) -> None:
        if draining():
            return
        with self.runtime.transaction() as session:
            jobs.check_in(session, self.name, self.queue, self.slots)
            jobs.wake(session, self.queue)

    def leave_if_grown(self) -> None:
        """Threads have no child to replace: all of them end, and whoever keeps the worker up starts it again."""
        grown_to = psutil.Process().memory_info().rss
        if 0 < settings.max_worker_bytes < grown_to and not draining():
            log.warning("worker.grown", size_bytes=grown_to)
            os.kill(os.getpid(), signal.SIGTERM)

    def decline(self, job_id: str, attempt: int) -> None:
        """A message that came too late: let it be sent to another worker."""
        with self.runtime.transaction() as session:
            jobs.check_out(session, self.name)
            turns.unsend(session, job_id, attempt)
            jobs.wake(session, self.queue)

    def stop(self) -> None:
        """Take no more, and say so."""
        if not self.clocks:
            return
        for clock in self.clocks:
            clock.stop()
        self.clocks.clear()
        if self.sender is not None:
            self.sender.close()
        with self.runtime.transaction() as session:
            jobs.check_out(session, self.name)
        self.runtime.close()


node = Node()


@app.task(name=TASK)
def run(job_id: str, attempt: int) -> None:
    node.work(job_id, attempt)


def draining() -> bool:
    return _draining[0] == 1


@signals.setup_logging.connect
def _log(**_: Any) -> None:
    logs.configure(settings.log_format)
    for name in ("celery.worker.strategy", "celery.app.trace"):  # what they say of each message, the runner says better
        logging.getLogger(name).setLevel(logging.WARNING)


@signals.celeryd_init.connect
def _name(sender: str, options: dict[str, Any], **_: Any) -> None:
    queues = options.get("queues") or []
    node.name = sender
    node.queue = (queues.split(",") if isinstance(queues, str) else list(queues))[0]
    node.slots = int(options.get("concurrency") or 1)


@signals.worker_process_init.connect
def _start_child(**_: Any) -> None:
    """A prefork child has its own connections, and dies with its torch.

    A SIGTERM may be sent to all processes of a worker at once, as systemd does: what to do at it, its parent says.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    start_or_leave(with_control=False)


@signals.worker_ready.connect
def _start_threads(sender: Any, **_: Any) -> None:
    """A pool of threads lives in this one process, and the clock of the whole service with it."""
    for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT):
        _drain_at(number)
    if "prefork" not in type(sender.pool).__module__:
        start_or_leave(with_control=True)


def start_or_leave(*, with_control: bool) -> None:
    """Celery would keep a process that could not start, deaf and without a sign of life; one that ends is replaced."""
    try:
        node.start(with_control=with_control)
    except Exception as error:
        log.exception("worker.start_failed")
        raise SystemExit(1) from error


def _drain_at(number: int) -> None:
    """Begin to drain as soon as the signal comes. Celery's own `worker_shutting_down` is sent after the grace time."""
    celerys = signal.getsignal(number)

    def handle(number: int, frame: FrameType | None) -> None:
        _draining[0] = 1
        if callable(celerys):
            celerys(number, frame)

    signal.signal(number, handle)


@signals.worker_process_shutdown.connect
@signals.worker_shutdown.connect
def _stop(**_: Any) -> None:
    node.stop()
