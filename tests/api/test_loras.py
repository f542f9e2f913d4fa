"""LoRAs that users bring: taken in, shown, drawn with, counted and deleted."""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from shared import inventory, reconcile
from shared.catalog import BaseModel
from shared.models import ImportedLora, Job, Project
from tests.api.bodies import PROJECT
from tests.api.conftest import Caller
from tests.factories import make_curating
from tests.lora_files.made import Tensors, attention, kohya_name, lora, safetensors, some

CHIBI = lora(attention("chibi"))
SD15 = lora(attention("sd15"))
METADATA = {
    "modelspec.title": "Fox girl",
    "modelspec.trigger_phrase": "f0x girl",
    "modelspec.license": "CC0-1.0",
    "ss_sd_model_name": "chibi.safetensors",
}


def bring(caller: Caller, content: bytes, filename: str = "fox.safetensors", **form: str) -> Any:
    return caller.post("/v1/loras", data={"file": (io.BytesIO(content), filename), **form})


def file_of(tensors: Tensors, metadata: Mapping[str, str] | None = None, **values: bytes) -> bytes:
    return safetensors(tensors, metadata, values)


@pytest.fixture
def brought(ada: Caller) -> dict[str, Any]:
    answer = bring(ada, file_of(CHIBI, METADATA))
    assert answer.status_code == 201, answer.json
    return answer.json


def test_a_lora_is_shown_as_its_file_names_it(ada: Caller, brought: dict[str, Any], runtime: Any) -> None:
    content = file_of(CHIBI, METADATA)
    assert (brought["source"], brought["family"], brought["kinds"], brought["rank"]) == (
        "imported",
        "chibi",
        ["lora"],
        2,
    )
    assert (brought["name"], brought["trigger_word"], brought["license"]) == ("Fox girl", "f0x girl", "CC0-1.0")
    assert brought["base_model"] == "chibi.safetensors"
    assert brought["parts"] == {"unet": 56, "text_encoder": 8}
    assert (brought["project_id"], brought["job_id"], brought["train_steps"]) == (None, None, None)
    assert list(brought["links"]) == ["self"]
    original = brought["files"]["original"]
    assert original["sha256"] == hashlib.sha256(content).hexdigest()
    assert (original["filename"], original["size_bytes"]) == ("fox.safetensors", len(content))
    (stored,) = runtime.storage.list("imported-loras/")
    assert runtime.storage.get_bytes(stored.key) == content
    shown = ada.get(f"/v1/loras/{brought['id']}").json
    assert shown.keys() == brought.keys()
    assert [each["id"] for each in ada.get("/v1/loras").json["items"]] == [brought["id"]]


def test_its_owner_names_it_otherwise(ada: Caller) -> None:
    said = {"name": "Foxy", "trigger_word": "foxy", "license": "ours"}
    assert bring(ada, file_of(CHIBI, METADATA), **said).json.items() >= said.items()


def test_a_family_that_the_file_leaves_open_is_said(ada: Caller) -> None:
    open_ = file_of(lora(some("sd15", "attn1.to_q")))
    refused = bring(ada, open_)
    assert (refused.status_code, refused.json["code"]) == (422, "family_unclear")
    assert bring(ada, open_, family="sd2").json["family"] == "sd2"
    assert bring(ada, open_, family="flux").status_code == 422


def test_the_same_bytes_are_kept_once(ada: Caller, bob: Caller, brought: dict[str, Any], runtime: Any) -> None:
    again = bring(ada, file_of(CHIBI, METADATA), "another-name.safetensors")
    assert (again.status_code, again.json["id"]) == (200, brought["id"])
    assert len(list(runtime.storage.list("imported-loras/"))) == 1
    assert bring(bob, file_of(CHIBI, METADATA)).json["id"] != brought["id"]


def test_a_lora_is_nobody_else_s(ada: Caller, bob: Caller, brought: dict[str, Any]) -> None:
    project_id = bob.post("/v1/projects", PROJECT).json["id"]
    path = f"/v1/loras/{brought['id']}"
    assert bob.get("/v1/loras").json["items"] == []
    for answer in (bob.get(path), bob.delete(path), draw(bob, project_id, brought["id"])):
        assert (answer.status_code, answer.json["code"]) == (404, "not_found")
    assert ada.get(path).status_code == 200


