"""Strong ETags: a hash of the representation. A change must name the version that it is based on."""

from __future__ import annotations

import hashlib
from typing import Any

from flask import Response, request
from flask_smorest.utils import get_appcontext
from marshmallow import Schema

from api.held import Held
from shared import json_text
from shared.errors import PreconditionFailed, PreconditionRequired

# The hash leaves out presigned links, because each request makes a new one. A `url` without an expiry is a webhook's,
# and is part of the hash.
EXPIRY = frozenset({"url_expires_at", "expires_at"})
VOLATILE = EXPIRY | {"url"}

CONDITIONAL = (
    *("HTTP_IF_NONE_MATCH", "HTTP_IF_MATCH", "HTTP_IF_MODIFIED_SINCE", "HTTP_IF_UNMODIFIED_SINCE"),
    "HTTP_RANGE",
)

ETAG = {"schema": {"type": "string"}, "description": "The version. Send it as If-Match when you change the resource."}
IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "required": True,
    "schema": {"type": "string"},
    "description": "The ETag of the version that this change is based on, or `*` for any version.",
    "example": "*",
}


def of(shown: Any) -> str:
    """The ETag of a representation."""
    text = json_text.write(shown, sort_keys=True)
    if any(name in text for name in EXPIRY):
        text = json_text.write(_lasting(shown), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def put_on(answer: Response) -> None:
    """Set the ETag of an answer, from the representation that the schema has just dumped."""
    shown = get_appcontext().get("result_dump")
    if shown is not None and 200 <= answer.status_code < 300:
        answer.set_etag(of(shown))


def conditional(answer: Response) -> Response:
    """Answer with 304, or with a range, if the request's headers ask for it."""
    if isinstance(answer, Held):
        return answer  # its final answer passes through here again
    asked = request.environ
    if any(name in asked for name in CONDITIONAL) and request.method in ("GET", "HEAD"):
        wanted = request.if_match
        if wanted and not wanted.star_tag and not wanted.contains(answer.get_etag()[0] or ""):
            raise PreconditionFailed("there is another version now than the one that you asked for; read it again")
        # Leave out If-Match: it is checked above, and werkzeug would take `*` for an ETag.
        answer.make_conditional({name: value for name, value in asked.items() if name != "HTTP_IF_MATCH"})
    return answer


def require() -> None:
    """Refuse a write without If-Match, because it could overwrite another client's change."""
    if not request.if_match:
        raise PreconditionRequired(
            "If-Match is missing; send the ETag of the version that you have read, or `*` to overwrite any"
        )


def check(schema: type[Schema], row: Any) -> None:
    """Refuse if the row has changed since the client read it. Call it with the row locked."""
    if not request.if_match or request.if_match.star_tag:
        return
    now = of(schema().dump(row))
    if not request.if_match.contains(now):
        raise PreconditionFailed("this has changed since you read it; read it again, then repeat your change")


def _lasting(shown: Any) -> Any:
    if isinstance(shown, dict):
        passing = VOLATILE if EXPIRY & shown.keys() else ()
        # a client chooses the names in metadata, so none of them is volatile
        return {
            name: value if name == "metadata" else _lasting(value)
            for name, value in shown.items()
            if name not in passing
        }
    if isinstance(shown, list):
        return [_lasting(each) for each in shown]
    return shown
