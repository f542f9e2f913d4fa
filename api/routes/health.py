"""Is it alive, is it ready."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooSlow
from typing import Any

import structlog
from flask import Response, jsonify
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy import text

from api import metrics
from api.blueprint import Blueprint
from api.context import runtime
from api.schemas.health import HealthSchema, ReadinessSchema

log = structlog.get_logger()
blp = Blueprint("health", __name__, description="Is it alive, is it ready")

CHECK_SECONDS = 3.0
_pool = ThreadPoolExecutor(max_workers=6, thread_name_prefix="readiness")


@blp.get("/healthz")
@blp.open
@blp.response(200, HealthSchema)
def is_alive() -> Any:
    """Say that this process lives"""
    return {"status": "ok"}


@blp.get("/readyz")
@blp.open
@blp.response(200, ReadinessSchema)
@blp.alt_response(503, schema=ReadinessSchema, description="Something that the service stands on is away")
def is_ready() -> Any:
    """Say whether the database, the broker and the store answer"""
    here = runtime()
    checks = {"database": lambda: _ask_database(here), "broker": here.broker.ping, "store": here.storage.check}
    running = {name: _pool.submit(check) for name, check in checks.items()}
    found = {name: _outcome(name, future) for name, future in running.items()}
    well = all(state == "ok" for state in found.values())
    return (found | {"status": "ok" if well else "unavailable"}) if well else _unavailable(found)


@blp.get("/metrics")
@blp.open
@blp.response(200, {"type": "string"}, content_type="text/plain")
def show_metrics() -> Any:
    """Show numbers for Prometheus"""
    return Response(metrics.exposed(runtime()), content_type=CONTENT_TYPE_LATEST)


def _ask_database(here: Any) -> None:
    with here.db.reading() as session:
        session.execute(text("SELECT 1"))


def _outcome(name: str, future: Any) -> str:
    try:
        future.result(timeout=CHECK_SECONDS)
    except TooSlow:
        return "too slow"
    except Exception as error:
        log.warning("readiness.failed", part=name, error=str(error))
        return "unavailable"
    return "ok"


def _unavailable(found: dict[str, str]) -> Any:
    answer = jsonify(found | {"status": "unavailable"})
    answer.status_code = 503
    return answer