def draw(caller: Caller, project_id: str, lora_id: str) -> Any:
    body = {"pictures": [{"prompt": "1girl", "seed": 1}], "loras": [{"lora_id": lora_id, "weight": 0.5}]}
    return caller.post(f"/v1/projects/{project_id}/generations", body)


def test_it_is_drawn_with_where_the_family_is_the_same(
    ada: Caller, brought: dict[str, Any], session_of: Callable[[], Any]
) -> None:
    project_id = ada.post("/v1/projects", PROJECT).json["id"]
    job_id = draw(ada, project_id, brought["id"]).json["id"]
    with session_of() as session:
        (given,) = session.get_one(Job, job_id).inputs["loras"]
        row = session.get_one(ImportedLora, brought["id"])
        assert given.items() >= {"id": row.id, "key": row.key, "sha256": row.sha256, "weight": 0.5}.items()
    other = bring(ada, file_of(SD15)).json
    refused = draw(ada, project_id, other["id"])
    assert (refused.status_code, refused.json["code"]) == (409, "wrong_base_model")
    assert "sd15" in refused.json["detail"]
    with session_of() as session:
        mine = BaseModel(name="mine", family="sd15", path="/nowhere", resolution=512)
        inventory.report(session, "gpu@one", {"mine": mine})
    project = ada.post("/v1/projects", PROJECT | {"base_model": "mine"}).json
    assert draw(ada, project["id"], other["id"]).status_code == 202


def test_candidates_are_drawn_with_it_beside_the_round_s_own(
    ada: Caller, brought: dict[str, Any], session_of: Callable[[], Any]
) -> None:
    with session_of() as session:
        project, round_ = make_curating(session, ada.user_id)
        own = round_.lora_id
    path = f"/v1/projects/{project.id}/rounds/1/candidates"
    wanted = {"count": 2, "loras": [{"lora_id": brought["id"], "weight": 0.3}]}
    assert ada.post(f"{path}?dry_run=true", wanted).status_code == 200
    job_id = ada.post(path, wanted).json["id"]
    with session_of() as session:
        given = session.get_one(Job, job_id).inputs["loras"]
    assert [(each["id"], each["weight"]) for each in given] == [(own, 0.5), (brought["id"], 0.3)]
    other = bring(ada, file_of(SD15)).json["id"]
    for query in ("", "?dry_run=true"):
        refused = ada.post(path + query, {"count": 2, "loras": [{"lora_id": other}]})
        assert (refused.status_code, refused.json["code"]) == (409, "wrong_base_model")
    with session_of() as session:
        session.get_one(Project, project.id).base_model = "gone"
    for query in ("", "?dry_run=true"):
        refused = ada.post(path + query, wanted)
        assert (refused.status_code, refused.json["code"]) == (422, "unknown_base_model")


def test_it_is_not_deleted_while_a_job_draws_with_it(ada: Caller, brought: dict[str, Any], runtime: Any) -> None:
    project_id = ada.post("/v1/projects", PROJECT).json["id"]
    job_id = draw(ada, project_id, brought["id"]).json["id"]
    path = f"/v1/loras/{brought['id']}"
    refused = ada.delete(path)
    assert (refused.status_code, refused.json["code"]) == (409, "lora_in_use")
    assert job_id in refused.json["detail"]
    ada.post(f"/v1/jobs/{job_id}/cancel")
    assert ada.delete(path).status_code == 204
    assert (ada.get(path).status_code, ada.delete(path).status_code) == (404, 404)
    assert list(runtime.storage.list("imported-loras/")) == []


def test_its_bytes_count(ada: Caller, brought: dict[str, Any]) -> None:
    size_bytes = brought["files"]["original"]["size_bytes"]
    assert ada.get("/v1/me").json["usage"]["stored_bytes"] == size_bytes
    ada.delete(f"/v1/loras/{brought['id']}")
    assert ada.get("/v1/me").json["usage"]["stored_bytes"] == 0


@pytest.mark.parametrize("settings", [{"max_stored_bytes_per_user": 10}])
def test_no_more_bytes_than_allowed_are_taken(ada: Caller, brought: dict[str, Any]) -> None:
    refused = bring(ada, file_of(SD15))
    assert (refused.status_code, refused.json["code"]) == (409, "too_many_stored_bytes")


