"""Whether the database, the broker and the store answer."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import structlog
from sqlalchemy import text

from shared.runtime import Runtime

log = structlog.get_logger()

CHECK_SECONDS = 3.0
_pool = ThreadPoolExecutor(max_workers=6, thread_name_prefix="readiness")


def check(runtime: Runtime) -> dict[str, str]:
    """What is to be said of each part: `ok`, `too slow` or `unavailable`."""
    checks = {"database": lambda: _ask_database(runtime), "broker": runtime.broker.ping, "store": runtime.storage.check}
    running = {name: _pool.submit(each) for name, each in checks.items()}
    wait(running.values(), timeout=CHECK_SECONDS)
    return {name: _outcome(name, future) for name, future in running.items()}


def _ask_database(runtime: Runtime) -> None:
    with runtime.db.reading() as session:
        session.execute(text("SELECT 1"))


def _outcome(name: str, future: Future[Any]) -> str:
    if not future.done():
        return "too slow"
    if error := future.exception():
        log.warning("readiness.failed", part=name, error=str(error))
        return "unavailable"
    return "ok"
