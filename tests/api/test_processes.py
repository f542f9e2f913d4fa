"""Several API processes, started as in the container, share counts and metrics."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import urllib3

from benchmarks.http import gunicorn
from embedded.servers import HOST, free_ports
from embedded.stack import ROOT
from embedded.supervisor import Program, Supervisor
from shared import users
from shared.models import User
from shared.outside.db import Database
from tests.api.conftest import SECRET
from tests.factories import make_project
from tests.waiting import eventually

pytestmark = pytest.mark.servers

FEW, TRIES = 20, 500  # requests until each process has answered one
SILENT = 32  # many more clients than threads
COUNTED = r'bootlora_http_requests_total{method="GET",route="unknown",status="404"} (\S+)'


@pytest.fixture
def counts(tmp_path: Path) -> Path:
    """Where each process keeps what it counts."""
    folder = tmp_path / "counts"
    folder.mkdir()
    return folder


@pytest.fixture
def environment(tmp_path: Path, empty_database: Path) -> dict[str, str]:
    """What a process of the API needs."""
    (tmp_path / "store").mkdir()
    (tmp_path / "bootlora.db").write_bytes(empty_database.read_bytes())
    return {
        "BOOTLORA_DATABASE_URL": f"sqlite:///{tmp_path}/bootlora.db",
        "BOOTLORA_BROKER_URL": "memory://",
        "BOOTLORA_STORAGE_URL": (tmp_path / "store").as_uri(),
        "BOOTLORA_SECRET_KEY": SECRET,
    }


@pytest.fixture
def url(supervisor: Supervisor, environment: dict[str, str], counts: Path) -> Iterator[str]:
    (port,) = free_ports(1)
    url = f"http://{HOST}:{port}"
    cmd = re.search(r"(?m)^CMD (\[[^]]*\])", (ROOT / "docker" / "api.Dockerfile").read_text())
    assert cmd is not None
    words = json.loads(cmd[1].replace("\\\n", "").replace("0.0.0.0:8000", f"{HOST}:{port}"))
    program = Program(
        name="processes",
        command=[sys.executable, "-m", *words],
        environment={**environment, "PROMETHEUS_MULTIPROC_DIR": str(counts)},
        is_ready=lambda: ask(f"{url}/healthz").status == 200,
        folder=ROOT,
    )
    supervisor.start(program)
    yield url
    supervisor.stop(program.name)


def ask(url: str) -> urllib3.BaseHTTPResponse:
    """On a connection of its own, which any of the processes may take."""
    return urllib3.request("GET", url, headers={"Connection": "close"}, retries=False, timeout=5)


def test_metrics_are_of_all_processes(url: str, counts: Path) -> None:
    asked = 0
    while asked < FEW or (len(list(counts.glob("counter_*.db"))) < 2 and asked < TRIES):
        assert ask(f"{url}/nowhere").status == 404
        asked += 1
    assert len(list(counts.glob("counter_*.db"))) == 2
    told = [re.search(COUNTED, ask(f"{url}/metrics").data.decode()) for _ in range(8)]
    assert [float(each[1]) for each in told if each] == [asked] * 8


def test_a_client_that_hangs_up_frees_its_place(environment: dict[str, str]) -> None:
    database = Database(environment["BOOTLORA_DATABASE_URL"])
    with database.transaction() as session:
        project = make_project(session)
        _, key = users.create_key(session, session.get_one(User, project.user_id), SECRET, name="test")
    database.dispose()
    with gunicorn("api.wsgi:app", {**os.environ, **environment, "BOOTLORA_MAX_HELD_PER_USER": "1"}) as port:
        first = listen(port, project.id, key)
        assert first.status == 200
        assert listen(port, project.id, key).status == 429
        first.close()
        # Sooner than the next comment, whose write would fail.
        eventually(lambda: listen(port, project.id, key).status == 200, seconds=10, every_seconds=0.2)


def listen(port: int, project_id: str, key: str) -> urllib3.BaseHTTPResponse:
    url, headers = f"http://{HOST}:{port}/v1/projects/{project_id}/events/stream", {"Authorization": f"Bearer {key}"}
    return urllib3.request("GET", url, headers=headers, preload_content=False, retries=False, timeout=60)


@contextmanager
def serving(environment: dict[str, str]) -> Iterator[int]:
    """A server that has begun to answer; its port."""
    with gunicorn("api.wsgi:app", {**os.environ, **environment}) as port:
        urllib3.request("GET", f"http://{HOST}:{port}/healthz", retries=False, timeout=60)
        yield port


def test_silent_clients_do_not_block_others(environment: dict[str, str]) -> None:
    with serving(environment) as port, ExitStack() as clients:
        for _ in range(SILENT):  # they connect and say nothing
            clients.enter_context(socket.create_connection((HOST, port)))
        assert [ask(f"http://{HOST}:{port}/healthz").status for _ in range(5)] == [200] * 5


def test_clients_that_do_not_close_do_not_block_others(environment: dict[str, str]) -> None:
    with serving(environment) as port, ExitStack() as clients:
        for _ in range(SILENT):
            client = clients.enter_context(socket.create_connection((HOST, port)))
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        assert [ask(f"http://{HOST}:{port}/healthz").status for _ in range(5)] == [200] * 5
