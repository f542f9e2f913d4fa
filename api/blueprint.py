"""A flask-smorest blueprint whose routes must name their scope, and whose transaction ends with the answer."""

from __future__ import annotations

import http
import json
from collections import Counter
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import flask_smorest
from flask import Request, g, make_response, request
from marshmallow import Schema
from webargs import core
from webargs.flaskparser import FlaskParser, abort, is_json_request
from werkzeug.datastructures import MultiDict

from api import auth, context, etags, filters, idempotency
from shared import audit
from shared.errors import UnsupportedType

View = TypeVar("View", bound=Callable[..., Any])

TWICE = "was sent more than once; send it once"
MAX_NAMES = 100  # in one object of a body
MAX_BRACKETS = 10_000  # in one body, including those in texts


class Parser(FlaskParser):
    """webargs, but strict: it refuses another content type (415), an empty body and unknown names (422)."""

    DEFAULT_UNKNOWN_BY_LOCATION = {  # noqa: RUF012  (the base class's own)
        **FlaskParser.DEFAULT_UNKNOWN_BY_LOCATION,
        "query": "raise",
        "multipart": "raise",
    }
    __location_map__ = {**FlaskParser.__location_map__, "multipart": "load_multipart"}  # noqa: RUF012

    def load_json(self, req: Request, schema: Schema) -> Any:
        if not req.get_data(cache=True) and not getattr(schema, "may_be_left_out", False):
            abort(422, messages={"json": ["this route needs a JSON body"]})
        return super().load_json(req, schema)

    def _raw_load_json(self, req: Request) -> Any:
        body = req.get_data(cache=True)
        if not body:
            return core.missing
        if not is_json_request(req):
            raise UnsupportedType(f"this route takes application/json; {_sent(req)}")
        try:
            return json.loads(body, parse_constant=_no_constant, object_pairs_hook=_object)
        except RecursionError:
            abort(400, messages={"json": ["it is nested too deeply"]})
        except UnicodeDecodeError:
            abort(400, messages={"json": ["it is not UTF-8"]})
        except json.JSONDecodeError:
            raise
        except ValueError:
            abort(400, messages={"json": ["a number in it has too many digits"]})

    def load_querystring(self, req: Request, schema: Schema) -> Any:
        """The query parameters without the filters by metadata, which `filters.metadata` reads."""
        plain = list(req.args.items(multi=True))
        if getattr(schema, "metadata_filter", False):
            plain = [(name, value) for name, value in plain if not name.startswith(filters.METADATA)]
        return self._makeproxy(MultiDict(plain), schema)

    def load_multipart(self, req: Request, schema: Schema) -> Any:
        """The fields and files of a form, together."""
        if req.mimetype != "multipart/form-data":
            raise UnsupportedType(
                f"this route takes a file in multipart/form-data, as `curl -F file=@PATH` sends it; {_sent(req)}"
            )
        both = req.form.copy()
        for name, files in req.files.lists():
            both.setlist(name, both.getlist(name) + files)  # type: ignore[arg-type,operator]
        if twice := [name for name, values in both.lists() if len(values) > 1]:
            abort(422, messages={"multipart": {name: [TWICE] for name in twice}})
        return self._makeproxy(both, schema)


def _sent(req: Request) -> str:
    return f"the request has {req.mimetype}" if req.mimetype else "the request has no Content-Type"


