"""Start processes, restart those that end, and leave none behind.

Each process leads a session of its own. So Ctrl-C on the terminal reaches only the supervisor, which then stops the
processes in order. If the supervisor is killed, the kernel ends its children (on Linux). On every system, the next
start on the same folder ends what is left.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil

TETHER = str(Path(__file__).with_name("tether.py"))
POLL_SECONDS = 0.05
BACK_OFF_SECONDS = (0.2, 0.5, 1, 2, 5, 10)  # before each next restart of a process that keeps ending
STEADY_SECONDS = 30  # a process that has been up for so long counts as healthy again
LEFTOVER_GRACE_SECONDS = 10
START_TRIES = 3  # a start fails when the process has ended this often before it was ready


class StartFailed(Exception):
    """A process did not become ready. The message includes the end of its log."""


class InUse(Exception):
    """Another supervisor uses the same folder."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """A command, the check that it is ready, and the way to stop it."""

    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    is_ready: Callable[[], bool] = lambda: True  # an exception means "not yet"
    start_seconds: float = 60
    stop_signal: int = signal.SIGTERM
    stop_seconds: float = 10
    folder: Path | None = None  # its working directory
    user: str = "-"  # the user to run it as, if the supervisor runs as root


@dataclass
class Process:
    """A running program."""

    program: Program
    popen: subprocess.Popen[bytes]
    started_at: float  # monotonic
    failures: int = 0  # how often in a row it has ended soon after its start
    revive_at: float | None = None  # monotonic; set when it has ended: the time of its restart


class Supervisor:
    """Runs processes that share a folder. Use it as a context manager: leaving it stops them all."""

    def __init__(self, folder: Path, report: Callable[[str], None] = lambda line: None):
        self.folder = folder.absolute()
        self.processes: dict[str, Process] = {}
        self._report = report
        self._order: list[str] = []  # names, as first started
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._closed = threading.Event()
        self._hurry = threading.Event()  # a second Ctrl-C: kill without waiting
        self._lock_file: IO[str] | None = None
        self._keeper: threading.Thread | None = None
        self._requests: queue.SimpleQueue[tuple[Future[None], Program | None]] = queue.SimpleQueue()

    def __enter__(self) -> Supervisor:
        (self.folder / "logs").mkdir(parents=True, exist_ok=True)
        self._lock_file = lock(self.folder / "lock")
        end_leftovers(self._pids_file)
        # Linux sends the parent-death signal when the *thread* that forked ends, so one lasting thread does all forks.
        self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)
        atexit.register(self.close)
        self._keeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, *programs: Program) -> None:
        """Start programs at the same time, and wait until all are ready."""
        for program in programs:
            if program.name not in self._order:
                self._order.append(program.name)
            self._ask(program)
        for program in programs:
            self._await_ready(program, tries=START_TRIES)

    def stop(self, name: str) -> None:
        """Send a process its stop signal, wait for it to end, then kill what is left of its group."""
        with self._lock:
            process = self.processes.pop(name, None)
        if process is None:
            return
        program, popen = process.program, process.popen
        if process.revive_at is None:
            popen.send_signal(program.stop_signal)
            self._await_end(popen, program.stop_seconds)
            kill_group(popen.pid)
            popen.wait()
        self._note_pids()

    def restart(self, name: str) -> None:
        program = self.processes[name].program
        self.stop(name)
        self.start(program)

    def kill(self, name: str) -> None:
        """`kill -9` a process and its children, as in a crash. It is restarted as after any other end."""
        with self._lock:
            kill_group(self.processes[name].popen.pid)

    def await_ready(self, name: str) -> None:
        """Wait until a process that was killed or just started is ready."""
        self._await_ready(self.processes[name].program)

    def log_file(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    def report(self, line: str) -> None:
        with contextlib.suppress(Exception):  # such as a closed terminal; the supervisor goes on
            self._report(line)

    def close(self) -> None:
        """Stop all processes, the last started first. A second Ctrl-C kills them at once."""
        with self._second_interrupt_hurries():
            self._stopping.set()
            if self._keeper and self._keeper.is_alive():
                self._ask(None)  # returns when the start in progress is done
                for name in [name for name in reversed(self._order) if name in self.processes]:
                    self.report(f"stopping {name}")
                    self.stop(name)
                self._closed.set()
                self._keeper.join()
                self._pids_file.unlink(missing_ok=True)
            if self._lock_file:
                self._lock_file.close()
            atexit.unregister(self.close)

    @property
    def _pids_file(self) -> Path:
        return self.folder / "pids.json"

    def _ask(self, program: Program | None) -> None:
        """Let the keeper start a program. With None, only wait for its current work."""
        request: Future[None] = Future()
        self._requests.put((request, program))
        request.result()

    def _keep(self) -> None:
        """The keeper's loop: start requested programs, and restart processes that have ended."""
        while not self._closed.is_set():
            with contextlib.suppress(queue.Empty):
                self._answer(*self._requests.get(timeout=POLL_SECONDS))
            with self._lock:
                for process in [] if self._stopping.is_set() else list(self.processes.values()):
                    self._look_after(process)

    def _answer(self, request: Future[None], program: Program | None) -> None:
        try:
            if program:
                self._fork(program, failures=0)
            request.set_result(None)
        except Exception as error:
            request.set_exception(error)

    def _fork(self, program: Program, failures: int) -> None:
        if self._stopping.is_set():
            return
        tether = [sys.executable, "-I", "-S", TETHER, str(os.getpid()), str(int(program.stop_signal)), program.user]
        with self.log_file(program.name).open("ab") as log:
            popen = subprocess.Popen(
                [*tether, *program.command],
                env={**os.environ, **program.environment},
                cwd=program.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes[program.name] = Process(program, popen, time.monotonic(), failures)
        self._note_pids()

    def _note_pids(self) -> None:
        with self._lock:
            pids = {name: identity(process.popen.pid) for name, process in self.processes.items()}
            write_private(self._pids_file, json.dumps(pids))

    def _await_ready(self, program: Program, tries: int = 0) -> None:
        deadline = time.monotonic() + program.start_seconds
        while time.monotonic() < deadline and not self._stopping.is_set():
            process = self.processes.get(program.name)
            if process is None or (tries and process.failures >= tries):
                break
            if process.popen.poll() is None and answers(program.is_ready):
                return
            time.sleep(POLL_SECONDS)
        raise StartFailed(f"{program.name} did not become ready; the end of its log:\n{self._log_tail(program.name)}")

    def _await_end(self, popen: subprocess.Popen[bytes], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while popen.poll() is None and time.monotonic() < deadline and not self._hurry.is_set():
            time.sleep(POLL_SECONDS)

    def _log_tail(self, name: str, lines: int = 15) -> str:
        text = self.log_file(name).read_text(errors="replace") if self.log_file(name).exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def _look_after(self, process: Process) -> None:
        if process.popen.poll() is None:
            return
        now = time.monotonic()
        if process.revive_at is None:
            kill_group(process.popen.pid)  # its children must not run beside their successors
            steady = now - process.started_at > STEADY_SECONDS
            process.failures = 1 if steady else process.failures + 1
            wait = BACK_OFF_SECONDS[min(process.failures, len(BACK_OFF_SECONDS)) - 1]
            process.revive_at = now + wait
            how = f"with {process.popen.returncode}"
            self.report(f"{process.program.name} ended {how}; starting again in {wait} s")
        elif now >= process.revive_at:
            try:
                self._fork(process.program, process.failures)
            except OSError as error:  # such as a full disk: try again later
                self.report(f"{process.program.name} can't be started: {error}")
                process.revive_at = now + BACK_OFF_SECONDS[-1]

    @contextlib.contextmanager
    def _second_interrupt_hurries(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, lambda *_: self._hurry.set())
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def answers(probe: Callable[[], bool]) -> bool:
    try:
        return probe()
    except Exception:  # any error while a server starts means "not yet"
        return False


def kill_group(pid: int) -> None:
    """Kill the leader of a process group and all its children."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def identity(pid: int) -> tuple[int, float]:
    """A process's id and start time, which distinguish it from a later process with the same id."""
    try:
        return pid, psutil.Process(pid).create_time()
    except psutil.Error:
        return pid, 0.0


def lock(path: Path) -> IO[str]:
    """Lock a folder until the returned file is closed or this process ends."""
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise InUse(f"{path.parent} is in use by another run; stop it, or choose another folder") from None
    return file


def end_leftovers(pids_file: Path) -> None:
    """End the processes that a killed run has left behind, and their children."""
    if not pids_file.exists():
        return
    known: dict[str, tuple[int, float]] = json.loads(pids_file.read_text() or "{}")
    left = [process for pid, created in known.values() for process in group(pid, created)]
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, stubborn = psutil.wait_procs(left, timeout=LEFTOVER_GRACE_SECONDS)
    for process in stubborn:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(stubborn, timeout=LEFTOVER_GRACE_SECONDS)
    pids_file.unlink(missing_ok=True)


def group(leader: int, created: float) -> list[psutil.Process]:
    """The living members of the group that this process led, including itself."""
    with contextlib.suppress(psutil.Error):
        if abs(psutil.Process(leader).create_time() - created) > 1:
            return []  # another process has this id now
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == leader:
                members.append(process)
    return members


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step. Only the owner can read it."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    part.replace(path)
