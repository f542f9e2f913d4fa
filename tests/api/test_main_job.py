"""The usual way of a client: from a picture to running rounds."""

from __future__ import annotations

import io
import json
import socket
import time
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.event import listen

from api import auth, document
from shared import inventory, users
from shared.catalog import BASE_MODELS
from shared.errors import Unavailable
from shared.models import ApiKey, Job
from shared.outside.db import utcnow
from tests.api.bodies import PROJECT, upload
from tests.api.conftest import ON_BOTH
from tests.api.documented import operations
from tests.factories import make_curating, make_failed, make_image, make_job, make_lora, make_project, make_round, png
from tests.waiting import eventually

pytestmark = ON_BOTH


def test_a_project_goes_from_pictures_to_training(ada, runtime):
    created = ada.post("/v1/projects", PROJECT)
    assert created.status_code == 201, created.json
    project = created.json
    assert created.headers["Location"] == project["links"]["self"]
    assert [each["kind"] for each in project["plan"]["rounds"]] == ["style", "style", "character"]

    for view in ("front", "side", "behind", "above"):
        answer = upload(ada, project["id"], view=view, framing="full_body", tags="sword, smile")
        assert answer.status_code == 201, answer.json
        assert answer.json["url"].startswith("file://")
    assert "yellow eyes" not in ada.get(f"/v1/projects/{project['id']}/images").json["items"][2]["tags"]

    started = ada.post(f"/v1/projects/{project['id']}/start")
    assert started.status_code == 202, started.json
    assert started.json["state"] == "running"
    jobs = ada.get(f"/v1/jobs?project_id={project['id']}").json["items"]
    assert [(job["kind"], job["state"], job["place"]) for job in jobs] == [("train", "queued", 0)]
    rounds = ada.get(f"/v1/projects/{project['id']}/rounds").json["items"]
    assert [round_["state"] for round_ in rounds] == ["training", "pending", "pending"]
    assert rounds[0]["dataset"][0]["captions"][0].startswith("eiei21girl, 1girl, solo, fox ears")
    events = ada.get(f"/v1/projects/{project['id']}/events").json["items"]
    assert [event["data"]["seq"] for event in events] == list(range(1, len(events) + 1))


def test_a_picture_is_cropped_by_a_job(ada):
    project_id = ada.post("/v1/projects", PROJECT).json["id"]
    image = upload(ada, project_id).json
    answer = ada.post(f"/v1/images/{image['id']}/crops", {"mode": "quadrants"})
    assert answer.status_code == 202, answer.json
    assert answer.json["kind"] == "crop"
    assert answer.headers["Location"].endswith(answer.json["id"])


def test_a_round_is_curated_and_finished(ada, session_of):
    with session_of() as session:
        project, _ = make_curating(session, ada.user_id, candidates=14)
        make_round(session, project, number=2, state="pending")
    path = f"/v1/projects/{project.id}/rounds/1"
    shown = ada.get(path)
    waiting = shown.json["decisions"]["pending"]
    assert shown.json["counts"] == {"accepted": 0, "pending": 14, "rejected": 0, "dataset": 4, "missing": 12}

    body = {"accepted": waiting[:11], "rejected": waiting[11:12]}
    decided = ada.put(f"{path}/decisions", body, if_match=shown.headers["ETag"])
    assert decided.status_code == 200, decided.json
    assert decided.json["counts"]["missing"] == 1
    assert ada.change("POST", f"{path}/finish", {}).json["code"] == "too_few_accepted"

    file = {"file": (io.BytesIO(png(color="red")), "x.png")}
    edited = ada.change("POST", f"/v1/images/{waiting[12]}/versions", None, data=file)
    assert edited.status_code == 201, edited.json
    assert (edited.json["source"], edited.json["decision"]) == ("edited", "accepted")

    finished = ada.change("POST", f"{path}/finish", None)
    assert finished.status_code == 202, finished.json
    assert finished.json["state"] == "completed"
    assert ada.get(f"/v1/projects/{project.id}/rounds/2").json["state"] == "training"


def test_more_candidates_are_drawn_when_asked_for(ada, session_of):
    with session_of() as session:
        project, _ = make_curating(session, ada.user_id)
    answer = ada.post(f"/v1/projects/{project.id}/rounds/1/candidates", {"count": 5, "views": ["behind"]})
    assert answer.status_code == 202, answer.json
    assert answer.json["kind"] == "generate"
    assert len(ada.get(f"/v1/projects/{project.id}/rounds/1/candidates").json["items"]) == 3


