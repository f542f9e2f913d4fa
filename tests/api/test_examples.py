"""The examples of the document work: each request is sent to the service, and gets the documented answer."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from jsonschema import Draft202012Validator
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from api import document, examples
from api.app import create_app
from api.blank import blank_runtime
from shared import rounds, users, webhooks
from shared.runtime import Runtime, open_storage
from tests.api.bodies import zipped
from tests.api.conftest import SECRET, Caller, make_runtime
from tests.api.documented import operations, real
from tests.factories import make_curating, make_failed, make_image, make_imported_lora, make_job, make_project, png
from tests.lora_files.made import attention, lora, safetensors
from tests.servers import S3

pytestmark = pytest.mark.servers

DOCUMENT = document.plain_document(create_app(blank_runtime()))
OPERATIONS = {
    operation["operationId"]: (method, path, DOCUMENT["paths"][path].get("parameters", []), operation)
    for path, method, operation in operations(DOCUMENT)
}
HOOK = {"url": "https://studio.example/hooks", "description": "", "event_types": []}
# What a project must be like, where it isn't being curated; and a job, where it hasn't succeeded.
PROJECT_STATES = {
    **dict.fromkeys(("start_project", "import_dataset", "crop_image"), "draft"),
    **dict.fromkeys(("upload_image", "offer_upload", "complete_upload"), "draft"),
    **dict.fromkeys(("add_round", "delete_project", "stream_project_events"), "completed"),
    "retry_project": "failed",
}
JOB_STATES = {"cancel_job": "queued"}


@pytest.fixture
def runtime(tmp_path: Path, empty_database: Path, s3: S3) -> Iterator[Runtime]:
    """A store that signs forms."""
    path = tmp_path / "bootlora.db"
    path.write_bytes(empty_database.read_bytes())
    runtime = make_runtime(tmp_path / "store", f"sqlite:///{path}", **s3.settings("examples"))
    runtime.storage = open_storage(runtime.settings)
    runtime.storage.prepare()
    yield runtime
    runtime.close()


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_example_runs(admin: Caller, bob: Caller, runtime: Runtime, name: str) -> None:
    method, path, in_path, operation = OPERATIONS[name]
    with runtime.db.transaction() as session:
        things = make_things(session, runtime, admin, bob, name)
    if name == "complete_upload":
        things[examples.SLIP] = posted_slip(admin, things)
    address = path.format(**{each["name"]: each["example"] for each in in_path})
    headers = {each["name"]: each["example"] for each in operation.get("parameters", []) if "example" in each}

    answer = admin.answer(method.upper(), real(address, things), headers=headers, **body_of(operation, things))

    assert str(answer.status_code) in operation["responses"], answer.text
    assert answer.status_code < 300, answer.text
    assert_as_promised(answer, operation["responses"][str(answer.status_code)].get("content"))


def test_the_examples_in_answers_are_as_their_schemas_say() -> None:
    for name, schema in DOCUMENT["components"]["schemas"].items():
        for field, shape in schema.get("properties", {}).items():
            if "example" in shape:
                assert_valid(shape["example"], shape, f"{name}.{field}")


def make_things(session: Session, runtime: Runtime, admin: Caller, bob: Caller, operation: str) -> dict[str, str]:
    """Make what the example of an operation is about. Real ids by those in the examples."""
    state = PROJECT_STATES.get(operation, "curating")
    make = make_failed if state == "failed" else make_curating
    project, round_ = make(session, admin.user_id)
    image = make_image(session, project, role="candidate", decision="pending", round_id=round_.id)
    runtime.storage.put_bytes(image.key, png(), "image/png")
    round_.dataset = rounds.present_dataset(session, project)
    job = make_job(session, project, round_id=round_.id, state=JOB_STATES.get(operation, "succeeded"))
    project.state, round_.state = "running" if state == "curating" else state, state
    if state == "draft":
        project = make_project(session, admin.user_id)
        image, *_ = [make_image(session, project) for _ in range(4)]
    holder = bob if operation.endswith("_user_key") else admin
    key, _ = users.create_key(session, users.get(session, holder.user_id), SECRET, name="another")
    webhook, _ = webhooks.create(
        session, users.get(session, admin.user_id), HOOK, None, runtime.vault, runtime.settings
    )
    lora_id = round_.lora_id
    if operation == "delete_imported_lora":
        lora_id = make_imported_lora(session, admin.user_id).id
    made = {
        "project_id": project.id,
        "image_id": image.id,
        "job_id": job.id,
        "lora_id": str(lora_id),
        "user_id": bob.user_id,
        "key_id": key.id,
        "webhook_id": webhook.id,
        "delivery_id": webhooks.send_test(session, webhook).id,
    }
    return {examples.IDS[name]: id_ for name, id_ in made.items()}


def posted_slip(admin: Caller, things: dict[str, str]) -> str:
    path = real(f"/v1/projects/{examples.IDS['project_id']}/uploads", things)
    offer = admin.post(path, examples.BODIES["offer_upload"]).json
    requests.post(offer["url"], data=offer["fields"], files={"file": png()}, timeout=10).raise_for_status()
    return offer["slip"]


def body_of(operation: dict[str, Any], things: dict[str, str]) -> dict[str, Any]:
    """The example of a body, as the test client takes it."""
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        body = json.loads(real(json.dumps(content["example"]), things))
        if media_type == "application/json":
            return {"json": body}
        files = {
            ".zip": lambda: zipped({"fox.png": png()}),
            ".safetensors": lambda: safetensors(lora(attention("chibi"))),
        }
        file = files.get(Path(body["file"]).suffix, png)()
        return {"data": body | {"file": (io.BytesIO(file), body["file"])}}
    return {}


def assert_as_promised(answer: TestResponse, content: dict[str, Any] | None) -> None:
    if content is None:
        assert answer.data == b""
        return
    (media_type,) = content
    assert answer.mimetype == media_type
    assert answer.text
    if media_type == "application/json":
        assert_valid(answer.json, content[media_type]["schema"], answer.text)


def assert_valid(value: Any, schema: dict[str, Any], where: str) -> None:
    checker = Draft202012Validator({**schema, "components": DOCUMENT["components"]})
    assert [problem.message for problem in checker.iter_errors(value)] == [], where
