"""Authentication by API keys (bearer tokens), and the check of the scope that a route needs."""

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
KNOWN_SECONDS = 2.0  # for this long after a revocation, other processes may still accept the key
MAX_KNOWN = 10_000

_known: dict[bytes, tuple[float, ApiKey]] = {}  # by a hash, so that keys are not kept in memory


def authenticate(scope: str, *, submits: bool) -> None:
    """Find the request's API key, count the request, and check that the key has the scope."""
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
        raise Forbidden("this route is for admins; ask one to do it", code="not_an_admin")
    if users.is_stale(key):
        release()
        with runtime().db.transaction() as session:
            users.touch(session, key)
        forget()


def bearer() -> str | None:
    """The text of the request's API key, valid or not."""
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    return text.strip() if scheme.lower() == "bearer" and text.strip() else None


def forget() -> None:
    """Forget all known keys, because one was revoked or a user has changed."""
    _known.clear()


def _key_of_request() -> ApiKey:
    text = bearer()
    if text is None:
        raise Unauthorized("send your API key as `Authorization: Bearer btl_...`", code="no_api_key")
    name = hashlib.sha256(text.encode()).digest()
    until, key = _known.get(name, (0.0, None))
    if key is None or time.monotonic() >= until:
        key = users.authenticate(reading(), text, runtime().settings.secret_key)
        release()  # a body may take minutes to arrive
        if len(_known) >= MAX_KNOWN:
            _known.clear()
        _known[name] = (time.monotonic() + KNOWN_SECONDS, key)
    users.check_fresh(key)
    return key
