"""Who asks, and may they? Bearer keys only; a route names the one scope that it needs."""

from __future__ import annotations

import structlog
from flask import g, request

from api import limits
from api.context import reading, release, runtime
from shared import users
from shared.errors import Forbidden, Unauthorized
from shared.models import ApiKey

SECURITY_SCHEME = "apiKey"


def authenticate(scope: str, *, submits: bool) -> None:
    """Find the key of the request, count the request, and see that the key opens this door."""
    try:
        key = g.api_key = _key_of_request()
    except Unauthorized:
        limits.count()
        raise
    limits.count(submits=submits)
    structlog.contextvars.bind_contextvars(user_id=key.user_id, key_id=key.id)
    if scope and scope not in key.scopes:
        raise Forbidden(f"this API key lacks the scope {scope!r}", code="missing_scope")
    if scope == "admin" and key.user.role != "admin":
        raise Forbidden("this is for admins", code="not_an_admin")
    if users.is_stale(key):
        release()
        with runtime().db.transaction() as session:
            users.touch(session, key)


def bearer() -> str | None:
    """The text of the key that the request shows, good or not."""
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    return text.strip() if scheme.lower() == "bearer" and text.strip() else None


def _key_of_request() -> ApiKey:
    text = bearer()
    if text is None:
        raise Unauthorized("send your API key as `Authorization: Bearer btl_...`", code="no_api_key")
    return users.authenticate(reading(), text, runtime().settings.secret_key)
