"""Every error in one shape: RFC 9457. Clients branch on `code` (or `type`), people read `detail`."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from itertools import islice
from typing import Any

import structlog
from flask import Flask, Response, current_app, g
from gunicorn.http.errors import ChunkMissingTerminator, InvalidChunkExtension, InvalidChunkSize, NoMoreData
from sqlalchemy.exc import DBAPIError, OperationalError
from werkzeug.exceptions import HTTPException, NotFound

from shared.errors import BootloraError, TooMany

log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"
TYPE = "urn:bootlora:problem:"
MAX_ERRORS = 50  # in one answer
MAX_TEXT = 500  # characters of one detail or pointer, which may hold what the client sent

# Codes and sentences of the errors that come from the HTTP layer itself.
HTTP_CODES = {
    400: ("bad_request", "the request can't be read as HTTP with a JSON body"),
    404: ("not_found", "nothing is here; see /docs for the routes"),
    405: ("method_not_allowed", "this address knows other methods; see the Allow header"),
    406: ("not_acceptable", "the answer is JSON"),
    408: ("request_timeout", "the request took too long to arrive"),
    413: ("too_large", "the body is larger than allowed; see GET /v1/limits"),
    414: ("uri_too_long", "the address is too long"),
    415: ("unsupported_media_type", "send application/json, or multipart/form-data where a file goes"),
    422: ("invalid", "some of what was sent can't be"),
    431: ("headers_too_large", "the headers are too large"),
}
TITLES = {
    400: "Bad request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    412: "Changed meanwhile",
    413: "Too large",
    415: "Unsupported media type",
    422: "Invalid",
    428: "Precondition required",
    429: "Too many",
    500: "Internal error",
    503: "Unavailable",
}


def problem(
    status: int,
    code: str,
    detail: str,
    errors: list[dict[str, Any]] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    body: dict[str, Any] = {
        "type": TYPE + code,
        "title": TITLES.get(status, code.replace("_", " ").capitalize()),
        "status": status,
        "detail": detail,
        "code": code,
        "instance": f"urn:bootlora:request:{g.get('request_id', 'unknown')}",
    }
    if errors:
        body["errors"] = errors[:MAX_ERRORS]
    answer = current_app.response_class(current_app.json.dumps(body), status=status, mimetype=MEDIA_TYPE)
    answer.headers.update(headers or {})
    return answer


def register(app: Flask) -> None:
    """Turn whatever goes wrong into a problem."""
    app.register_error_handler(BootloraError, _domain_error)
    app.register_error_handler(HTTPException, http_error)
    app.register_error_handler(OperationalError, _database_error)
    app.register_error_handler(OSError, _os_error)
    for broken in (InvalidChunkSize, ChunkMissingTerminator, InvalidChunkExtension, NoMoreData):
        app.register_error_handler(broken, _broken_body)
    app.register_error_handler(Exception, _bug)


def _domain_error(error: BootloraError) -> Response:
    headers = {}
    if isinstance(error, TooMany):
        headers["Retry-After"] = str(error.retry_after_seconds)
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="bootlora"'
    if error.status == 503:
        headers["Retry-After"] = "5"
        log.warning("request.unavailable", code=error.code, error=error.message)
    if error.status >= 500 and error.status != 503:
        log.error("request.failed", code=error.code, exc_info=error)
    return problem(error.status, error.code, error.message, error.errors, headers)


def http_error(error: HTTPException) -> Response:
    status = error.code or 500
    if error.response is not None or status < 400:
        return error.get_response()  # type: ignore[return-value]  # a redirect
    if status >= 500:
        return _bug(error)
    code, detail = HTTP_CODES.get(status, (error.name.lower().replace(" ", "_"), error.description or error.name))
    if status == 404 and error.description != NotFound.description:
        detail = error.description or detail
    data = getattr(error, "data", None) or {}
    headers = {name: value for name, value in error.get_headers() if name in ("Allow", "Retry-After")}
    errors = list(islice(pointers(data.get("messages") or {}), MAX_ERRORS + 1))
    if status == 400 and errors:
        code, detail = "invalid_json", f"the body is not valid JSON: {errors[0]['detail']}"
    elif status == 422 and errors:
        first = errors[0]
        where = first.get("pointer") or first.get("parameter") or "the body"
        detail = f"{where}: {first['detail']}{_and_more(len(errors) - 1)}"
    return problem(status, code, detail, errors, headers)


def _and_more(others: int) -> str:
    if others >= MAX_ERRORS:
        return f" (and at least {MAX_ERRORS} more)"
    return f" (and {others} more)" if others else ""


def pointers(messages: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """marshmallow's messages, by location, as a flat list with a JSON pointer (RFC 6901) or a parameter's name."""
    for location, found in messages.items():
        for path, detail in _flat(found):
            if location in ("query", "querystring", "headers"):
                yield {"parameter": _short(".".join(path)), "detail": _short(detail)}
            else:
                pointer = "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in path)
                yield {"pointer": _short(pointer), "detail": _short(detail)}


def _flat(found: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(found, dict):
        for name, inner in found.items():
            # marshmallow files what is wrong with the whole under _schema, and a dict's parts under key and value
            yield from _flat(inner, path if name in ("_schema", "key", "value") else (*path, str(name)))
    elif isinstance(found, list | tuple):
        for inner in found:
            yield from _flat(inner, path)
    else:
        yield path, str(found)


def _short(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"


def _database_error(error: OperationalError) -> Response:
    """The database is away, or was too busy: the same request may succeed in a moment."""
    log.warning("database.unavailable", error=str(error.orig))
    return problem(
        503, "database_unavailable", "the database doesn't answer; try again in a moment", headers={"Retry-After": "5"}
    )


def _broken_body(error: Exception) -> Response:
    """The server can't tell where the body ends, so nothing more can be read from this connection."""
    detail = "the chunks of the body are malformed (RFC 9112, 7.1), or it ended early; send it again"
    return problem(400, "bad_request", detail, headers={"Connection": "close"})


def _os_error(error: OSError) -> Response:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return _bug(error)
    log.error("disk.full", exc_info=error)
    return problem(503, "disk_full", "the disk of the server is full; tell the operator", headers={"Retry-After": "60"})


def _bug(error: Exception) -> Response:
    """Our fault. The reader gets the request's id, the log the rest."""
    if isinstance(error, DBAPIError):
        error.hide_parameters = True
    log.error("request.crashed", exc_info=error)
    return problem(500, "internal", "something went wrong here; tell the operator the request's id")
