"""The API in several processes, started as its container starts it, counts as one."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3

from embedded.servers import HOST, free_ports
from embedded.stack import ROOT
from embedded.supervisor import Program, Supervisor
from tests.api.conftest import SECRET

pytestmark = pytest.mark.servers

FEW, TRIES = 20, 500  # requests until each process has answered one
COUNTED = r'bootlora_http_requests_total{method="GET",route="unknown",status="404"} (\S+)'


@pytest.fixture
def counts(tmp_path: Path) -> Path:
    """Where each process keeps what it counts."""
    folder = tmp_path / "counts"
    folder.mkdir()
    return folder


@pytest.fixture
def url(supervisor: Supervisor, tmp_path: Path, empty_database: Path, counts: Path) -> Iterator[str]:
    (port,) = free_ports(1)
    url = f"http://{HOST}:{port}"
    cmd = re.search(r"(?m)^CMD (\[[^]]*\])", (ROOT / "docker" / "api.Dockerfile").read_text())
    assert cmd is not None
    words = json.loads(cmd[1].replace("\\\n", "").replace("0.0.0.0:8000", f"{HOST}:{port}"))
    (tmp_path / "store").mkdir()
    program = Program(
        name="processes",
        command=[sys.executable, "-m", *words],
        environment={
            "BOOTLORA_DATABASE_URL": f"sqlite:///{empty_database}",
            "BOOTLORA_BROKER_URL": "memory://",
            "BOOTLORA_STORAGE_URL": (tmp_path / "store").as_uri(),
            "BOOTLORA_SECRET_KEY": SECRET,
            "PROMETHEUS_MULTIPROC_DIR": str(counts),
        },
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
