"""A broker that is down is not asked again and again."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

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
