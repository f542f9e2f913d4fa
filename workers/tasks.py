"""The Celery side of the workers that do jobs: one task for all kinds, and what happens at a process's start and end.

worker-gpu and worker-cpu are prefork pools of one child each. The parent takes messages and imports no torch. The child
does the jobs, one at a time; after one that has hurt it or has let it grow, another child takes its place.
"""

from __future__ import annotations

import logging
import mmap
import signal
from types import FrameType
from typing import Any

import structlog
from celery import signals

from shared import ownership
from shared.catalog import QUEUES
from shared.outside import logs
from shared.queue import jobs, turns
from shared.queue.broker import TASK, make_celery
from shared.runtime import Runtime
from shared.settings import Settings
from workers.clock import Clock
from workers.diffusion import families
from workers.runner import run_job
from workers.scratch import sweep
from workers.watchdog import Watchdog

log = structlog.get_logger()
settings = Settings.from_env()
app = make_celery(settings)
app.conf.worker_concurrency = 1
app.conf.worker_max_memory_per_child = settings.max_worker_bytes // 1024

DEAF_AFTER = 3  # times that a message has been sent again while this worker was idle

# One byte that parent and child share: set when the worker has been told to shut down.
_draining = mmap.mmap(-1, 1)


class Node:
    """This worker: its name, its queue, and what its child works with once it has started."""

    name = ""
    queue = ""
    busy = False
    runtime: Runtime
    clock: Clock | None = None

    def start(self) -> None:
        """Connect, put back what a dead predecessor held, check the device, and check in from now on."""
        self.runtime = Runtime.from_settings(settings)
        self.runtime.bury_predecessor(self.name)
        if QUEUES[self.queue].uses_device and settings.device != "auto":
            families.check_device(settings.device)
        sweep(settings.scratch_dir)
        watchdog = Watchdog(DEAF_AFTER * settings.redispatch_seconds, self.unclaimed, lambda: self.busy)
        self.clock = Clock({self.check_in: settings.heartbeat_seconds, watchdog.look: settings.heartbeat_seconds})
        self.clock.start()

    def work(self, job_id: str, attempt: int) -> None:
        if draining():
            self.decline(job_id, attempt)
            return
        self.busy = True
        try:
            unhurt = run_job(self.runtime, job_id, attempt, self.name, draining)
        finally:
            self.busy = False
        if not unhurt:
            raise SystemExit  # ends this child; the pool starts another

    def unclaimed(self) -> set[tuple[str, int]]:
        with self.runtime.db.reading() as session:
            return turns.unclaimed(session, self.queue)

    def check_in(self) -> None:
        if draining():
            return
        with self.runtime.transaction() as session:
            jobs.check_in(session, self.name, self.queue, slots=1)
            jobs.wake(session, self.queue)

    def decline(self, job_id: str, attempt: int) -> None:
        """The message came too late: check out, and have the job sent to another worker."""
        with self.runtime.transaction() as session:
            jobs.check_out(session, self.name)
            turns.unsend(session, job_id, attempt)
            jobs.wake(session, self.queue)

    def stop(self) -> None:
        """Check out and disconnect."""
        if self.clock is None:
            return
        self.clock.stop()
        self.clock = None
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
    for name in ("celery.worker.strategy", "celery.app.trace"):  # the runner logs more about each message
        logging.getLogger(name).setLevel(logging.WARNING)


@signals.celeryd_init.connect
def _name(sender: str, options: dict[str, Any], **_: Any) -> None:
    if int(options.get("concurrency") or 1) != 1:
        # A child that starts puts back all jobs that its worker holds by name: its siblings' jobs, too.
        raise SystemExit(
            "a worker has one child; for more jobs at once start more workers, each with a name of its own"
        )
    queues = options.get("queues") or []
    node.name = sender
    node.queue = (queues.split(",") if isinstance(queues, str) else list(queues))[0]


@signals.worker_init.connect
def _check_store(**_: Any) -> None:
    """In the main process, before there are others: a worker at the wrong store does not begin."""
    runtime = Runtime.from_settings(settings)
    try:
        ownership.check_at_start(runtime)
    except ownership.WrongStore as error:
        log.error("worker.start_refused", error=str(error))
        raise SystemExit(1) from None
    finally:
        runtime.close()


@signals.worker_process_init.connect
def _start_child(**_: Any) -> None:
    """A child has its own connections.

    Systemd sends SIGTERM to all processes of a worker at once. The child ignores it: its parent tells it to drain.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    start_or_leave()


def start_or_leave() -> None:
    """Celery would keep a child that could not start and so takes nothing; one that ends is replaced."""
    try:
        node.start()
    except Exception as error:
        log.exception("worker.start_failed")
        raise SystemExit(1) from error


@signals.worker_ready.connect
def _await_signals(**_: Any) -> None:
    for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT):
        _drain_at(number)


def _drain_at(number: int) -> None:
    """Begin to drain as soon as the signal comes. Celery's own `worker_shutting_down` is sent after the grace time."""
    celerys = signal.getsignal(number)

    def handle(number: int, frame: FrameType | None) -> None:
        _draining[0] = 1
        if callable(celerys):
            celerys(number, frame)

    signal.signal(number, handle)


@signals.worker_process_shutdown.connect
def _stop(**_: Any) -> None:
    node.stop()
