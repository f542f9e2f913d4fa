"""Processes start, restart and stop, and none is left, however the supervisor ends."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from embedded.supervisor import InUse, Program, StartFailed, Supervisor, lock
from tests.processes import gone
from tests.waiting import eventually

# A process with a child, both deaf to SIGTERM if asked to be.
PARENT = """
import signal, subprocess, sys, time
if "deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
open(sys.argv[1], "w").write(str(child.pid))
time.sleep(1000)
"""
# A supervisor of two such, in a process of its own, that can be killed.
SUPERVISOR = """
import sys, time
from pathlib import Path
from embedded.supervisor import Program, Supervisor
folder = Path(sys.argv[1])
with Supervisor(folder) as supervisor:
    for name in "ab":
        command = [sys.executable, "-c", "import time; time.sleep(1000)"]
        supervisor.start(Program(name=name, command=command))
    print("ready", flush=True)
    time.sleep(1000)
"""


def sleeper(name: str = "sleeper", **over: object) -> Program:
    return Program(name=name, command=[sys.executable, "-c", "import time; time.sleep(1000)"], **over)


def test_a_process_runs_until_the_supervisor_leaves(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(sleeper())
        pid = supervisor.processes["sleeper"].popen.pid
        assert not gone(pid)
        assert stat.S_IMODE((tmp_path / "pids.json").stat().st_mode) == 0o600
    assert gone(pid)
    assert not (tmp_path / "pids.json").exists()


def test_the_last_started_stops_first(tmp_path: Path) -> None:
    told: list[str] = []
    with Supervisor(tmp_path, told.append) as supervisor:
        supervisor.start(sleeper("valkey"))
        supervisor.start(sleeper("worker"), sleeper("api"))
        supervisor.restart("worker")
    assert told == ["stopping api", "stopping worker", "stopping valkey"]


def test_a_killed_process_comes_back(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(sleeper())
        for _ in range(2):
            before = supervisor.processes["sleeper"].popen.pid
            supervisor.kill("sleeper")
            eventually(lambda before=before: supervisor.processes["sleeper"].popen.pid != before)
        supervisor.await_ready("sleeper")


def test_a_restart_is_another_process(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(sleeper())
        before = supervisor.processes["sleeper"].popen.pid
        supervisor.restart("sleeper")
        assert gone(before)
        assert supervisor.processes["sleeper"].popen.pid != before


def test_a_process_that_ignores_its_signal_is_killed_with_its_child(tmp_path: Path) -> None:
    pid_file = tmp_path / "child"
    command = [sys.executable, "-c", PARENT, str(pid_file), "deaf"]
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(
            Program(name="deaf", command=command, is_ready=lambda: bool(pid_file.read_text()), stop_seconds=0.3)
        )
        parent, child = supervisor.processes["deaf"].popen.pid, int(pid_file.read_text())
        supervisor.stop("deaf")
        eventually(lambda: gone(parent) and gone(child))


def test_a_failed_start_reports_the_log(tmp_path: Path) -> None:
    broken = Program(name="broken", command=[sys.executable, "-c", "raise SystemExit('no such table')"])
    never_ready = Program(name="broken", command=broken.command, is_ready=lambda: False)
    with Supervisor(tmp_path) as supervisor, pytest.raises(StartFailed, match="no such table"):
        supervisor.start(never_ready)


def test_a_missing_command_is_reported(tmp_path: Path) -> None:
    missing = Program(name="missing", command=["/no/such/server"], is_ready=lambda: False)
    with Supervisor(tmp_path) as supervisor, pytest.raises(StartFailed, match="No such file"):
        supervisor.start(missing)


def test_a_folder_has_one_supervisor(tmp_path: Path) -> None:
    with Supervisor(tmp_path), pytest.raises(InUse, match="in use"), Supervisor(tmp_path):
        pass
    lock(tmp_path / "lock").close()


def test_leftovers_of_a_killed_run_are_ended_at_the_next_start(tmp_path: Path) -> None:
    orphan = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], start_new_session=True)
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], start_new_session=True)
    try:
        created = psutil.Process(orphan.pid).create_time()
        # the bystander's number was once that of a process of ours
        (tmp_path / "pids.json").write_text(
            f'{{"a": [{orphan.pid}, {created}], "b": [{bystander.pid}, {created - 99}]}}'
        )
        with Supervisor(tmp_path):
            assert orphan.wait(5) is not None
            assert bystander.poll() is None
    finally:
        for process in (orphan, bystander):
            process.kill()
            process.wait()


def run_supervisor(folder: Path) -> tuple[subprocess.Popen[str], list[int]]:
    process = subprocess.Popen([sys.executable, "-c", SUPERVISOR, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    children = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    assert len(children) == 2
    return process, children


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_its_supervisor(tmp_path: Path, number: int) -> None:
    if number == signal.SIGKILL and sys.platform != "linux":
        pytest.skip("elsewhere the next start cleans up")
    process, children = run_supervisor(tmp_path)
    os.kill(process.pid, number)
    process.communicate(timeout=20)
    eventually(lambda: all(gone(pid) for pid in children))