def _check_query(takes_query: bool) -> None:
    """Refuse unknown query parameters, and repeated ones, of which all but one would be ignored."""
    wrong = {name: [TWICE] for name, values in request.args.lists() if len(values) > 1}
    if not takes_query:
        wrong |= {name: ["Unknown field."] for name in request.args}
    if wrong:
        abort(422, messages={"query": wrong})


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object of a body. Refuse one with a repeated name, or with more names than any route takes."""
    if len(pairs) > MAX_NAMES:
        abort(422, messages={"json": [f"more than {MAX_NAMES} names in one object; no route takes so many"]})
    built = dict(pairs)
    if len(built) < len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        abort(400, messages={"json": [f"{twice[:100]!r} occurs twice in one object; send it once"]})
    return built


def _bound_brackets() -> None:
    """Refuse a body with more lists and objects than any route takes, before it is parsed."""
    if request.mimetype == "multipart/form-data" or request.method not in ("POST", "PUT", "PATCH"):
        return
    body = request.get_data(cache=True)
    if body.count(b"[") + body.count(b"{") > MAX_BRACKETS:
        abort(422, messages={"json": [f"more than {MAX_BRACKETS} brackets; no route takes so many lists and objects"]})


def _no_constant(name: str) -> Any:
    raise json.JSONDecodeError(f"{name} is not JSON", name, 0)


class Blueprint(flask_smorest.Blueprint):
    """flask-smorest's, with declarations of the scope, the errors, Idempotency-Key, ETag and If-Match."""

    ARGUMENTS_PARSER = Parser()
    DEFAULT_LOCATION_CONTENT_TYPE_MAPPING = {  # noqa: RUF012
        **flask_smorest.Blueprint.DEFAULT_LOCATION_CONTENT_TYPE_MAPPING,
        "multipart": "multipart/form-data",
    }

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._prepare_doc_cbks.append(_prepare_headers_doc)

    def add_url_rule(
        self, rule: str, endpoint: str | None = None, view_func: Any = None, *args: Any, **options: Any
    ) -> None:  # type: ignore[override]
        if not hasattr(view_func, "scope"):
            raise TypeError(f"{view_func.__name__} must say which scope it needs, or that it is open")
        _document(view_func, operationId=view_func.__name__)
        super().add_url_rule(rule, endpoint or view_func.__name__, answered(view_func), *args, **options)

    def arguments(self, schema: Any, *args: Any, **kwargs: Any) -> Any:
        """Like flask-smorest's, but with one schema instance for all requests, instead of one for each."""
        declare = super().arguments(schema() if isinstance(schema, type) else schema, *args, **kwargs)

        def mark(view: View) -> View:
            marked = declare(view)
            location = kwargs.get("location", "json")
            if location == "multipart":
                marked.__dict__["largest_file"] = schema.largest_file
            elif location == "query":
                marked.__dict__["takes_query"] = True
            return marked

        return mark

    # --- what a route declares ---------------------------------------------------------------------------------

    @staticmethod
    def needs(scope: str) -> Callable[[View], View]:
        """The scope that a key must have. `""`: any valid key."""

        def declare(view: View) -> View:
            _document(view, security=[{auth.SECURITY_SCHEME: [scope] if scope else []}], **{"x-scope": scope})
            view.__dict__["scope"] = scope
            return Blueprint.fails(401, *([403] if scope else []), 429)(view)

        return declare

    @staticmethod
    def open(view: View) -> View:
        """The route needs no key."""
        _document(view, security=[])
        view.__dict__["scope"] = None
        return view

    @staticmethod
    def fails(*statuses: int) -> Callable[[View], View]:
        """The error statuses that the route may answer with, besides those that its other declarations imply."""

        def declare(view: View) -> View:
            responses = _apidoc(view).setdefault("response", {}).setdefault("responses", {})
            for status in statuses:
                responses[status] = [http.HTTPStatus(status).name]
            return view

        return declare

    @staticmethod
    def header(parameter: dict[str, Any]) -> Callable[[View], View]:
        """A request header that the view reads itself."""

        def declare(view: View) -> View:
            _parameter(view, parameter)
            return view

        return declare

    @staticmethod
    def idempotent(view: View) -> View:
        """The route takes an `Idempotency-Key`: a repeated request with the same key has no second effect."""
        _parameter(view, idempotency.HEADER)
        view.__dict__["idempotent"] = True
        return Blueprint.fails(409, 422)(view)

    @staticmethod
    def with_etag(view: View) -> View:
        """The answer carries an ETag. Write it above `response`."""
        view.__dict__["with_etag"] = True
        for responses in _apidoc(view)["response"]["responses"].values():
            for response in responses:
                if isinstance(response, dict):
                    response["headers"] = {**response.get("headers", {}), "ETag": etags.ETAG}
        return view

    @staticmethod
    def if_match(view: View) -> View:
        """The request must name the version that it is based on; the view compares it with `etags.check`."""
        _parameter(view, etags.IF_MATCH)
        view.__dict__["if_match"] = True
        return Blueprint.fails(412, 428)(view)


def _apidoc(view: Any) -> dict[str, Any]:
    found: dict[str, Any] = view.__dict__.setdefault("_apidoc", {})
    return found


def _document(view: Any, **manual: Any) -> None:
    _apidoc(view).setdefault("manual_doc", {}).update(manual)


def _parameter(view: Any, parameter: dict[str, Any]) -> None:
    _apidoc(view).setdefault("headers", []).append(parameter)


def _prepare_headers_doc(doc: dict[str, Any], doc_info: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Write the declared headers into the spec, beside the other parameters."""
    if doc_info.get("headers"):
        doc.setdefault("parameters", []).extend(doc_info["headers"])
    return doc


def answered(view: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a view: authenticate, run it, build the answer, store it for its Idempotency-Key, commit."""
    marks = view.__dict__

    @wraps(view)
    def whole(*args: Any, **kwargs: Any) -> Any:
        try:
            with context.sessions():
                if marks["scope"] is not None:
                    submits = bool(marks.get("idempotent")) and not marks.get("largest_file")
                    auth.authenticate(marks["scope"], submits=submits)
                    _check_query(marks.get("takes_query", False))
                if marks.get("if_match"):
                    etags.require()
                _bound_brackets()
                if marks.get("idempotent"):
                    idempotency.announce()
                answer = make_response(view(*args, **kwargs))
                if marks.get("with_etag"):
                    etags.put_on(answer)
                idempotency.keep(answer)
                if context.in_transaction() and marks["scope"] is not None:
                    _remember(view.__name__)
        except idempotency.Replay as earlier:
            return earlier.answer()
        return etags.conditional(answer) if marks.get("with_etag") else answer

    return whole


def _remember(action: str) -> None:
    """Write the action into the audit log, in its transaction."""
    audit.record(context.begin_transaction(), context.api_key(), action, request.path, g.request_id)
