"""Schemas of answers are quick, and say what marshmallow says."""

from __future__ import annotations

import json

import marshmallow

from api.schemas.fields import Answer
from tests.api.test_main_job import PROJECT, upload


def test_answers_say_what_marshmallow_says(ada, monkeypatch):
    project = ada.post("/v1/projects", PROJECT | {"metadata": {"asset": "7"}}).json
    upload(ada, project["id"])
    hook = {"url": "https://example.com/hook"}
    webhook = ada.post("/v1/webhooks", hook).json
    ada.post(f"/v1/webhooks/{webhook['id']}/test")
    paths = [
        *("/v1/me", "/v1/limits", "/v1/keys", "/v1/base-models", "/v1/projects", "/v1/jobs", "/v1/webhooks"),
        *(f"/v1/webhooks/{webhook['id']}/deliveries", f"/v1/projects/{project['id']}"),
        *(f"/v1/projects/{project['id']}/{part}" for part in ("images", "rounds", "loras", "events")),
    ]
    quick = [shown(ada, path) for path in paths]
    monkeypatch.setattr(Answer, "_serialize", marshmallow.Schema._serialize)
    assert quick == [shown(ada, path) for path in paths]


def shown(ada, path):
    """An answer, but for what differs each time."""
    answer = ada.get(path)
    assert answer.status_code == 200, answer.text
    return json.loads(answer.text, object_hook=lambda found: {k: v for k, v in found.items() if k not in PASSING})


PASSING = ("url", "url_expires_at", "last_used_at")
