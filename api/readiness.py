"""Whether the database, the broker and the store answer and take writes, and the store is this installation's."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError

from shared import ownership
from shared.runtime import Runtime

log = structlog.get_logger()

CHECK_SECONDS = 3.0
# Threads of its own for each part: one that hangs must not keep the others from being asked.
_pools = {part: ThreadPoolExecutor(2, f"readiness-{part}") for part in ("database", "broker", "store")}


def check(runtime: Runtime) -> dict[str, str]:
    """What is to be said of each part: `ok`, `too slow` or `unavailable`."""
    checks = {"database": runtime.db.check, "broker": runtime.broker.ping, "store": lambda: _ask_store(runtime)}
    running = {part: _pools[part].submit(ask) for part, ask in checks.items()}
    wait(running.values(), timeout=CHECK_SECONDS)
    return {part: _outcome(part, future) for part, future in running.items()}


def _ask_store(runtime: Runtime) -> None:
    runtime.storage.check()
    with suppress(SQLAlchemyError):  # of the database's own trouble its own part tells
        ownership.check(runtime)


def _outcome(part: str, future: Future[Any]) -> str:
    if not future.done():
        future.cancel()  # those that still wait for a thread; or they would pile up
        return "too slow"
    if error := future.exception():
        log.warning("readiness.failed", part=part, error=str(error))
        return "unavailable"
    return "ok"
