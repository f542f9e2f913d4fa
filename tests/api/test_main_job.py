"""The main job, as a client sees it: from a picture to rounds under way."""

from __future__ import annotations

import io
from typing import Any

from tests.factories import png

PROJECT = {"name": "Eiei", "trigger_word": "eiei21girl", "feature_tags": ["fox ears", "yellow eyes"]}


def upload(caller, project_id: str, content: bytes | None = None, **form: str) -> Any:
    data = {"file": (io.BytesIO(content or png()), "eiei.png"), **form}
    return caller.post(f"/v1/projects/{project_id}/images", data=data)


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
