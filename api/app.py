"""The application: routes, errors, limits and headers on one runtime."""

from __future__ import annotations

import time
import uuid
from typing import Any

import structlog
from flask import Flask, Response, g, request
from flask.json.provider import DefaultJSONProvider

from api import converters, document, held, limits, metrics, problems, waits
from api.routes import (
    audit,
    datasets,
    docs,
    events,
    health,
    images,
    jobs,
    keys,
    loras,
    projects,
    rounds,
    service,
    users,
    webhooks,
)
from shared import json_text
from shared.runtime import Runtime

log = structlog.get_logger()

RESOURCES = (service, projects, images, datasets, rounds, loras, jobs, events, webhooks, keys, users, audit, health)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
UNLOGGED = ("/healthz", "/readyz", "/metrics")  # requested every few seconds by machines


class Json(DefaultJSONProvider):
    def dumps(self, obj: Any, **kwargs: Any) -> str:
        return json_text.write(obj)


def create_app(runtime: Runtime) -> Flask:
    app = Flask("api", static_folder=None)
    app.extensions["bootlora"] = runtime
    app.json = Json(app)
    app.config["MAX_FORM_PARTS"] = 20
    app.url_map.converters["id"] = converters.IdConverter
    app.before_request(_begin)
    app.after_request(_finish)
    problems.register(app)
    limits.register(app, runtime.settings)
    held.register(app, runtime)
    api = document.make_api(app)
    for resource in RESOURCES:
        api.register_blueprint(resource.blp)
    app.register_blueprint(docs.blp)
    return app


def _begin() -> None:
    first = waits.first()
    g.request_id = first.request_id if first else str(uuid.uuid4())
    g.began = first.began if first else time.perf_counter()
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=g.request_id, **(request.view_args or {}))


def _finish(answer: Response) -> Response:
    headers = answer.headers
    headers.add("X-Request-Id", g.request_id)
    headers.add("X-Content-Type-Options", "nosniff")
    headers.setdefault("Cache-Control", "no-store")
    if "link" in g:
        headers.add("Link", g.link)
    if isinstance(answer, waits.JobWait):
        return answer  # the request is counted and logged when it has waited
    route = request.url_rule.rule if request.url_rule else "unknown"
    seconds = time.perf_counter() - g.began
    method = request.method if request.method in METHODS else "other"  # a client may send any word as the method
    metrics.observe(method, route, answer.status_code, seconds)
    if route not in UNLOGGED:
        log.info("request", method=method, route=route, status=answer.status_code, seconds=round(seconds, 4))
    return answer
