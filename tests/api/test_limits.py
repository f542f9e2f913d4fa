"""Limits of requests, and caps of what a user may store."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from api import auth
from api.limits import Limiter
from shared.models import Lora
from tests.api.bodies import PROJECT
from tests.api.conftest import Caller
from tests.factories import make_curating, make_image, make_lora, make_project, png


@pytest.mark.parametrize("settings", [{"requests_per_minute": 3, "submits_per_minute": 1}])
def test_the_requests_of_a_user_are_limited(ada, bob):
    first = ada.get("/v1/projects")
    assert first.headers["RateLimit-Policy"] == '"requests";q=3;w=60'
    policy, left, resets_in = first.headers["RateLimit"].split(";")
    assert (policy, left) == ('"requests"', "r=2")
    assert 1 <= int(resets_in.removeprefix("t=")) <= 60
    ada.get("/v1/projects")
    ada.get("/v1/projects")
    refused = ada.get("/v1/projects")
    assert (refused.status_code, refused.json["code"]) == (429, "rate_limited")
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert bob.get("/v1/projects").status_code == 200


@pytest.mark.parametrize("settings", [{"requests_per_minute": 3}])
def test_all_keys_of_a_user_count_together(app, ada):
    keys = [Caller(app.test_client(), ada.post("/v1/keys", {"name": "x"}).json["key"], ada.user_id) for _ in range(2)]
    assert keys[0].get("/v1/me").status_code == 200
    assert {each.get("/v1/me").json["code"] for each in (*keys, ada)} == {"rate_limited"}


@pytest.mark.parametrize("settings", [{"submits_per_minute": 1}])
def test_submits_are_counted_separately(ada):
    assert ada.post("/v1/projects", PROJECT).status_code == 201
    refused = ada.post("/v1/projects", PROJECT)
    assert (refused.status_code, refused.json["code"]) == (429, "rate_limited")
    assert ada.get("/v1/projects").status_code == 200


@pytest.mark.parametrize("settings", [{"requests_per_minute": 2}])
def test_requests_with_wrong_keys_are_limited_too(app):
    client = app.test_client()
    statuses = [client.get("/v1/me", headers={"Authorization": "Bearer x"}).status_code for _ in range(4)]
    assert statuses == [401, 401, 429, 429]


@pytest.mark.parametrize("settings", [{"broker_url": "redis://127.0.0.1:1/0", "requests_per_minute": 1}])
def test_without_redis_each_process_counts_for_itself(runtime, app, ada):
    app.extensions["bootlora.limiter"] = Limiter(runtime.settings)
    assert ada.get("/v1/projects").status_code == 200
    assert ada.get("/v1/projects").status_code == 429


@pytest.mark.servers
def test_all_processes_count_together(app, ada, runtime, valkey_url):
    settings = replace(runtime.settings, broker_url=valkey_url, requests_per_minute=3)
    first, second = Limiter(settings), Limiter(settings)
    for limiter in (first, second, first):
        app.extensions["bootlora.limiter"] = limiter
        assert ada.get("/v1/projects").status_code == 200
    app.extensions["bootlora.limiter"] = second
    assert ada.get("/v1/projects").status_code == 429


@pytest.mark.parametrize("settings", [{"submits_per_minute": 1}])
def test_a_submit_is_one_whatever_its_content_type_says(ada):
    path = f"/v1/projects/{ada.post('/v1/projects', PROJECT).json['id']}/cancel"
    refused = ada.post(path, data=b"", headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert (refused.status_code, refused.json["code"]) == (429, "rate_limited")


class Watching(io.BytesIO):
    """A body that counts the connections which are held while it comes."""

    def __init__(self, body: bytes, engine: Any):
        super().__init__(body)
        self.engine, self.held = engine, 0

    def readinto(self, buffer: Any) -> int:
        self.held = max(self.held, self.engine.pool.checkedout())
        return super().readinto(buffer)


def test_a_slow_body_holds_no_connection(ada, runtime):
    ada.get("/v1/projects")  # which notes that the key is in use
    auth.forget()
    body = Watching(json.dumps(PROJECT).encode(), runtime.db.engine)
    length = {"Content-Length": str(len(body.getvalue()))}
    made = ada.answer("POST", "/v1/projects", input_stream=body, content_type="application/json", headers=length)
    assert (made.status_code, body.held) == (201, 0)


@pytest.mark.parametrize("settings", [{"max_keys_per_user": 2}])
def test_the_valid_keys_of_a_user_are_limited(ada, admin, bob):
    second = ada.post("/v1/keys", {"name": "second"}).json
    refused = ada.post("/v1/keys", {"name": "third"})
    assert (refused.status_code, refused.json["code"]) == (409, "too_many_keys")
    assert admin.post(f"/v1/users/{ada.user_id}/keys", {"name": "third"}).json["code"] == "too_many_keys"
    assert bob.post("/v1/keys", {"name": "second"}).status_code == 201
    ada.delete(f"/v1/keys/{second['id']}")
    assert ada.post("/v1/keys", {"name": "third"}).status_code == 201


@pytest.mark.parametrize("settings", [{"max_projects_per_user": 1}])
def test_the_projects_of_a_user_are_limited(ada, bob):
    path = f"/v1/projects/{ada.post('/v1/projects', PROJECT).json['id']}"
    for address in ("/v1/projects", "/v1/projects?dry_run=true"):
        refused = ada.post(address, PROJECT)
        assert (refused.status_code, refused.json["code"]) == (409, "too_many_projects")
    assert bob.post("/v1/projects", PROJECT).status_code == 201
    assert ada.delete(path).status_code == 204
    assert ada.post("/v1/projects", PROJECT).status_code == 201


@pytest.fixture
def hoarder(ada, session_of, runtime) -> dict[str, str]:
    """Ada has a draft and a finished project, and exactly as many bytes as allowed. The addresses of her things."""
    with session_of() as session:
        project, round_ = make_curating(session, ada.user_id)
        lora, image = make_lora(session, round_), make_image(session, make_project(session, ada.user_id))
        project.state = round_.state = "completed"
    runtime.settings = replace(runtime.settings, max_stored_bytes_per_user=stored_bytes(ada))
    draft = f"/v1/projects/{image.project_id}"
    generation = {"pictures": [{"prompt": "x"}], "loras": [{"lora_id": lora.id}]}
    return {"draft": draft, "image": f"/v1/images/{image.id}", "done": f"/v1/projects/{project.id}", "body": generation}


def stored_bytes(caller: Caller) -> int:
    return caller.get("/v1/me").json["usage"]["stored_bytes"]


def test_the_stored_bytes_of_a_user_are_limited(ada, bob, hoarder, runtime):
    file = {"file": (io.BytesIO(png()), "x.png")}
    refused = [
        ada.post(f"{hoarder['draft']}/images", data=file),
        ada.post(f"{hoarder['draft']}/start"),
        ada.post(f"{hoarder['image']}/crops", {"mode": "auto"}),
        ada.post(f"{hoarder['done']}/generations", hoarder["body"]),
    ]
    assert [(each.status_code, each.json["code"]) for each in refused] == [(409, "too_many_stored_bytes")] * 4
    assert ada.delete(hoarder["done"]).status_code == 204
    assert stored_bytes(ada) < runtime.settings.max_stored_bytes_per_user
    assert ada.post(f"{hoarder['draft']}/images", data={"file": (io.BytesIO(png()), "x.png")}).status_code == 201


@pytest.mark.parametrize("database_url", ["sqlite", pytest.param("postgres", marks=pytest.mark.servers)], indirect=True)
def test_stored_bytes_are_those_of_pictures_and_of_both_files_of_a_lora(ada, session_of):
    assert stored_bytes(ada) == 0
    with session_of() as session:
        _, round_ = make_curating(session, ada.user_id)
        before = session.scalars(select(Lora)).all()
        session.flush()
        lora = make_lora(session, round_)
    ours = ada.get("/v1/me").json["usage"]
    files = [file["size_bytes"] for each in (*before, lora) for file in each.files.values()]
    assert ours["stored_bytes"] == ours["image_bytes"] + sum(files) > ours["image_bytes"] > 0
