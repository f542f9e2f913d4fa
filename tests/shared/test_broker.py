"""A broker that is down is not tried at every request, and one that refuses writes is not ready."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest
import redis

from shared.errors import Unavailable
from shared.queue import broker
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


@pytest.mark.servers
@pytest.mark.parametrize(
    ("break_it", "mend_it"),
    [
        (["CONFIG", "SET", "maxmemory", "1"], ["CONFIG", "SET", "maxmemory", "0"]),
        (["REPLICAOF", "127.0.0.1", "9"], ["REPLICAOF", "NO", "ONE"]),
        (["CONFIG", "SET", "min-replicas-to-write", "1"], ["CONFIG", "SET", "min-replicas-to-write", "0"]),
    ],
    ids=["full", "a replica", "without its replicas"],
)
def test_a_broker_that_refuses_writes_is_not_ready(valkey_url: str, break_it: list[str], mend_it: list[str]) -> None:
    settings = Settings(database_url="", broker_url=valkey_url, storage_url="", secret_key="x" * 32)
    server, ours = redis.Redis.from_url(valkey_url), broker.Broker(settings)
    ours.ping()
    keys = server.keys()
    server.execute_command(*break_it)
    try:
        assert server.ping()
        with pytest.raises(Unavailable, match="takes no messages"):
            ours.ping()
    finally:
        server.execute_command(*mend_it)
    ours.ping()
    assert server.keys() == keys, "asking leaves nothing behind"