def test_one_candidate_is_decided_about(ada, session_of):
    with session_of() as session:
        project, _ = make_curating(session, ada.user_id)
    image = ada.get(f"/v1/projects/{project.id}/images?role=candidate&round=1").json["items"][0]
    answer = ada.patch(f"/v1/images/{image['id']}", {"decision": "accepted", "tags": ["Smile_big", "from side"]})
    assert answer.json["decision"] == "accepted"
    assert answer.json["tags"] == ["smile big", "from side"]


def test_pictures_are_drawn_with_several_loras(ada, session_of):
    with session_of() as session:
        project, round_ = make_curating(session, ada.user_id)
        lora = make_lora(session, round_)
    body = {
        "pictures": [{"prompt": "eiei21girl, from behind", "seed": 7, "count": 2}],
        "loras": [{"lora_id": lora.id, "weight": 0.8}],
        "params": {"width": 64, "inference_steps": 4},
        "metadata": {"asset": "eiei-7"},
    }
    answer = ada.post(f"/v1/projects/{project.id}/generations", body)
    assert answer.status_code == 202, answer.json
    assert answer.json["params"]["inference_steps"] == 4
    assert ada.get("/v1/jobs?metadata.asset=eiei-7").json["items"][0]["id"] == answer.json["id"]
    assert ada.get("/v1/jobs?metadata.asset=other").json["items"] == []
    assert ada.get(f"/v1/jobs/{answer.json['id']}/images").json["items"] == []

    cancelled = ada.post(f"/v1/jobs/{answer.json['id']}/cancel")
    assert (cancelled.status_code, cancelled.json["state"]) == (200, "cancelled")
    assert ada.post(f"/v1/jobs/{answer.json['id']}/cancel").status_code == 200


def test_loras_are_shown_with_links_to_their_files(ada, session_of):
    with session_of() as session:
        project, _ = make_curating(session, ada.user_id)
    lora = ada.get(f"/v1/projects/{project.id}/loras").json["items"][0]
    assert lora["files"]["kohya"]["filename"] == "x.safetensors"
    assert ada.get(f"/v1/loras/{lora['id']}").json["files"]["diffusers"]["url"].endswith("x.safetensors")


def test_a_project_is_changed_cancelled_and_deleted(ada, runtime):
    project = ada.post("/v1/projects", PROJECT).json
    path = f"/v1/projects/{project['id']}"
    image = upload(ada, project["id"]).json
    changed = ada.patch(path, {"feature_tags": ["Fox Tail"], "metadata": {"a": "b"}})
    assert (changed.json["feature_tags"], changed.json["metadata"]) == (["fox tail"], {"a": "b"})
    assert "fox tail" in ada.get(f"/v1/images/{image['id']}").json["tags"]
    assert list(runtime.storage.list(f"projects/{project['id']}/"))
    assert ada.post(f"{path}/cancel").json["state"] == "cancelled"
    assert ada.delete(path).status_code == 204
    assert ada.get(path).status_code == 404
    assert not list(runtime.storage.list(f"projects/{project['id']}/"))


def test_a_project_is_deleted_also_while_the_store_is_away(ada, runtime, monkeypatch):
    path = f"/v1/projects/{ada.post('/v1/projects', PROJECT).json['id']}"

    def away(prefix):
        raise Unavailable("the store is away")

    monkeypatch.setattr(runtime.storage, "delete_prefix", away)
    assert ada.delete(path).status_code == 204
    assert ada.get(path).status_code == 404


def test_a_failed_project_is_retried(ada, session_of):
    with session_of() as session:
        project, _ = make_failed(session, ada.user_id)
    answer = ada.post(f"/v1/projects/{project.id}/retry")
    assert (answer.status_code, answer.json["state"]) == (202, "running")
    assert ada.post(f"/v1/projects/{project.id}/retry").json["code"] == "not_failed"


