"""Health, readiness and metrics of a process."""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify
from prometheus_client import CONTENT_TYPE_LATEST

from api import metrics, readiness
from api.blueprint import Blueprint
from api.context import runtime
from api.schemas.health import HealthSchema, ReadinessSchema

blp = Blueprint("health", __name__, description="Health, readiness and metrics")


@blp.get("/healthz")
@blp.open
@blp.response(200, HealthSchema)
def is_alive() -> Any:
    """Check that this process answers"""
    return {"status": "ok"}


@blp.get("/readyz")
@blp.open
@blp.response(200, ReadinessSchema)
@blp.alt_response(
    503, schema=ReadinessSchema, description="The database, the broker or the store doesn't answer, or takes no writes"
)
def is_ready() -> Any:
    """Check that the database, the broker and the store answer and take writes

    A store that belongs to another installation counts as unavailable. The log says what is wrong.
    """
    found = readiness.check(runtime())
    if set(found.values()) == {"ok"}:
        return found | {"status": "ok"}
    answer = jsonify(found | {"status": "unavailable"})
    answer.status_code = 503
    return answer


@blp.get("/metrics")
@blp.open
@blp.response(200, {"type": "string"}, content_type="text/plain")
def show_metrics() -> Any:
    """Show metrics for Prometheus"""
    return Response(metrics.exposed(runtime()), content_type=CONTENT_TYPE_LATEST)
