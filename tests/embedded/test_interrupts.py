"""Ctrl-C and kill -9 at any moment leave no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.processes import of_folder
from tests.waiting import eventually

pytestmark = pytest.mark.servers
Start = Callable[..., subprocess.Popen[bytes]]

SERVERS = """
import sys, time
from pathlib import Path
from embedded import servers
from embedded.supervisor import Supervisor
folder = Path(sys.argv[1])
with Supervisor(folder) as supervisor:
    port, *ports = servers.free_ports(6)
    supervisor.start(servers.valkey(folder / "valkey", port, "secret"))
    supervisor.start(servers.seaweedfs(folder / "s3", ports, "k", "s"))
    print("ready", flush=True)
    time.sleep(1000)
"""

# A supervisor of a process that doesn't listen, and is given an hour to end.
DEAF = """
import sys, time
from pathlib import Path
from embedded.supervisor import Program, Supervisor
folder = Path(sys.argv[1])
deaf = "import signal, sys, time; signal.signal(15, signal.SIG_IGN); open(sys.argv[1], 'w'); time.sleep(1000)"
command = [sys.executable, "-c", deaf, str(folder / "deaf")]
with Supervisor(folder, report=lambda line: print(line, flush=True)) as supervisor:
    supervisor.start(Program(name="deaf", command=command, stop_seconds=3600, is_ready=(folder / "deaf").exists))
    print("ready", flush=True)
    time.sleep(1000)
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    def start(program: str = SERVERS) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", program, str(tmp_path)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    yield start
    for process in of_folder(tmp_path):
        process.kill()


@pytest.mark.parametrize("after_seconds", [0.4, 0.9, 1.4])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill-9"])
def test_an_end_while_starting(start: Start, tmp_path: Path, after_seconds: float, number: int) -> None:
    process = start()
    time.sleep(after_seconds)
    os.kill(process.pid, number)
    process.communicate(timeout=30)
    eventually(lambda: not of_folder(tmp_path))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill-9"])
def test_an_end_while_running_and_then_another_run(start: Start, tmp_path: Path, number: int) -> None:
    for _ in range(2):
        process = start()
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        assert len(of_folder(tmp_path)) == 3
        os.kill(process.pid, number)
        process.communicate(timeout=30)
    eventually(lambda: not of_folder(tmp_path))


def test_a_second_ctrl_c_does_not_wait(start: Start, tmp_path: Path) -> None:
    process = start(DEAF)
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    os.kill(process.pid, signal.SIGINT)
    assert process.stdout.readline() == b"stopping deaf\n"
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    eventually(lambda: not of_folder(tmp_path))
