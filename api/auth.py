"""Who asks, and may they? Bearer keys only; a route names the one scope that it needs."""

from __future__ import annotations

import hashlib
import time

import structlog
from flask import g, request

from api import limits, waits
from api.context import reading, release, runtime
from shared import users
from shared.errors import Forbidden, Unauthorized
from shared.models import ApiKey

SECURITY_SCHEME = "apiKey"
KNOWN_SECONDS = 2.0  # how long a key stays good in other processes after it was revoked in one
MAX_KNOWN = 10_000

_known: dict[bytes, tuple[float, ApiKey]] = {}  # by a hash: keys themselves are not for keeping


def authenticate(scope: str, *, submits: bool) -> None:
    """Find the key of the request, count the request, and see that the key opens this door."""
    try:
        key = g.api_key = _key_of_request()
    except Unauthorized:
        limits.count()
        raise
    if waits.first() is None:
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
        forget()


def bearer() -> str | None:
    """The text of the key that the request shows, good or not."""
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    return text.strip() if scheme.lower() == "bearer" and text.strip() else None


def forget() -> None:
    """Ask the database again from now on: a key was revoked, or a user changed."""
    _known.clear()


def _key_of_request() -> ApiKey:
    text = bearer()
    if text is None:
        raise Unauthorized("send your API key as `Authorization: Bearer btl_...`", code="no_api_key")
    name = hashlib.sha256(text.encode()).digest()
    until, key = _known.get(name, (0.0, None))
    if key is None or time.monotonic() >= until:
        key = users.authenticate(reading(), text, runtime().settings.secret_key)
        release()  # a body may take minutes to come
        if len(_known) >= MAX_KNOWN:
            _known.clear()
        _known[name] = (time.monotonic() + KNOWN_SECONDS, key)
    users.check_fresh(key)
    return key
