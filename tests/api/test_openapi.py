"""The committed document is up to date and complete."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from openapi_spec_validator import validate

from api import document
from shared.users import SCOPES
from tests.api.documented import operations

ROOT = Path(__file__).parent.parent.parent


def test_the_committed_document_is_fresh(built_app):
    assert (ROOT / "openapi.yaml").read_text() == document.as_yaml(built_app), "run `make openapi`"


def test_the_document_is_valid(built_app):
    validate(yaml.safe_load(document.as_yaml(built_app)))


def test_every_route_documents_its_scope_and_errors(built_app):
    for path, method, operation in operations(document.document(built_app)):
        where = f"{method} {path}"
        assert operation["summary"], where
        assert "security" in operation, where
        if operation["security"]:
            assert {"401", "429"} <= {str(status) for status in operation["responses"]}, where
            assert operation["x-scope"] in ("", *SCOPES), where
        else:
            assert not path.startswith("/v1"), where


def test_every_route_of_the_app_is_in_the_document(built_app):
    documented = {path for path, _, _ in operations(document.document(built_app))}
    for rule in built_app.url_map.iter_rules():
        if rule.rule.startswith("/v1"):
            assert re.sub(r"<(?:[^:<>]+:)?([^<>]+)>", r"{\1}", rule.rule) in documented


def test_dictionaries_say_how_many_pairs_they_take_and_which_names(built_app):
    schemas = document.plain_document(built_app)["components"]["schemas"]
    framings = schemas["RoundPlan"]["properties"]["framings"]
    assert (framings["minProperties"], framings["maxProperties"]) == (1, 3)
    assert framings["propertyNames"] == {"$ref": "#/components/schemas/Framing"}
    metadata = schemas["NewProject"]["properties"]["metadata"]
    assert metadata["maxProperties"] == 16
    assert metadata["propertyNames"]["maxLength"] == 64


def test_only_texts_have_bounds_of_texts(built_app):
    def wrong(part: object) -> bool:
        if isinstance(part, list):
            return any(map(wrong, part))
        if not isinstance(part, dict):
            return False
        of_text = "minLength" in part or "maxLength" in part or "pattern" in part
        if "pattern" in part and r"\Z" in part["pattern"]:  # Python's own
            return True
        return (of_text and "string" not in part.get("type", "string")) or any(map(wrong, part.values()))

    assert not wrong(document.plain_document(built_app)["components"]["schemas"])
