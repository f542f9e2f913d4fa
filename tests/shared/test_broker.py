"""A broker that is down is not asked again and again."""

from __future__ import annotations

import base64
import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from shared import broker
from shared.errors import Unavailable
from shared.settings import Settings


class Closed:
    """Takes each connection, counts it, and closes it."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            client.close()


def test_of_many_messages_one_tries_a_broker_that_is_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "PAUSE_SECONDS", 3600.0)
    server = Closed()
    url = f"redis://127.0.0.1:{server.listener.getsockname()[1]}/0"
    settings = Settings(database_url="", broker_url=url, storage_url=f"file://{tmp_path}", secret_key="x" * 32)
    sender = broker.Broker(settings)
    with pytest.raises(Unavailable):
        sender.send("gpu", "job", 1)
    tried = server.connections
    assert tried > 0
    for _ in range(10):
        with pytest.raises(Unavailable):
            sender.send("gpu", "job", 1)
    assert server.connections == tried
    server.listener.close()


def test_a_message_is_one_of_celerys(tmp_path: Path) -> None:
    settings = Settings(database_url="", broker_url="memory://", storage_url=f"file://{tmp_path}", secret_key="x" * 32)
    sender = broker.Broker(settings)
    sender.send("gpu", "job_1", 2)
    with sender.app.connection() as connection:
        celerys = connection.default_channel._get("gpu")
    ours = broker.message("gpu", "job_1", 2)
    assert said(ours) == said(celerys)
    assert ours.keys() == celerys.keys()
    for part, of_no_use_here in (("headers", OPTIONAL_HEADERS), ("properties", {"reply_to"})):
        assert ours[part].keys() == celerys[part].keys() - of_no_use_here
        same = ours[part].keys() - {"id", "root_id", "correlation_id", "delivery_tag", "ignore_result"}
        assert {name: ours[part][name] for name in same} == {name: celerys[part][name] for name in same}


OPTIONAL_HEADERS = {"shadow", "group_index", "origin", "replaced_task_nesting", "stamped_headers", "stamps"}


def said(message: dict[str, Any]) -> Any:
    return json.loads(base64.b64decode(message["body"]))
