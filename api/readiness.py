"""Checks that the database, the broker and the store answer and take writes, and that the store is ours."""

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
# Each part has its own threads, so that a hanging one doesn't block the checks of the others.
_pools = {part: ThreadPoolExecutor(2, f"readiness-{part}") for part in ("database", "broker", "store")}


def check(runtime: Runtime) -> dict[str, str]:
    """The state of each part: `ok`, `too slow` or `unavailable`."""
    checks = {"database": runtime.db.check, "broker": runtime.broker.ping, "store": lambda: _check_store(runtime)}
    running = {part: _pools[part].submit(ask) for part, ask in checks.items()}
    wait(running.values(), timeout=CHECK_SECONDS)
    return {part: _outcome(part, future) for part, future in running.items()}


def _check_store(runtime: Runtime) -> None:
    runtime.storage.check()
    with suppress(SQLAlchemyError):  # the database has a check of its own
        ownership.check(runtime)


def _outcome(part: str, future: Future[Any]) -> str:
    if not future.done():
        future.cancel()  # if it still waits for a thread; otherwise checks would pile up
        return "too slow"
    if error := future.exception():
        log.warning("readiness.failed", part=part, error=str(error))
        return "unavailable"
    return "ok"
