"""Does a dead endpoint delay a live one? `python -m benchmarks.webhooks` prints one JSON line.

A thousand events wait for a live endpoint: first alone, then beside a dead endpoint that gets the same events and never
answers. The figure compares the times from the commit of the events to the arrival of each.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from benchmarks.figure import figure
from shared import catalog, events, projects, users, webhooks
from shared.admin import upgrade
from shared.models import Project
from shared.outside.db import Database
from shared.outside.secrets import Vault
from shared.runtime import Runtime
from shared.settings import Settings
from workers.delivery import DeliverySender

EVENTS = 1000
PAIRS = 7
GOAL = 1.1
WARM_UP = 20
TICK_SECONDS = 0.2
SECRET = "a secret for benchmarks, long enough"  # noqa: S105


def webhook_p95_beside_dead() -> dict[str, Any]:
    """95th percentile of the delivery times of a live endpoint, beside a dead one / alone."""
    ratios, times = [], []
    with receiver() as url:
        measure(url, dead=True, count=WARM_UP)
        for pair in range(PAIRS):
            sides = {}
            for dead in (False, True) if pair % 2 == 0 else (True, False):
                sides[dead] = measure(url, dead=dead, count=EVENTS)
            ratios.append(sides[True] / sides[False])
            times.append(sides[False])
    about = f"{EVENTS} waiting events, SQLite; alone the last 5 % come after {statistics.median(times):.2f} s"
    value = statistics.median(ratios)
    return figure("webhook_p95_beside_dead", value, goal=GOAL, better="lower", runs=ratios, about=about)


def measure(url: str, *, dead: bool, count: int) -> float:
    """Seconds until 95 of 100 events have arrived at the live endpoint."""
    with tempfile.TemporaryDirectory() as folder:
        runtime = make_runtime(f"sqlite:///{folder}/bootlora.db")
        paths = ["/live", "/dead"] if dead else ["/live"]
        with runtime.db.transaction() as session:
            user = users.create(session, "ann")
            project = projects.create(session, user, PROJECT, runtime.base_models)
            for path in paths:
                given = {"url": url + path, "description": "", "event_types": []}
                webhooks.create(session, user, given, None, runtime.vault, runtime.settings)
        sender = DeliverySender(runtime)
        try:
            arrivals(url, sender, project, runtime, WARM_UP)  # meanwhile the service notices that the other one is dead
            started, arrived = arrivals(url, sender, project, runtime, count)
        finally:
            sender.close(grace_seconds=0)
            runtime.close()
        return sorted(arrived)[int(0.95 * count) - 1] - started


def arrivals(
    url: str, sender: DeliverySender, project: Project, runtime: Runtime, count: int
) -> tuple[float, list[float]]:
    """The time at which the sender began with `count` new events, and the arrival times of each."""
    ask(url + "/forget")
    with runtime.db.transaction() as session:
        for _ in range(count):
            events.record(session, session.get_one(Project, project.id), "job.succeeded", job_id="job_1")
    started = time.monotonic()
    while len(arrived := ask(url + "/arrivals")) < count:
        sender.tick()
        time.sleep(TICK_SECONDS)
    return started, arrived


PROJECT = {
    "name": "her",
    "trigger_word": "eiei21girl",
    "subject_tags": ["1girl"],
    "feature_tags": ["fox ears"],
    "base_model": "chibi",
    "curation": "auto",
}


class NoBroker:
    """A broker without messages: this benchmark has no jobs."""

    def send(self, queue: str, job_id: str, attempt: int) -> None:
        raise AssertionError

    def ping(self) -> None:
        pass


def make_runtime(url: str) -> Runtime:
    upgrade(url)
    settings = Settings(
        database_url=url,
        broker_url="",
        storage_url="",
        secret_key=SECRET,
        requests_per_minute=1_000_000,
        webhook_allow_http=True,
        webhook_allow_networks=("127.0.0.1/32",),
    )
    return Runtime(
        settings=settings,
        db=Database(url),
        storage=None,  # type: ignore[arg-type]  # nothing is stored
        broker=NoBroker(),
        vault=Vault(SECRET),
        base_models=catalog.base_models(),
    )


# --- the receiver, in a process of its own ----------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    arrivals: list[float] = []  # noqa: RUF012  (one receiver a process)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/dead":
            time.sleep(3600)
        self.arrivals.append(time.monotonic())
        self._say("{}")

    def do_GET(self) -> None:
        if self.path == "/forget":
            self.arrivals.clear()
        self._say(json.dumps(self.arrivals))

    def log_message(self, *args: Any) -> None:
        pass

    def _say(self, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


def receive() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()


@contextmanager
def receiver() -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.webhooks", "receive"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


def ask(url: str) -> list[float]:
    with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310  (our own receiver)
        return list(json.load(answer))


FIGURES = {"webhook_p95_beside_dead": webhook_p95_beside_dead}


def main() -> None:
    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    for name in sys.argv[1:] or FIGURES:
        print(json.dumps(FIGURES[name]()), flush=True)


if __name__ == "__main__":
    receive() if sys.argv[1:] == ["receive"] else main()
