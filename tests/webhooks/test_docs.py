"""docs/webhooks.md is correct."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from flask import Flask

from shared import webhooks
from shared.events import TYPES
from tests.webhooks.conftest import World

DOC = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()


def test_the_table_names_every_event_type() -> None:
    assert dict(re.findall(r"^\| `([\w.]+)` \| (.*) \|$", DOC, re.MULTILINE)) == TYPES


def test_the_python_example_verifies_our_messages_only(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    webhook_id, secret = world.listen("https://studio.example/hooks/bootlora")
    monkeypatch.setenv("WEBHOOK_SECRET", secret)
    (code,) = re.findall(r"```python\n(.*?)```", DOC, re.DOTALL)
    names: dict[str, object] = {"__name__": "receiver"}
    exec(code, names)
    app = names["app"]
    assert isinstance(app, Flask)
    world.happen()
    with world.session() as session:
        claim = webhooks.take(session, webhook_id, "me", world.settings)
    assert claim is not None
    client, headers = app.test_client(), webhooks.headers(claim, world.runtime.vault)
    assert client.post("/hooks/bootlora", data=claim.body, headers=headers).status_code == 204
    assert client.post("/hooks/bootlora", data=claim.body + " ", headers=headers).status_code == 400
