"""Every error is a problem (RFC 9457). Clients branch on `code` or `type`, people read `detail`."""

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
MAX_TEXT = 500  # characters of one detail or pointer, which may quote the request

# Codes and details of errors from the HTTP layer.
HTTP_CODES = {
    400: ("bad_request", "the request can't be read as HTTP with a JSON body"),
    404: ("not_found", "there is no such route; see /docs for the routes"),
    405: ("method_not_allowed", "this route does not take this method; the Allow header lists those that it takes"),
    406: ("not_acceptable", "the answer is JSON; let the Accept header allow it"),
    408: ("request_timeout", "the request took too long to arrive"),
    413: ("too_large", "the body is larger than allowed; see GET /v1/limits"),
    414: ("uri_too_long", "the URL is too long; send fewer or shorter parameters"),
    415: ("unsupported_media_type", "send application/json, or multipart/form-data for a file"),
    422: ("invalid", "the request is not valid; see /docs for what the route takes"),
    431: ("headers_too_large", "the headers are too large; send fewer or shorter ones"),
}
TITLES = {
    400: "Bad request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    412: "Precondition failed",
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
    """Turn every exception into a problem."""
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
    """marshmallow's messages as a flat list, each with a JSON pointer (RFC 6901) or the name of a parameter."""
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
            # marshmallow puts errors of a whole object under _schema, and those of a dict's parts under key and value
            yield from _flat(inner, path if name in ("_schema", "key", "value") else (*path, str(name)))
    elif isinstance(found, list | tuple):
        for inner in found:
            yield from _flat(inner, path)
    else:
        yield path, str(found)


def _short(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"


def _database_error(error: OperationalError) -> Response:
    """The database is down or was too busy. The same request may succeed in a moment."""
    log.warning("database.unavailable", error=str(error.orig))
    return problem(
        503, "database_unavailable", "the database doesn't answer; try again in a moment", headers={"Retry-After": "5"}
    )


def _broken_body(error: Exception) -> Response:
    """The end of the body is unknown, so the connection can't be read any further."""
    detail = "the chunks of the body are malformed (RFC 9112, 7.1), or it ended early; send it again"
    return problem(400, "bad_request", detail, headers={"Connection": "close"})


def _os_error(error: OSError) -> Response:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return _bug(error)
    log.error("disk.full", exc_info=error)
    return problem(503, "disk_full", "the server's disk is full; tell the operator", headers={"Retry-After": "60"})


def _bug(error: Exception) -> Response:
    """A bug or an unexpected failure. The client gets the request's id; the log has the details."""
    if isinstance(error, DBAPIError):
        error.hide_parameters = True
    log.error("request.crashed", exc_info=error)
    return problem(500, "internal", "the server failed; tell the operator the request's id, which is in `instance`")
