"""The Celery side of worker-gpu and worker-cpu: one task for all job kinds, and the start and stop of processes.

Each worker is a prefork pool with one child. The parent receives messages and imports no torch. The child runs the
jobs, one at a time. It is replaced after a job that left it unusable or made it grow too large.
"""

from __future__ import annotations

import logging
import mmap
import signal
from types import FrameType
from typing import Any

import structlog
from celery import signals

from shared import inventory, ownership
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
from workers.shelf import HASH_SECONDS, LOOK_SECONDS, Shelf
from workers.watchdog import Watchdog

log = structlog.get_logger()
settings = Settings.from_env()
app = make_celery(settings)
app.conf.worker_concurrency = 1
app.conf.worker_max_memory_per_child = settings.max_worker_bytes // 1024

DEAF_AFTER = 3  # the worker is restarted if a message stays unclaimed for so many redispatch intervals while it is idle

# One byte that parent and child share: set when the worker has been told to shut down.
_draining = mmap.mmap(-1, 1)


class Node:
    """This worker: its name, its queue, and the child's runtime and clock."""

    name = ""
    queue = ""
    busy = False
    runtime: Runtime
    clocks: tuple[Clock, ...] = ()

    def start(self) -> None:
        """Connect, requeue the jobs of a dead predecessor, check the device and models, and start checking in."""
        self.runtime = Runtime.from_settings(settings)
        self.runtime.bury_predecessor(self.name)
        if QUEUES[self.queue].uses_device and settings.device != "auto":
            families.check_device(settings.device)
        sweep(settings.scratch_dir)
        watchdog = Watchdog(DEAF_AFTER * settings.redispatch_seconds, self.unclaimed, lambda: self.busy)
        beat = Clock({self.check_in: settings.heartbeat_seconds, watchdog.look: settings.heartbeat_seconds})
        self.clocks = (beat, *self.watch_models())
        for clock in self.clocks:
            clock.start()

    def watch_models(self) -> tuple[Clock, ...]:
        """Look for base models, and the clocks that go on looking. Hashes have their own: they take long."""
        if not QUEUES[self.queue].uses_device:
            return ()
        shelf = Shelf(self.runtime)
        shelf.look()
        # A shutdown needn't wait for them: they change only the file of hashes, and replace it in one step.
        return (
            Clock({shelf.look: LOOK_SECONDS}, patience_seconds=0.0),
            Clock({shelf.hash_next: HASH_SECONDS}, patience_seconds=0.0),
        )

    def work(self, job_id: str, attempt: int) -> None:
        if draining():
            self.decline(job_id, attempt)
            return
        if not self.can_run(job_id):
            self.pass_on(job_id, attempt)
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
            if QUEUES[self.queue].uses_device:
                inventory.report(session, self.name, self.runtime.base_models)
            jobs.wake(session, self.queue)

    def can_run(self, job_id: str) -> bool:
        """Whether this worker has the job's base model. A worker without a device loads none."""
        if not QUEUES[self.queue].uses_device:
            return True
        with self.runtime.db.reading() as session:
            name = jobs.base_model_of(session, job_id)
        model = self.runtime.base_models.get(name) if name else None
        return name is None or (model is not None and not model.problem)

    def pass_on(self, job_id: str, attempt: int) -> None:
        """Refuse a message whose base model another worker has. Wakes nobody: the clock sends it again in a second."""
        log.info("job.passed_on", job_id=job_id, attempt=attempt)
        with self.runtime.db.transaction() as session:
            inventory.report(session, self.name, self.runtime.base_models)
            turns.unsend(session, job_id, attempt)

    def decline(self, job_id: str, attempt: int) -> None:
        """Refuse a message while shutting down: check out, and let another worker get the job."""
        with self.runtime.transaction() as session:
            jobs.check_out(session, self.name)
            turns.unsend(session, job_id, attempt)
            jobs.wake(session, self.queue)

    def stop(self) -> None:
        """Check out and disconnect."""
        if not self.clocks:
            return
        for clock in self.clocks:
            clock.stop()
        self.clocks = ()
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
    for name in ("celery.worker.strategy", "celery.app.trace"):  # the runner's own log says more
        logging.getLogger(name).setLevel(logging.WARNING)


@signals.celeryd_init.connect
def _name(sender: str, options: dict[str, Any], **_: Any) -> None:
    if int(options.get("concurrency") or 1) != 1:
        # A starting child requeues all jobs held under its worker's name. With siblings, it would take their jobs.
        raise SystemExit(
            "a worker runs one job at a time; set --concurrency=1 and start more workers, each with its own name"
        )
    queues = options.get("queues") or []
    node.name = sender
    node.queue = (queues.split(",") if isinstance(queues, str) else list(queues))[0]


@signals.worker_init.connect
def _check_store(**_: Any) -> None:
    """Refuse to start with the wrong store. Runs in the parent, before it forks."""
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
    """Start the child with its own connections.

    systemd sends SIGTERM to all processes of a worker. The child ignores it, because the parent tells it to drain.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    start_or_leave()


def start_or_leave() -> None:
    """Start, or exit so that Celery replaces this child. Otherwise Celery would keep it, idle forever."""
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
    """Drain as soon as the signal arrives. Celery sends its `worker_shutting_down` only after the grace time."""
    celerys = signal.getsignal(number)

    def handle(number: int, frame: FrameType | None) -> None:
        _draining[0] = 1
        if callable(celerys):
            celerys(number, frame)

    signal.signal(number, handle)


@signals.worker_process_shutdown.connect
def _stop(**_: Any) -> None:
    node.stop()