def test_a_completed_project_is_reopened_with_another_round(ada, session_of):
    with session_of() as session:
        project, round_ = make_curating(session, ada.user_id)
        project.state, round_.state = "completed", "completed"
    answer = ada.post(f"/v1/projects/{project.id}/rounds", {"kind": "character", "train": {"train_steps": 10}})
    assert answer.status_code == 202, answer.json
    assert (answer.json["number"], answer.json["state"]) == (2, "training")


def test_an_added_style_round_says_how_many_pictures_more_it_gathers(ada, session_of):
    with session_of() as session:
        project, round_ = make_curating(session, ada.user_id)
        project.state, round_.state = "completed", "completed"
    path = f"/v1/projects/{project.id}/rounds"
    assert ada.post(path, {"kind": "style"}).json["code"] == "invalid_plan"
    assert ada.post(path, {"kind": "style", "target": 4}).json["code"] == "target_reached"
    assert ada.post(path, {"kind": "style", "target": 5}).status_code == 202


def test_another_base_model_keeps_the_values_of_the_plan(ada, runtime, session_of):
    with session_of() as session:
        inventory.report(session, "gpu@one", {"large": replace(BASE_MODELS["chibi"], name="large", resolution=256)})
    said = {"kind": "style", "target": 9, "train": {"rank": 5}, "candidates_per_pick": 2}
    made = ada.post("/v1/projects", PROJECT | {"plan": {"rounds": [said, {"kind": "character"}]}}).json
    changed = ada.patch(f"/v1/projects/{made['id']}", {"base_model": "large"}).json
    was, is_ = made["plan"]["rounds"][0], changed["plan"]["rounds"][0]
    assert is_["train"] == was["train"] | {"resolution": 256}
    assert is_ | {"train": 0, "generate": 0} == was | {"train": 0, "generate": 0}
    assert len(changed["plan"]["rounds"]) == 2


def test_a_dry_run_says_what_would_be_done_and_does_nothing(ada):
    answer = ada.post("/v1/projects?dry_run=true", PROJECT)
    assert answer.status_code == 200, answer.json
    assert [each["train_images"] for each in answer.json["rounds"]] == [4, 16, 40]
    assert [each["pictures"] for each in answer.json["rounds"]] == [48, 96, 12]
    assert ada.get("/v1/projects").json["items"] == []
    project_id = ada.post("/v1/projects", PROJECT).json["id"]
    assert ada.post(f"/v1/projects/{project_id}/start?dry_run=true").json["code"] == "too_few_references"


def test_a_job_is_waited_for(ada, session_of):
    with session_of() as session:
        job = make_job(session, make_project(session, ada.user_id))
    began = time.monotonic()
    answer = ada.get(f"/v1/jobs/{job.id}", headers={"Prefer": "respond-async, wait=1"})
    assert (answer.status_code, answer.json["state"]) == (200, "queued")
    assert time.monotonic() - began > 0.9


@pytest.fixture
def waiting(ada, session_of):
    """A job that runs, and the client's end of a connection on which a request waits for it."""
    with session_of() as session:
        job = make_job(session, make_project(session, ada.user_id), state="running")
    server, client = socket.socketpair()
    asked = {"headers": {"Prefer": "wait=30"}, "environ_overrides": {"gunicorn.socket": server}}
    assert ada.get(f"/v1/jobs/{job.id}", **asked).data == b""  # the server's thread is free again
    server.close()
    client.settimeout(20)
    yield job, client
    client.close()


def test_a_wait_is_answered_as_any_request_when_the_job_has_ended(ada, session_of, waiting):
    job, client = waiting
    with session_of() as session:
        session.get_one(Job, job.id).state = "succeeded"
    head, _, body = b"".join(iter(lambda: client.recv(65536), b"")).decode().partition("\r\n\r\n")
    status, *lines = head.split("\r\n")
    plain = ada.get(f"/v1/jobs/{job.id}")
    assert (status, json.loads(body)) == ("HTTP/1.1 200 OK", plain.json)
    headers = dict(line.split(": ", 1) for line in lines)
    assert headers.keys() == {*plain.headers.keys(), "Connection"}
    assert headers["ETag"] == plain.headers["ETag"]


def test_a_wait_counts_as_one_request(ada, session_of, waiting):
    job, client = waiting
    with session_of() as session:
        session.get_one(Job, job.id).state = "succeeded"
    head = client.recv(65536).decode()
    assert '"requests";r=599;' in head
    assert '"requests";r=598;' in ada.get(f"/v1/jobs/{job.id}").headers["RateLimit"]


