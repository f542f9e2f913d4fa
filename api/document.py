"""The OpenAPI document, made from the routes and schemas."""

from __future__ import annotations

import http
from typing import Any, cast

import flask_smorest
import yaml
from flask import Flask
from flask_smorest.utils import prepare_response
from marshmallow.fields import Field

from api import auth, converters, examples, problems
from api.schemas.choices import Choice
from api.schemas.fields import Dict
from api.schemas.problem import ProblemSchema
from shared.users import SCOPES

DESCRIPTION = """\
From one picture of a character to a LoRA that draws her from any side.

- Every error is a problem (RFC 9457): branch on `code`.
- A POST that creates or starts something takes an `Idempotency-Key`, so that you can repeat it safely.
- To change a resource, send its `ETag` as `If-Match`, so that you don't overwrite other changes.
- Lists come in pages: follow `next_cursor`, or the `Link` header.
- Work is a job: 202 and a `Location`. Wait with `Prefer: wait=30`, follow the events, or use webhooks.
- Ignore fields and event types that you don't know: later versions may add some.
"""


class Api(flask_smorest.Api):
    """flask-smorest's Api, with errors as problems."""

    ERROR_SCHEMA = ProblemSchema

    def _register_responses(self) -> None:
        for status in http.HTTPStatus:
            if status >= 400:
                self._register_problem(status.name, status.phrase)
        self._register_problem(self.DEFAULT_ERROR_RESPONSE_NAME, "Any other error")

    def _register_pagination_header(self) -> None:
        """Do nothing: the body and `Link` describe the pages."""

    def _register_problem(self, name: str, description: str) -> None:
        response = {"description": description, "schema": ProblemSchema}
        prepare_response(response, self.spec, problems.MEDIA_TYPE)
        self.spec.components.response(name, response, lazy=True)

    def handle_http_exception(self, error: Any) -> Any:
        return problems.http_error(error)


def make_api(app: Flask) -> Api:
    app.config.update(API_TITLE="Bootlora", API_VERSION="1.0.0", OPENAPI_VERSION="3.1.0")
    info = {"description": DESCRIPTION, "license": {"name": "Apache-2.0"}}
    api = Api(spec_kwargs={"info": info, "extra_plugins": [examples.Examples()]})
    api.register_converter(converters.IdConverter, converters.id_schema)
    api.init_app(app)
    api.ma_plugin.converter.add_attribute_function(examples.of_field)
    api.ma_plugin.converter.add_attribute_function(_by_name)
    api.ma_plugin.converter.add_attribute_function(_of_bounds)
    scopes = "\n".join(f"- `{name}`: {meaning}" for name, meaning in SCOPES.items())
    scheme = {"type": "http", "scheme": "bearer", "description": f"An API key. Its scopes:\n\n{scopes}"}
    api.spec.components.security_scheme(auth.SECURITY_SCHEME, scheme)
    return api


def _by_name(converter: Any, field: Field, ret: dict[str, Any]) -> dict[str, Any]:
    """For apispec: a choice is a reference to its list."""
    if not isinstance(field, Choice):
        return {}
    name, components = type(field).__name__.removesuffix("Choice"), converter.spec.components
    if name not in components.schemas:
        components.schema(name, {"type": "string", "enum": [str(word) for word in field.words]})
    del ret["type"], ret["enum"]
    reference = {"$ref": f"#/components/schemas/{name}"}
    return {"anyOf": [reference, {"type": "null"}]} if field.allow_none else reference


def _of_bounds(converter: Any, field: Field, ret: dict[str, Any]) -> dict[str, Any]:
    """For apispec: bounds and names of a dictionary, which it would describe like a text. `\\Z` is Python's `$`."""
    if not isinstance(field, Dict):
        return {"pattern": ret["pattern"].replace(r"\Z", "$")} if "pattern" in ret else {}
    for wrong, right in (("minLength", "minProperties"), ("maxLength", "maxProperties")):
        if wrong in ret:
            ret[right] = ret.pop(wrong)
    return {"propertyNames": converter.field2property(field.key_field)}


def document(app: Flask) -> dict[str, Any]:
    """The whole document. It is the same each time."""
    api = app.extensions["flask-smorest"]["apis"][""]["ext_obj"]
    return cast(dict[str, Any], api.spec.to_dict())


def plain_document(app: Flask) -> dict[str, Any]:
    """The document as plain dictionaries, lists and text, for JSON and YAML."""
    return cast(dict[str, Any], _plain(document(app)))


def as_yaml(app: Flask) -> str:
    return cast(str, yaml.dump(plain_document(app), Dumper=_Dumper, sort_keys=True, allow_unicode=True, width=110))


class _Dumper(yaml.SafeDumper):
    """Writes no aliases (`&`, `*`): a value that occurs twice is written twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _plain(value: Any) -> Any:
    """Convert to plain dictionaries and lists, with keys as text (status codes are numbers)."""
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, bool | int | float) else str(value)
