"""The Celery side of the workers: one task for all kinds, and what starts and ends with a process.

- worker-gpu is prefork with one child: torch lives in the child, and dies with it.
- worker-io is a pool of threads; its clock hands out jobs, notices lost workers and delivers webhooks.
"""

from __future__ import annotations

import functools
import mmap
from collections.abc import Callable
from typing import Any

from celery import signals

from shared import jobs, logs
from shared.broker import TASK, make_celery
from shared.runtime import Runtime
from shared.settings import Settings
from workers.clock import Clock
from workers.runner import run_job

settings = Settings.from_env()
app = make_celery(settings)

# One byte that parent and children see alike: set when the worker has been told to shut down.
_draining = mmap.mmap(-1, 1)


class Node:
    """This worker: its name, its queue, and what it stands on once it has started."""

    name = ""
    queue = ""
    slots = 1
    runtime: Runtime
    clock: Clock | None = None


@app.task(name=TASK)
def run(job_id: str, attempt: int) -> None:
    run_job(Node.runtime, job_id, attempt, Node.name, draining)


def draining() -> bool:
    return _draining[0] == 1


@signals.setup_logging.connect
def _log(**_: Any) -> None:
    logs.configure(settings.log_format)


@signals.celeryd_init.connect
def _name(sender: str, instance: Any, options: dict[str, Any], **_: Any) -> None:
    Node.name = sender
    queues = options.get("queues") or []
    Node.queue = (queues.split(",") if isinstance(queues, str) else list(queues))[0]
    Node.slots = int(options.get("concurrency") or 1)


@signals.worker_process_init.connect
def _start_child(**_: Any) -> None:
    """A prefork child: its own connections, and its own sign of life."""
    _start({})


@signals.worker_ready.connect
def _start_threads(sender: Any, **_: Any) -> None:
    """A pool of threads: everything lives in this one process, the clock of the whole service too."""
    if "prefork" in type(sender.pool).__module__:
        return
    _start({Runtime.dispatch: 1.0, Runtime.reap: 2.0})


def _start(chores: dict[Callable[[Runtime], object], float]) -> None:
    Node.runtime = Runtime.from_settings(settings)
    Node.runtime.bury_predecessor(Node.name)
    bound: dict[Callable[[], object], float] = {_check_in: settings.heartbeat_seconds}
    bound |= {functools.partial(chore, Node.runtime): seconds for chore, seconds in chores.items()}
    Node.clock = Clock(bound)
    Node.clock.start()


def _check_in() -> None:
    if not draining():
        with Node.runtime.transaction() as session:
            jobs.check_in(session, Node.name, Node.queue, Node.slots)
            jobs.wake(session)


@signals.worker_shutting_down.connect
def _drain(**_: Any) -> None:
    _draining[0] = 1


@signals.worker_process_shutdown.connect
@signals.worker_shutdown.connect
def _stop(**_: Any) -> None:
    """The end of a child, or of the whole worker: take no more, and say so."""
    if Node.clock is None:
        return
    Node.clock.stop()
    Node.clock = None
    with Node.runtime.transaction() as session:
        jobs.check_out(session, Node.name)
    Node.runtime.close()