def test_a_wait_ends_with_its_key(ada, runtime, session_of, waiting):
    job, client = waiting
    with runtime.transaction() as session:
        users.revoke(session, session.scalars(select(ApiKey).where(ApiKey.user_id == ada.user_id)).one())
    auth.forget()
    with session_of() as session:
        session.get_one(Job, job.id).state = "succeeded"
    assert client.recv(65536).startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("settings", [{"max_held_per_user": 1}])
def test_a_wait_ends_when_the_client_hangs_up(ada, waiting):
    job, client = waiting
    stream = f"/v1/jobs/{job.id}/events/stream"
    assert ada.get(stream).status_code == 429
    client.close()
    eventually(lambda: ada.get(stream).status_code == 200, seconds=10)


def test_a_wait_is_answered_when_the_process_ends(app, waiting):
    job, client = waiting
    app.extensions["bootlora.holder"].close()
    head, _, body = b"".join(iter(lambda: client.recv(65536), b"")).decode().partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 OK")
    assert (json.loads(body)["id"], json.loads(body)["state"]) == (job.id, "running")


def test_a_key_is_made_used_and_revoked(ada, app):
    made = ada.post("/v1/keys", {"name": "pipeline", "scopes": ["projects:read"]})
    assert made.status_code == 201, made.json
    headers = {"Authorization": f"Bearer {made.json['key']}"}
    assert app.test_client().get("/v1/projects", headers=headers).status_code == 200
    assert app.test_client().post("/v1/projects", json=PROJECT, headers=headers).json["code"] == "missing_scope"
    assert ada.post("/v1/keys", {"name": "x", "scopes": ["admin"]}).json["code"] == "missing_scope"
    assert ada.delete(f"/v1/keys/{made.json['id']}").status_code == 204
    assert app.test_client().get("/v1/projects", headers=headers).status_code == 401


def test_a_key_cannot_outlive_its_parent(app, ada):
    soon, later = (f"{utcnow() + timedelta(days=days):%Y-%m-%dT00:00:00Z}" for days in (2, 20))
    brief = ada.post("/v1/keys", {"name": "brief", "scopes": ["keys:write"], "expires_at": soon}).json
    headers = {"Authorization": f"Bearer {brief['key']}"}
    for asked in (None, later):
        made = app.test_client().post("/v1/keys", json={"name": "x", "expires_at": asked}, headers=headers)
        assert made.json["expires_at"] == brief["expires_at"], made.json


def test_an_admin_makes_users_and_keys(admin, ada):
    user = admin.post("/v1/users", {"name": "carl", "max_queued_jobs": 1})
    assert user.status_code == 201, user.json
    changed = admin.patch(f"/v1/users/{user.json['id']}", {"max_running_jobs": 4})
    assert (changed.json["max_queued_jobs"], changed.json["max_running_jobs"]) == (1, 4)
    key = admin.post(f"/v1/users/{user.json['id']}/keys", {"name": "first"})
    assert key.json["key"].startswith("btl_")
    assert ada.get("/v1/users").json["code"] == "missing_scope"
    assert admin.patch(f"/v1/users/{admin.user_id}", {"role": "member"}).json["code"] == "last_admin"


def test_lists_come_in_pages(ada):
    for number in range(5):
        ada.post("/v1/projects", PROJECT | {"name": str(number)})
    first = ada.get("/v1/projects?limit=2&state=draft")
    assert [each["name"] for each in first.json["items"]] == ["4", "3"]
    following = first.headers["Link"].split(">")[0].lstrip("<").removeprefix("http://127.0.0.1:8000")
    assert [each["name"] for each in ada.get(following).json["items"]] == ["2", "1"]
    last = ada.get("/v1/projects", query_string={"limit": 2, "cursor": ada.get(following).json["next_cursor"]})
    assert [each["name"] for each in last.json["items"]] == ["0"]
    assert not last.json["has_more"]
    assert last.json["next_cursor"] is None


@pytest.mark.parametrize("settings", [{"public_url": "https://lora.example/"}])
def test_a_link_to_the_next_page_has_one_slash(ada):
    for _ in range(2):
        ada.post("/v1/projects", PROJECT)
    assert ada.get("/v1/projects?limit=1").headers["Link"].startswith("<https://lora.example/v1/projects?")