def test_its_object_is_no_orphan(brought: dict[str, Any], runtime: Any) -> None:
    found = reconcile.compare(runtime, grace_seconds=0, read=True)
    assert (found.objects, found.missing, found.damaged, found.orphans) == (1, [], [], [])


NAN = {f"{kohya_name(attention('chibi')[0])}.alpha": struct.pack("<f", float("nan"))}
BAD = {
    "a pickle under another name": (b"PK\x03\x04" + bytes(100), "not_safetensors", "pickle"),
    "a web page": (b"<!doctype html><title>Log in</title>", "not_safetensors", "web page"),
    "nothing": (b"", "not_safetensors", "empty"),
    "half of it": (file_of(CHIBI)[:-1000], "not_safetensors", "truncated"),
    "a checkpoint": (file_of({"model.diffusion_model.x.weight": ("F16", (2, 2))}), "not_a_lora", "checkpoint"),
    "an embedding": (file_of({"emb_params": ("F16", (2, 768))}), "not_a_lora", "embedding"),
    "a NaN": (file_of(CHIBI, METADATA, **NAN), "not_finite", "infinite or NaN"),
    "a shape that lies": (
        file_of(CHIBI | {next(iter(CHIBI)): ("F16", (2, 9))}),
        "lora_does_not_fit",
        next(iter(CHIBI)).partition(".")[0],
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_what_can_t_be_used_is_refused_by_name_and_leaves_nothing(ada: Caller, runtime: Any, what: str) -> None:
    content, code, words = BAD[what]
    refused = bring(ada, content)
    assert (refused.status_code, refused.json["code"]) == (422, code), refused.json
    assert "fox.safetensors" in refused.json["detail"]
    assert words in refused.json["detail"]
    assert ada.get("/v1/loras").json["items"] == []
    assert list(runtime.storage.list("imported-loras/")) == []


@pytest.mark.parametrize("length", [20_000_000, 1 << 32, (1 << 63) + 5])
def test_a_header_of_gigabytes_is_not_read(ada: Caller, length: int) -> None:
    refused = bring(ada, struct.pack("<Q", length) + b'{"a":' + bytes(1000))
    assert (refused.status_code, refused.json["code"]) == (413, "lora_header_too_large")


@pytest.mark.parametrize("settings", [{"max_lora_bytes": 3_000_000, "max_upload_bytes": 1_000}])
def test_a_lora_may_be_larger_than_a_picture_and_no_larger_than_a_lora(ada: Caller) -> None:
    limits = ada.get("/v1/limits").json
    assert (limits["max_lora_bytes"], limits["max_lora_header_bytes"]) == (3_000_000, 16_000_000)
    assert bring(ada, file_of(SD15)).status_code == 201
    assert bring(ada, bytes(3_050_000)).json["code"] == "lora_too_large"
    assert bring(ada, bytes(4_000_000)).status_code == 413


def test_what_a_stranger_s_file_says_of_itself_is_cleaned(ada: Caller) -> None:
    metadata = {"modelspec.title": "a\x00b\n\u202ec" + "d" * 5_000, "modelspec.trigger_phrase": "\u200b"}
    found = bring(ada, file_of(CHIBI, metadata), "../../../etc/pass wd").json
    assert found["name"].startswith("a b cd")
    assert len(found["name"]) == 200
    assert found["trigger_word"] == ""
    assert found["files"]["original"]["filename"] == "pass-wd.safetensors"


def test_a_trained_lora_is_not_deleted_alone(ada: Caller, session_of: Callable[[], Any]) -> None:
    with session_of() as session:
        _, round_ = make_curating(session, ada.user_id)
        lora_id = round_.lora_id
    refused = ada.delete(f"/v1/loras/{lora_id}")
    assert (refused.status_code, refused.json["code"]) == (409, "lora_of_a_project")
    assert ada.get(f"/v1/loras/{lora_id}").json["source"] == "trained"


def test_a_repeated_request_brings_one_lora(ada: Caller) -> None:
    key = {"headers": {"Idempotency-Key": "once"}}
    data = lambda: {"file": (io.BytesIO(file_of(CHIBI)), "fox.safetensors")}  # noqa: E731
    first, second = (ada.post("/v1/loras", data=data(), **key) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json["id"] == second.json["id"]
