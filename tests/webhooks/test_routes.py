"""Webhooks over HTTP: what a client sends and sees."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from shared import events
from shared.models import IdempotencyKey, Project, Webhook
from shared.outside.db import utcnow
from shared.runtime import Runtime
from tests.api.conftest import (
    Caller,
    ada,
    admin,
    app,
    bob,
    built_app,
    database_url,
    empty_database,
    make_caller,
    runtime,
)
from tests.waiting import eventually
from tests.webhooks.receiver import Receiver, says
from workers.delivery import DeliverySender

__all__ = ["ada", "admin", "app", "bob", "built_app", "database_url", "empty_database", "make_caller", "runtime"]

URL = "https://studio.example/hooks"


@pytest.fixture
def settings() -> dict[str, Any]:
    return {
        "webhook_allow_http": True,
        "webhook_allow_networks": ("127.0.0.1/32",),
        "webhook_retry_seconds": (0.02,),
    }


@pytest.fixture
def sender(runtime: Runtime) -> Iterator[DeliverySender]:
    sender = DeliverySender(runtime)
    yield sender
    sender.close(grace_seconds=0)


def listen(caller: Caller, url: str = URL, **more: Any) -> dict[str, Any]:
    answer = caller.post("/v1/webhooks", {"url": url, **more})
    assert answer.status_code == 201, answer.json
    assert answer.headers["Location"] == answer.json["links"]["self"]
    return dict(answer.json)


def make_project(caller: Caller) -> str:
    answer = caller.post("/v1/projects", {"name": "her", "trigger_word": "eiei21girl", "feature_tags": ["fox ears"]})
    return str(answer.json["id"])


def happen(runtime: Runtime, project_id: str, type_: str = "round.completed") -> None:
    with runtime.transaction() as session:
        events.record(session, session.get_one(Project, project_id), type_)


def send(sender: DeliverySender, caller: Caller, path: str) -> list[dict[str, Any]]:
    """Let the sender work until nothing waits, and return the deliveries."""

    def all_sent() -> list[dict[str, Any]]:
        sender.tick()
        items: list[dict[str, Any]] = caller.get(path).json["items"]
        waiting = not sender.idle or any(each["state"] == "pending" for each in items)
        return [] if waiting else items

    return eventually(all_sent)


def test_the_secret_is_shown_when_it_is_made_and_never_again(ada: Caller) -> None:
    made = listen(ada, description="the build farm", event_types=["job.failed", "project.completed"])
    assert made.pop("secret").startswith("whsec_")
    assert made["enabled"] is True
    assert ada.get(f"/v1/webhooks/{made['id']}").json == made
    assert ada.get("/v1/webhooks").json["items"] == [made]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "invalid"),
        ({"url": "http://10.0.0.1/"}, "blocked_address"),
        ({"url": "https://169.254.169.254/"}, "blocked_address"),
        ({"url": "https://user:pass@studio.example/"}, "bad_webhook_url"),
        ({"url": URL + "#part"}, "bad_webhook_url"),
        ({"url": "https://" + "a." * 127 + "example/"}, "bad_webhook_url"),
        ({"url": "https://2130706433/"}, "bad_webhook_url"),
        ({"url": "x"}, "bad_webhook_url"),
        ({"url": URL, "event_types": ["job.exploded"]}, "invalid"),
        ({"url": URL, "event_types": ["webhook.test"]}, "invalid"),
        ({"url": URL, "color": "red"}, "invalid"),
        ({"url": 5}, "invalid"),
    ],
)
def test_an_invalid_webhook_is_refused_with_a_code(ada: Caller, body: dict[str, Any], code: str) -> None:
    answer = ada.post("/v1/webhooks", body)
    assert (answer.status_code, answer.json["code"]) == (422, code)
    assert answer.json["errors"]
    assert ada.get("/v1/webhooks").json["items"] == []


def test_a_change_needs_an_etag(ada: Caller) -> None:
    path = f"/v1/webhooks/{listen(ada)['id']}"
    seen = ada.get(path).headers["ETag"]
    assert ada.patch(path, {"description": "x"}, if_match=None).status_code == 428
    changed = ada.patch(path, {"url": URL + "/new"}, if_match=seen)
    assert changed.json["url"] == URL + "/new"
    assert changed.headers["ETag"] != seen
    assert ada.patch(path, {"description": "x"}, if_match=seen).status_code == 412
    assert ada.patch(path, {"url": "https://10.0.0.1/"}).json["code"] == "blocked_address"


def test_the_next_try_is_not_before_the_end_of_the_pause(ada: Caller, runtime: Runtime) -> None:
    listening = listen(ada)
    ada.post(f"/v1/webhooks/{listening['id']}/test")
    until = utcnow() + timedelta(hours=1)
    with runtime.transaction() as session:
        session.get_one(Webhook, listening["id"]).paused_until = until
    (shown,) = ada.get(f"/v1/webhooks/{listening['id']}/deliveries").json["items"]
    assert datetime.fromisoformat(shown["next_try_at"]) == until
    assert datetime.fromisoformat(shown["paused_until"]) == until


def test_a_webhook_can_be_disabled_enabled_and_deleted(ada: Caller) -> None:
    path = f"/v1/webhooks/{listen(ada)['id']}"
    off = ada.patch(path, {"enabled": False}).json
    assert (off["enabled"], off["disabled_reason"]) == (False, "disabled by its owner")
    assert ada.post(f"{path}/test").json["code"] == "webhook_disabled"
    assert ada.patch(path, {"enabled": True}).json["enabled"] is True
    assert ada.delete(path).status_code == 204
    assert ada.get(path).status_code == 404


def test_a_message_is_delivered_logged_and_redelivered(
    ada: Caller, runtime: Runtime, receiver: Receiver, sender: DeliverySender
) -> None:
    receiver.answers["/hook"] = says(500, b"not today")
    project_id = make_project(ada)
    made = listen(ada, receiver.url(), project_id=project_id)
    path = f"/v1/webhooks/{made['id']}"
    happen(runtime, project_id)
    (failed,) = send(sender, ada, f"{path}/deliveries")
    assert (failed["state"], failed["tries"], failed["next_try_at"]) == ("failed", 2, None)
    assert (failed["event_type"], failed["project_id"]) == ("round.completed", project_id)
    assert [each["answer"] for each in failed["attempts"]] == ["not today"] * 2
    assert ada.get(path).json["failing_since"]
    assert ada.get(f"{path}/deliveries?state=delivered").json["items"] == []
    assert ada.get(failed["links"]["self"]).json == failed

    receiver.answers["/hook"] = says(200)
    again = ada.post(failed["links"]["redeliver"])
    assert (again.status_code, again.json["state"]) == (202, "pending")
    assert again.json["next_try_at"]
    (delivered,) = send(sender, ada, f"{path}/deliveries")
    assert (delivered["state"], delivered["tries"], len(delivered["attempts"])) == ("delivered", 1, 3)
    assert {each.headers["webhook-id"] for each in receiver.at()} == {failed["event_id"]}
    assert receiver.at()[-1].verified(made["secret"])["data"]["id"] == failed["event_id"]


def test_a_test_event_and_a_rotation(ada: Caller, receiver: Receiver, sender: DeliverySender) -> None:
    made = listen(ada, receiver.url())
    path = f"/v1/webhooks/{made['id']}"
    fresh = ada.post(f"{path}/rotate-secret", {"overlap_seconds": 60}).json
    assert fresh["secret"] != made["secret"]
    assert fresh["old_secret_until"]
    assert ada.post(f"{path}/rotate-secret", {}).json["code"] == "rotation_under_way"
    sent = ada.post(f"{path}/test")
    assert (sent.status_code, sent.json["event_type"]) == (202, "webhook.test")
    assert sent.headers["Location"] == sent.json["links"]["self"]
    send(sender, ada, f"{path}/deliveries")
    (request,) = receiver.at()
    assert request.verified(made["secret"]) == request.verified(fresh["secret"])


def test_recovery(ada: Caller, runtime: Runtime) -> None:
    project_id = make_project(ada)
    path = f"/v1/webhooks/{listen(ada)['id']}"
    happen(runtime, project_id)
    ada.patch(path, {"enabled": False})
    happen(runtime, project_id)
    ada.patch(path, {"enabled": True})
    answer = ada.post(f"{path}/recover", {"since": "2026-01-01T00:00:00Z"})
    assert (answer.status_code, answer.json) == (202, {"recovered": 2, "has_more": False})
    assert len(ada.get(f"{path}/deliveries?state=pending").json["items"]) == 2
    assert ada.post(f"{path}/recover", {"since": "yesterday"}).status_code == 422


def test_the_same_request_makes_one_webhook_and_its_kept_answer_is_sealed(ada: Caller, runtime: Runtime) -> None:
    key = {"Idempotency-Key": "one"}
    first = ada.post("/v1/webhooks", {"url": URL}, headers=key)
    second = ada.post("/v1/webhooks", {"url": URL}, headers=key)
    assert second.json == first.json
    assert second.headers["Idempotent-Replayed"] == "true"
    assert len(ada.get("/v1/webhooks").json["items"]) == 1
    with runtime.db.reading() as session:
        (kept,) = session.query(IdempotencyKey).all()
    assert "whsec_" not in str(kept.body)


def test_webhooks_of_others_do_not_exist(ada: Caller, bob: Caller, runtime: Runtime) -> None:
    project_id = make_project(ada)
    path = f"/v1/webhooks/{listen(ada)['id']}"
    happen(runtime, project_id)
    (delivery,) = ada.get(f"{path}/deliveries").json["items"]
    own = f"/v1/webhooks/{listen(bob)['id']}"
    asked = [
        bob.get(path),
        bob.patch(path, {"description": "mine"}),
        bob.delete(path),
        bob.post(f"{path}/rotate-secret", {}),
        bob.post(f"{path}/test"),
        bob.post(f"{path}/recover", {"since": "2026-01-01T00:00:00Z"}),
        bob.get(f"{path}/deliveries"),
        bob.get(f"{path}/deliveries/{delivery['id']}"),
        bob.post(f"{path}/deliveries/{delivery['id']}/redeliver"),
        bob.get(f"{own}/deliveries/{delivery['id']}"),
        bob.post(f"{own}/deliveries/{delivery['id']}/redeliver"),
        bob.post("/v1/webhooks", {"url": URL, "project_id": project_id}),
    ]
    assert [each.status_code for each in asked] == [404] * len(asked)
    assert len(bob.get("/v1/webhooks").json["items"]) == 1


def test_the_scope_is_needed(make_caller: Callable[..., Caller]) -> None:
    reader = make_caller("carl", scopes=["projects:read"])
    assert reader.get("/v1/webhooks").json["code"] == "missing_scope"