def test_seeds_and_places_beyond_four_bytes(ada, session_of):
    with session_of() as session:
        project = make_project(session, ada.user_id)
        image = make_image(session, project, seed=5_000_000_000)
    assert ada.get(f"/v1/images/{image.id}").json["seed"] == 5_000_000_000
    assert ada.get(f"/v1/projects/{project.id}/events?after=3000000000").json["items"] == []


def test_a_dry_run_of_a_drawing_draws_nothing(ada, session_of):
    with session_of() as session:
        project, _ = make_curating(session, ada.user_id)
    path = f"/v1/projects/{project.id}"
    wanted = {"pictures": [{"prompt": "1girl", "count": 3}]}
    bodies = {"generations": wanted, "rounds/1/candidates": {"count": 3}}
    for route, body in bodies.items():
        answer = ada.post(f"{path}/{route}?dry_run=true", body)
        assert answer.status_code == 200, answer.json
        assert (answer.json["pictures"], answer.json["quota"]["new_jobs"]) == (3, 1)
    assert ada.get("/v1/jobs?state=queued").json["items"] == []
    wrong = wanted | {"params": {"width": 100}}
    assert ada.post(f"{path}/generations?dry_run=true", wrong).json["code"] == "size_not_offered"
    assert ada.post(f"{path}/generations?dry_run=false", wanted).status_code == 202


def test_a_dry_run_of_another_round_says_what_it_would_do_and_begins_nothing(ada, session_of):
    with session_of() as session:
        project, round_ = make_curating(session, ada.user_id)
        project.state = round_.state = "completed"
    path = f"/v1/projects/{project.id}/rounds"
    wanted = {"kind": "style", "target": 10, "candidates_per_pick": 2}
    answer = ada.post(f"{path}?dry_run=true", wanted)
    assert answer.status_code == 200, answer.json
    (extent,) = answer.json["rounds"]
    assert (extent["number"], extent["kind"], extent["train_images"], extent["pictures"]) == (2, "style", 4, 12)
    assert answer.json["plan"]["rounds"][0]["target"] == 10
    assert answer.json["quota"]["new_jobs"] == 2
    assert ada.get(f"/v1/projects/{project.id}").json["state"] == "completed"
    assert ada.get("/v1/jobs?state=queued").json["items"] == []

    character = ada.post(f"{path}?dry_run=true", {"kind": "character", "target": 9}).json
    assert character["plan"]["rounds"][0]["target"] == 0, "it adds no pictures"
    assert ada.post(f"{path}?dry_run=true", {"kind": "style", "target": 4}).json["code"] == "target_reached"
    begun = ada.post(f"{path}?dry_run=false", wanted)
    assert (begun.status_code, begun.json["number"]) == (202, 2)
    assert begun.json["plan"] == answer.json["plan"]["rounds"][0]
    assert ada.post(f"{path}?dry_run=true", wanted).json["code"] == "not_completed"


def test_a_dry_run_locks_no_row_and_writes_none(ada, session_of, runtime, built_app):
    with session_of() as session:
        curating, _ = make_curating(session, ada.user_id)
        done, round_ = make_curating(session, ada.user_id)
        done.state = round_.state = "completed"
        draft = make_project(session, ada.user_id)
        for _ in range(4):
            make_image(session, draft)
    bodies = {
        "/v1/projects": PROJECT,
        f"/v1/projects/{draft.id}/start": None,
        f"/v1/projects/{draft.id}/generations": {"pictures": [{"prompt": "1girl"}]},
        f"/v1/projects/{curating.id}/rounds/1/candidates": {"count": 1},
        f"/v1/projects/{done.id}/rounds": {"kind": "character"},
    }
    assert len(bodies) == sum("dry_run" in str(each) for _, _, each in operations(document.document(built_app)))
    ada.get("/v1/me")  # notes that the key is in use
    said: list[str] = []
    listen(runtime.db.engine, "before_cursor_execute", lambda _, __, statement, *more: said.append(statement))
    for path, body in bodies.items():
        answer = ada.post(f"{path}?dry_run=true", body)
        assert answer.status_code == 200, answer.json
    assert len(said) > len(bodies)
    assert [each for each in said if "FOR " in each or not each.lstrip().startswith(("SELECT", "BEGIN"))] == []
