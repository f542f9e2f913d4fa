"""Who may do what: every route of the document, with every key. A new route can't escape this.

For each route somebody with a thing of theirs asks for it, somebody else does, and somebody without a key. The
owner never gets 401, 403 or 404; another never gets anything but 404; a key without the scope gets 403.
"""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from api import document, examples
from api.app import create_app
from api.blank import blank_runtime
from shared import users, webhooks
from shared.models import Webhook
from shared.users import SCOPES
from tests.api.conftest import SECRET, Caller
from tests.api.documented import operations, real
from tests.factories import make_curating, make_job, png

PROJECT = examples.BODIES["create_project"]


OPERATIONS = {
    (method, path): operation
    for path, method, operation in operations(document.document(create_app(blank_runtime())))
    if path.startswith("/v1")
}
ROUTES = [(method, path, operation["x-scope"]) for (method, path), operation in OPERATIONS.items()]


@pytest.fixture
def things(ada, session_of) -> dict[str, str]:
    """One thing of each kind, all Ada's."""
    with session_of() as session:
        project, round_ = make_curating(session, ada.user_id)
        job = make_job(session, project)
        webhook = Webhook(user_id=ada.user_id, url="https://example.org", event_types=[], sealed_secret="x")
        session.add(webhook)
        session.flush()
        delivery = webhooks.send_test(session, webhook)
        image_id = next(iter(ada_images(session, project.id)))
    key_id = ada.get("/v1/keys").json["items"][0]["id"]
    return {
        "project_id": project.id,
        "number": "1",
        "image_id": image_id,
        "lora_id": round_.lora_id or "",
        "job_id": job.id,
        "key_id": key_id,
        "user_id": ada.user_id,
        "webhook_id": webhook.id,
        "delivery_id": delivery.id,
        "upload_id": f"img_{'0' * 26}",
    }


def ada_images(session, project_id):
    from sqlalchemy import select

    from shared.models import Image

    return session.scalars(select(Image.id).where(Image.project_id == project_id, Image.role == "candidate"))


def ask(caller: Caller, method: str, path: str, things: dict[str, str]) -> Any:
    given: dict[str, Any] = {"headers": {"If-Match": "*"}}
    if path.endswith(("/images", "/versions", "/imports", "/loras")) and method == "post":
        given["data"] = {"file": (io.BytesIO(png()), "x.png")}
    elif method != "get":
        body = examples.BODIES.get(OPERATIONS[method, path]["operationId"], {})
        real_ids = {examples.IDS[name]: id_ for name, id_ in things.items() if name in examples.IDS}
        given["json"] = json.loads(real(json.dumps(body), real_ids))
    if path.endswith("/stream"):
        given["buffered"] = False
    return caller.answer(method.upper(), path.format(**things), **given)


@pytest.fixture
def with_scopes(app, session_of):
    def make(user_id: str, scopes: list[str]) -> Caller:
        with session_of() as session:
            user = users.get(session, user_id)
            _, text = users.create_key(session, user, SECRET, name="scoped", scopes=scopes)
        return Caller(app.test_client(), text, user_id)

    return make


@pytest.mark.parametrize(("method", "path", "scope"), ROUTES, ids=[f"{m} {p}" for m, p, _ in ROUTES])
def test_a_route_needs_its_owner_and_its_scope(app, ada, bob, admin, with_scopes, things, method, path, scope):
    nobody = app.test_client().open(path.format(**things), method=method.upper())
    assert nobody.status_code == 401
    if scope:
        others = [each for each in SCOPES if each not in (scope, "admin")]
        assert ask(with_scopes(ada.user_id, others), method, path, things).json["code"] == "missing_scope"
    if "{" in path and scope != "admin":
        foreign = ask(bob, method, path, things)
        assert (foreign.status_code, foreign.json["code"]) == (404, "not_found")
        assert ask(admin, method, path, things).status_code == 404
    owner = admin if scope == "admin" else with_scopes(ada.user_id, [scope] if scope else ["projects:read"])
    assert ask(owner, method, path, things).status_code not in (400, 401, 403, 404, 405, 415, 428, 500)


def test_lists_show_nothing_of_others(bob, ada, things):
    for path in ("/v1/projects", "/v1/jobs"):
        assert ada.get(path).json["items"]
        assert bob.get(path).json["items"] == []
    assert bob.get(f"/v1/jobs?project_id={things['project_id']}").json["items"] == []
    assert things["key_id"] not in str(bob.get("/v1/keys").json)


def test_links_are_shown_only_with_the_scope_to_download(ada, with_scopes, things):
    reader = with_scopes(ada.user_id, ["projects:read"])
    assert reader.get(f"/v1/images/{things['image_id']}").json["url"] is None
    assert reader.get(f"/v1/loras/{things['lora_id']}").json["files"]["kohya"]["url"] is None


def test_another_users_loras_cannot_be_drawn_with(bob, things):
    project_id = bob.post("/v1/projects", PROJECT).json["id"]
    body = {"pictures": [{"prompt": "x"}], "loras": [{"lora_id": things["lora_id"]}]}
    assert bob.post(f"/v1/projects/{project_id}/generations", body).status_code == 404


def test_another_users_candidates_cannot_be_decided_about(bob, session_of, things):
    with session_of() as session:
        project, _ = make_curating(session, bob.user_id)
    body = {"accepted": [things["image_id"]]}
    assert bob.put(f"/v1/projects/{project.id}/rounds/1/decisions", body).status_code == 404


def test_actions_are_in_the_audit_log(ada, admin, things):
    ada.post("/v1/projects", PROJECT)
    ada.get("/v1/projects")
    ada.get(f"/v1/loras/{things['lora_id']}")
    ada.get(f"/v1/projects/{things['project_id']}/loras")
    assert ada.post("/v1/projects", {}).status_code == 422
    seen = admin.get(f"/v1/audit?user_id={ada.user_id}").json["items"]
    assert [(each["action"], each["target"]) for each in seen] == [
        ("list_loras", f"/v1/projects/{things['project_id']}/loras"),
        ("get_lora", f"/v1/loras/{things['lora_id']}"),
        ("create_project", "/v1/projects"),
    ]
    assert ada.get("/v1/audit").status_code == 403
