"""Idempotency-Key: a request that is sent again is done only once, and gets the same answer.

One transaction writes the key, the effect of the request and its answer. After it, a repetition gets the stored answer;
if it was rolled back, a repetition does the request. Error answers are not stored.
"""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache
from typing import Any, Protocol, cast

from flask import Response, current_app, g, request
from sqlalchemy import bindparam, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from api import context
from shared.errors import BootloraError, Conflict, Invalid
from shared.models import IdempotencyKey
from shared.outside.db import clock

HEADER = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[\x21-\x7e]+$"},
    "description": "A text of your choice that identifies this request. A repetition with the same key has no second "
    "effect, and gets the first answer with `Idempotent-Replayed: true`. Keys are kept for a day.",
}
LOCK_SECONDS = 5
KEPT_HEADERS = ("Content-Type", "Location", "ETag", "Link")


# Statements are built once, because building takes longer than running them.
_keys = IdempotencyKey.__table__
_MINE = [_keys.c[name] == bindparam(f"my_{name}") for name in ("user_id", "route", "key")]
_KNOWN = select(_keys.c.fingerprint, _keys.c.status, _keys.c.body, _keys.c.headers).where(*_MINE)
_KEEPING = update(_keys).where(*_MINE)


class Known(Protocol):
    """The stored row of a request."""

    fingerprint: str
    status: int | None
    body: str | None
    headers: dict[str, Any]


class BadKey(BootloraError):
    status = 400
    code = "bad_idempotency_key"


class Replay(Exception):
    """This request has been answered before."""

    def __init__(self, row: Known):
        super().__init__(g.idempotency["key"])
        self.row = row

    def answer(self) -> Response:
        body = context.runtime().vault.open(self.row.body or "")
        answer = current_app.response_class(body, status=self.row.status)
        answer.headers.update(self.row.headers)
        answer.headers["Idempotent-Replayed"] = "true"
        return answer


def announce() -> None:
    """Read the request's key, if it has one. Raises `Replay` if its answer is stored."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return
    if not re.fullmatch(r"[\x21-\x7e]{1,255}", key):
        raise BadKey("the Idempotency-Key is not valid; send 1 to 255 visible ASCII characters")
    g.idempotency = {
        "user_id": context.user().id,
        "route": f"{request.method} {request.path}",
        "key": key,
        "fingerprint": _fingerprint(),
    }
    known = context.runtime().db.row(_KNOWN, **_identity())
    if known is not None:
        _replay(cast(Known, known))
    context.first(_claim)


def keep(answer: Response) -> None:
    """Store the answer with the key, in the request's transaction."""
    if not g.get("idempotency") or not 200 <= answer.status_code < 300:
        return
    kept = {
        "status": answer.status_code,
        "body": context.runtime().vault.seal(answer.get_data(as_text=True)),  # it may show a key or a secret
        "headers": {name: value for name, value in answer.headers.items() if name in KEPT_HEADERS},
    }
    context.begin_transaction().execute(_KEEPING, _identity() | kept)


def _claim(session: Session) -> None:
    """Claim the key for this request. If another request holds it, wait for that one and give its answer."""
    dialect = session.get_bind().dialect.name
    postgres = dialect == "postgresql"
    if postgres:
        session.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
    try:
        taken = session.execute(_claiming(dialect), g.idempotency).one_or_none()
    except OperationalError as error:
        raise Conflict(
            "the first request with this Idempotency-Key is still running; try again in a moment",
            code="idempotency_in_progress",
        ) from error
    if postgres:
        session.execute(text("SET LOCAL lock_timeout = 0"))
    if taken is None:
        _replay(cast(Known, session.execute(_KNOWN, _identity()).one()))


def _identity() -> dict[str, str]:
    return {f"my_{name}": g.idempotency[name] for name in ("user_id", "route", "key")}


@cache
def _claiming(dialect: str) -> Any:
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return insert(_keys).values(headers={}, created_at=clock()).on_conflict_do_nothing().returning(_keys.c.key)


def _replay(row: Known) -> None:
    if row.fingerprint != g.idempotency["fingerprint"]:
        raise Invalid(
            "this Idempotency-Key was sent with another request before; use a new one", code="idempotency_key_reused"
        )
    raise Replay(row)


def _fingerprint() -> str:
    """A hash of the request, whatever the order of its JSON or the boundary of its form.

    The API key is part of it: a key must not get the stored answer of one that has more scopes.
    """
    digest = hashlib.sha256(f"{context.api_key().id} ".encode() + request.query_string)
    if request.mimetype == "multipart/form-data":
        digest.update(json.dumps(sorted(request.form.items(multi=True))).encode())
        for name, file in sorted(request.files.items(multi=True), key=lambda item: item[0]):
            digest.update(name.encode())
            while piece := file.stream.read(1 << 20):
                digest.update(piece)
            file.stream.seek(0)
    else:
        digest.update(_canonical(request.get_data(cache=True)))
    return digest.hexdigest()


def _canonical(body: bytes) -> bytes:
    try:
        return json.dumps(json.loads(body), sort_keys=True).encode()
    except (ValueError, RecursionError):
        return body
