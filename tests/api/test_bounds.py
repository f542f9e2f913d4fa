"""Every list and dictionary of a request has a maximum length, which is checked before its items are loaded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from marshmallow import Schema, ValidationError, fields

from api.problems import MAX_ERRORS
from tests.api.bodies import PROJECT
from tests.api.problems import problem


def request_schemas(app: Flask) -> Iterator[tuple[str, Schema]]:
    """The schemas of all that the routes take: bodies, forms and queries."""
    for name, view in app.view_functions.items():
        for parameter in getattr(view, "_apidoc", {}).get("arguments", {}).get("parameters", []):
            if isinstance(parameter.get("schema"), Schema):
                yield name, parameter["schema"]


def fields_of(schema: Schema, path: str) -> Iterator[tuple[str, fields.Field[Any]]]:
    """Every field of a schema, and of the schemas and containers in it."""
    for name, field in schema.fields.items():
        yield from parts(field, f"{path}.{name}")


def parts(field: fields.Field[Any], path: str) -> Iterator[tuple[str, fields.Field[Any]]]:
    yield path, field
    if isinstance(field, fields.Nested):
        assert not field.many, f"{path}: use a List of Nested, which has a bound"
        yield from fields_of(field.schema, path)
    elif isinstance(field, fields.List):
        yield from parts(field.inner, f"{path}[]")
    elif isinstance(field, fields.Dict):
        for inner in (field.key_field, field.value_field):
            if inner is not None:
                yield from parts(inner, f"{path}{{}}")


class Untouchable(list):
    """Many items, none of which may be looked at."""

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("an item was loaded before the length was checked")


class UntouchableDict(dict):
    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("a key was loaded before the length was checked")


def test_every_list_and_dictionary_is_refused_by_length_before_its_items_are_loaded(built_app):
    seen = 0
    for route, schema in request_schemas(built_app):
        for path, field in fields_of(schema, route):
            if isinstance(field, fields.List | fields.Dict):
                many = (
                    Untouchable([None] * 100_000)
                    if isinstance(field, fields.List)
                    else UntouchableDict({str(number): None for number in range(100_000)})
                )
                with pytest.raises(ValidationError, match=r"(?i)length") as refused:
                    field.deserialize(many)
                assert len(refused.value.messages) == 1, path
                seen += 1
    assert seen >= 30  # the walk has found them


@pytest.mark.parametrize(
    ("method", "path", "body", "pointer"),
    [
        ("POST", "/v1/projects", {**PROJECT, "plan": {"rounds": [{}] * 4_000}}, "/plan/rounds"),
        ("POST", "/v1/projects", {**PROJECT, "feature_tags": [""] * 200_000}, "/feature_tags"),
        ("POST", "/v1/webhooks", {"url": "https://a.example", "event_types": [""] * 200_000}, "/event_types"),
    ],
)
def test_too_many_items_are_one_error(ada, method, path, body, pointer):
    told = problem(ada.answer(method, path, json=body), 422, "invalid")
    assert [each["pointer"] for each in told["errors"]] == [pointer]


@pytest.mark.parametrize("letter", [" ", "a", "é", "e\u0301", "\u200b", ","])
def test_a_text_that_is_far_too_long_is_refused_before_it_is_read(ada, letter):
    for field, body in (
        ("/name", PROJECT | {"name": letter * 100_000}),
        ("/feature_tags/0", PROJECT | {"feature_tags": [letter * 100_000]}),
        ("/metadata/a", PROJECT | {"metadata": {"a": letter * 100_000}}),
    ):
        told = problem(ada.post("/v1/projects", body), 422, "invalid")
        assert [each["pointer"] for each in told["errors"]] == [field]
        assert "ength" in told["errors"][0]["detail"]


def test_accents_that_are_typed_apart_count_once(ada):
    name = "e\u0301" * 200  # as long as a name may be
    assert ada.post("/v1/projects", PROJECT | {"name": name}).json["name"] == "é" * 200
    problem(ada.post("/v1/projects", PROJECT | {"name": name + "a"}), 422, "invalid")


def test_an_answer_lists_a_limited_number_of_errors(ada):
    body = PROJECT | {"feature_tags": [""] * 60, "subject_tags": [""] * 20}
    told = problem(ada.post("/v1/projects", body), 422, "invalid")
    assert len(told["errors"]) == MAX_ERRORS == 50
    assert told["detail"].endswith("(and at least 50 more)")


def test_an_answer_does_not_grow_with_the_request(ada):
    named = ada.post("/v1/projects", PROJECT | {"x" * 500_000: 1})
    problem(named, 422, "invalid")
    assert len(named.data) < 2_000


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ({str(number): 0 for number in range(101)}, "more than 100 names"),
        ([{}] * 10_000, "more than 10000 brackets"),
        ([[]] * 10_000, "more than 10000 brackets"),
    ],
)
def test_a_body_with_more_names_or_brackets_than_any_route_takes_is_not_loaded(ada, body, what):
    told = problem(ada.post("/v1/projects", body), 422, "invalid")
    assert [what in each["detail"] for each in told["errors"]] == [True]


@pytest.mark.parametrize("body", ['{"name": "a", "name": "b"}', '{"plan": {"rounds": [{"kind": "style", "kind": 1}]}}'])
def test_a_repeated_name_in_an_object_is_refused(ada, body):
    refused = ada.answer("POST", "/v1/projects", data=body, content_type="application/json")
    assert "twice" in problem(refused, 400, "invalid_json")["detail"]
