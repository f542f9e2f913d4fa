"""Schemathesis against the running service: what the document allows or forbids is sent, and every check is on.

No answer is a 5xx, every answer is as the document says, what breaks the schema is refused. Requests for things go
to things that are there, so that more than the 404 is tried.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from werkzeug.serving import make_server

from api import streams
from api.app import create_app
from shared import users
from shared.models import Base, Webhook
from shared.outside.storage import FolderStorage, PresignedPost
from tests.api.conftest import SECRET, make_runtime
from tests.factories import make_curating, make_image, make_job, make_lora, make_project

EXAMPLES = 5  # generated at random for each operation, beside those that try each border once
MANY = 10**6

STREAM_SECONDS = 0.04
# Rules beyond the schema are 409, 412 and 422; a write without If-Match is 428.
CONFIG = """
request-timeout = 30.0

[parameters]
{parameters}
"header.Prefer" = "wait=0"

[checks]
positive_data_acceptance.expected-statuses = ["2xx", "3xx", 401, 403, 404, 409, 412, 422, 429]
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 406, 409, 412, 413, 415, 422, 428, 429]
missing_required_header.expected-statuses = [400, 401, 403, 404, 406, 415, 422, 428]
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class OpenFolder(FolderStorage):
    """A folder that signs forms, which nobody checks."""

    def presigned_post(self, key: str, content_type: str, max_bytes: int, expires: timedelta) -> PresignedPost:
        return PresignedPost(url="http://store", fields={"key": key})


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The service with something of each kind in it: its address, a key and the ids."""
    runtime = make_runtime(
        tmp_path / "store",
        f"sqlite:///{tmp_path}/bootlora.db",
        requests_per_minute=MANY,
        submits_per_minute=MANY,
        max_queued_jobs=MANY,
        max_queued_imports=MANY,
        max_keys_per_user=MANY,
        max_held_per_user=MANY,
    )
    runtime.storage = OpenFolder(tmp_path / "store")
    monkeypatch.setattr(streams, "MAX_SECONDS", STREAM_SECONDS)
    monkeypatch.setattr(streams.Stream, "look_every_seconds", STREAM_SECONDS / 2)
    Base.metadata.create_all(runtime.db.engine)
    with runtime.db.transaction() as session:
        user = users.create(session, "ada", "admin")
        _, key = users.create_key(session, user, SECRET, name="fuzz", scopes=users.scopes_of("admin"))
        other_key, _ = users.create_key(session, user, SECRET, name="to be revoked")
        project, round_ = make_curating(session, user.id, candidates=5)
        webhook = Webhook(user_id=user.id, url="https://example.org", event_types=[], sealed_secret="x")
        session.add(webhook)
        session.flush()
        things = {
            "project_id": project.id,
            "number": round_.number,
            "image_id": make_image(session, make_project(session, user.id)).id,
            "lora_id": make_lora(session, round_).id,
            "job_id": make_job(session, project, state="succeeded").id,
            "user_id": user.id,
            "key_id": other_key.id,
            "webhook_id": webhook.id,
        }
    server = make_server("127.0.0.1", 0, create_app(runtime), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.port}", key, things
    server.shutdown()
    runtime.close()


def test_every_answer_is_as_the_document_says(served, tmp_path):
    pytest.importorskip("schemathesis")
    url, key, things = served
    config = tmp_path / "schemathesis.toml"
    parameters = "\n".join(f'"path.{name}" = {json.dumps(value)}' for name, value in things.items())
    config.write_text(CONFIG.format(parameters=parameters))
    command = [sys.executable, "-m", "schemathesis.cli", f"--config-file={config}", "run", f"{url}/openapi.json"]
    command += ["--header", f"Authorization: Bearer {key}", "--checks", "all", "--max-examples", str(EXAMPLES)]
    command += ["--phases", "examples,coverage,fuzzing", "--seed", "4", "--no-color"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=880)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
