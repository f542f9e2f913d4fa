"""What a base model's licence allows, and what it means for projects, LoRAs and exports."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shared import inventory
from shared.catalog import BASE_MODELS
from shared.catalog.kinds import Terms
from shared.models import Project
from tests.api.bodies import PROJECT
from tests.factories import make_image, make_lora, make_project, make_round


@pytest.fixture(autouse=True)
def models(session_of):
    """Base models that are named by their terms."""
    with session_of() as session:
        report(
            session, {use: {"commercial_use": use, "license": f"the {use} licence"} for use in ("no", "ask", "unknown")}
        )


def report(session, models):
    inventory.report(
        session, "gpu@one", {name: replace(BASE_MODELS["chibi"], name=name, **of) for name, of in models.items()}
    )


def test_commercial_use_is_refused_where_the_licence_forbids_it(ada):
    body = PROJECT | {"base_model": "no"}
    for path in ("/v1/projects", "/v1/projects?dry_run=true"):
        answer = ada.post(path, body | {"intended_use": "commercial"})
        assert (answer.status_code, answer.json["code"]) == (422, "license_forbids")
        assert "the no licence" in answer.json["detail"]
    for use in ("non_commercial", None):
        assert ada.post("/v1/projects", body | {"intended_use": use}).status_code == 201


@pytest.mark.parametrize(
    ("base_model", "codes"), [("ask", ["license_asks"]), ("unknown", ["license_unknown"]), ("chibi", [])]
)
def test_what_a_licence_does_not_simply_allow_is_warned_of(ada, base_model, codes):
    body = PROJECT | {"base_model": base_model, "intended_use": "commercial"}
    made = ada.post("/v1/projects", body).json
    assert [each["code"] for each in made["warnings"]] == codes
    assert [each["code"] for each in ada.post("/v1/projects?dry_run=true", body).json["warnings"]] == codes
    assert ada.post("/v1/projects", body | {"intended_use": None}).json["warnings"] == []


def test_a_change_is_checked_as_a_new_project_is(ada):
    made = ada.post("/v1/projects", PROJECT | {"base_model": "no"}).json
    path = f"/v1/projects/{made['id']}"
    assert ada.patch(path, {"intended_use": "commercial"}).json["code"] == "license_forbids"
    assert ada.get(path).json["intended_use"] is None
    assert ada.patch(path, {"intended_use": "commercial", "base_model": "chibi"}).status_code == 200
    assert ada.patch(path, {"base_model": "no"}).json["code"] == "license_forbids"
    assert ada.get(path).json["base_model"] == "chibi"


@pytest.mark.parametrize("what", ["start", "generations", "rounds"])
def test_a_licence_that_forbids_it_by_now_stops_what_comes_next(ada, session_of, what):
    made = ada.post("/v1/projects", PROJECT | {"base_model": "ask", "intended_use": "commercial"}).json
    with session_of() as session:
        report(session, {"ask": {"commercial_use": "no"}})
        if what == "rounds":
            project = session.get_one(Project, made["id"])
            project.state = "completed"
            make_round(session, project, state="completed")
    body = {"generations": {"pictures": [{"prompt": "1girl"}]}, "rounds": {"kind": "character"}}.get(what)
    assert ada.post(f"/v1/projects/{made['id']}/{what}", body).json["code"] == "license_forbids"
    assert [each["code"] for each in ada.get(f"/v1/projects/{made['id']}").json["warnings"]] == ["license_forbids"]


def test_a_lora_inherits_the_terms_of_its_base_model(ada, session_of):
    terms = Terms(license="by mail", commercial_use="ask", hosting="no", base_sha256="a" * 64)
    with session_of() as session:
        round_ = make_round(session, make_project(session, ada.user_id))
        lora, old = make_lora(session, round_, terms=terms), make_lora(session, round_)
    assert ada.get(f"/v1/loras/{lora.id}").json["terms"] == {
        "license": "by mail", "commercial_use": "ask", "hosting": "no", "base_sha256": "a" * 64
    }  # fmt: skip
    assert ada.get(f"/v1/loras/{old.id}").json["terms"] is None


def test_an_exported_dataset_inherits_them_too(ada, runtime, session_of):
    with session_of() as session:
        project = make_project(session, ada.user_id)
        project.base_model = "no"
        make_image(session, project, key="picture")
    runtime.storage.put_bytes("picture", b"content")
    exported = ada.post(f"/v1/projects/{project.id}/exports", {}).json
    assert (exported["terms"]["license"], exported["terms"]["commercial_use"]) == ("the no licence", "no")
