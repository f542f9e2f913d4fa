"""A request that is repeated with the same Idempotency-Key has no second effect."""

from __future__ import annotations

import io
import threading

import pytest

from shared.models import IdempotencyKey, Job, Project
from tests.api.bodies import PROJECT
from tests.api.conftest import ON_BOTH
from tests.factories import make_project, png

pytestmark = ON_BOTH

KEY = {"Idempotency-Key": "once"}


def test_a_repeated_request_gets_the_first_answer(ada):
    first = ada.post("/v1/projects", PROJECT, headers=KEY)
    again = ada.post("/v1/projects", dict(reversed(PROJECT.items())), headers=KEY)
    assert again.status_code == first.status_code == 201
    assert again.json == first.json
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.headers["Location"] == first.headers["Location"]
    assert again.headers["ETag"] == first.headers["ETag"]
    assert "Idempotent-Replayed" not in first.headers
    assert len(ada.get("/v1/projects").json["items"]) == 1


def test_the_same_key_with_another_request_is_refused(ada):
    ada.post("/v1/projects", PROJECT, headers=KEY)
    answer = ada.post("/v1/projects", PROJECT | {"name": "Other"}, headers=KEY)
    assert (answer.status_code, answer.json["code"]) == (422, "idempotency_key_reused")


def test_a_key_belongs_to_one_user_and_one_route(ada, bob):
    first = ada.post("/v1/projects", PROJECT, headers=KEY)
    assert bob.post("/v1/projects", PROJECT, headers=KEY).json["id"] != first.json["id"]
    assert ada.post("/v1/keys", {"name": "x"}, headers=KEY).status_code == 201


def test_another_api_key_is_not_given_the_answer(ada):
    """Which may show what that one may not see."""
    made = ada.post("/v1/keys", {"name": "x", "scopes": ["keys:write"]}, headers=KEY)
    other = ada.client.post(
        "/v1/keys", json={"name": "x"}, headers=KEY | {"Authorization": f"Bearer {made.json['key']}"}
    )
    assert (other.status_code, other.json["code"]) == (422, "idempotency_key_reused")


@pytest.mark.parametrize("key", ["", "x" * 256, "a b"])
def test_a_bad_key_is_refused(ada, key):
    answer = ada.post("/v1/projects", PROJECT, headers={"Idempotency-Key": key})
    assert (answer.status_code, answer.json["code"]) == (400, "bad_idempotency_key")


def test_a_refusal_is_not_kept(ada, session_of):
    assert ada.post("/v1/projects", PROJECT | {"trigger_word": "solo"}, headers=KEY).status_code == 422
    assert ada.post("/v1/projects", PROJECT, headers=KEY).status_code == 201


def test_a_repeated_upload_may_have_another_boundary(ada, runtime):
    project_id = ada.post("/v1/projects", PROJECT).json["id"]

    def send(content: bytes):
        data = {"file": (io.BytesIO(content), "x.png"), "view": "front"}
        return ada.post(f"/v1/projects/{project_id}/images", data=data, headers=KEY)

    first = send(png())
    assert send(png()).json["id"] == first.json["id"]
    assert send(png(color="red")).json["code"] == "idempotency_key_reused"
    assert len(list(runtime.storage.list("projects/"))) == 1


def test_a_fresh_api_key_is_not_kept_readable(ada, session_of):
    made = ada.post("/v1/keys", {"name": "x"}, headers=KEY).json["key"]
    with session_of() as session:
        assert made not in (session.query(IdempotencyKey).one().body or "")
    assert ada.post("/v1/keys", {"name": "x"}, headers=KEY).json["key"] == made


def test_one_of_many_simultaneous_requests_is_done(app, ada, session_of):
    with session_of() as session:
        project_id = make_project(session, ada.user_id).id
    body = {"pictures": [{"prompt": "eiei21girl"}]}
    answers = []

    def send() -> None:
        headers = {"Authorization": f"Bearer {ada.key}", **KEY}
        answers.append(app.test_client().post(f"/v1/projects/{project_id}/generations", json=body, headers=headers))

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json["id"] for answer in answers}) == 1
    assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) == 1
    with session_of() as session:
        assert session.query(Job).count() == 1


def test_key_and_effect_are_written_together(ada, session_of, monkeypatch):
    def broken(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("api.idempotency.keep", broken)
    assert ada.post("/v1/projects", PROJECT, headers=KEY).status_code == 500
    with session_of() as session:
        assert session.query(Project).count() == session.query(IdempotencyKey).count() == 0
