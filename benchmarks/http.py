"""The overhead of the API: `python -m benchmarks.http [NAME...]` prints one JSON line for each figure.

Our service and a bare Flask app that returns a constant run at the same time, each in one gunicorn process with the
same number of threads; the service uses SQLite. One client sends requests to both alternately, so that other load
affects both.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flask import Flask, jsonify, request

from benchmarks.figure import figure
from shared import catalog, projects, users
from shared.admin import upgrade
from shared.catalog import kinds
from shared.catalog.kinds import GenerateInputs
from shared.catalog.params import GenerateParams
from shared.models import User
from shared.outside.db import Database
from shared.queue import jobs

SECRET = "a secret for benchmarks, long enough"  # noqa: S105
PROJECT = {"name": "Eiei", "trigger_word": "eiei21girl", "feature_tags": ["fox ears", "yellow eyes"]}
ROUNDS = 15
REQUESTS = 100  # of each side in a round
THREADS = "4"

bare = Flask("bare")


@bare.get("/thing")
def show() -> Any:
    return jsonify(id="x", state="draft")


@bare.post("/thing")
def make() -> Any:
    return jsonify(request.get_json()), 201


def get_job_vs_flask(ask: Ask) -> dict[str, Any]:
    """Requests a second, `GET /v1/jobs/ID` / a bare Flask route."""
    return ask.compared("get_job_vs_flask", "GET", f"/v1/jobs/{ask.job_id}", None, goal=0.45)


def post_project_vs_flask(ask: Ask) -> dict[str, Any]:
    """Requests a second, `POST /v1/projects` / a bare Flask POST."""
    return ask.compared("post_project_vs_flask", "POST", "/v1/projects", PROJECT, goal=0.24)


class Ask:
    """Two servers, and one client of both."""

    def __init__(self, ours: int, theirs: int, key: str, job_id: str):
        self.ours = http.client.HTTPConnection("127.0.0.1", ours)
        self.theirs = http.client.HTTPConnection("127.0.0.1", theirs)
        self.headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self.job_id = job_id

    def compared(self, name: str, method: str, path: str, body: Any, *, goal: float) -> dict[str, Any]:
        sides = ((self.ours, path), (self.theirs, "/thing"))
        ratios, own = [], []
        for number in range(ROUNDS + 1):  # the first warms up
            seconds = [self._timed(connection, method, where, body) for connection, where in sides]
            if number:
                ratios.append(seconds[1] / seconds[0])
                own.append(seconds[0] / REQUESTS * 1000)
        about = f"one client, one process of {THREADS} threads each; ours takes {statistics.median(own):.1f} ms"
        return figure(name, statistics.median(ratios), goal=goal, better="higher", runs=ratios, about=about)

    def _timed(self, connection: http.client.HTTPConnection, method: str, path: str, body: Any) -> float:
        payload = None if body is None else json.dumps(body)
        began = time.perf_counter()
        for _ in range(REQUESTS):
            connection.request(method, path, payload, self.headers)
            answer = connection.getresponse()
            content = answer.read()
            if answer.status >= 300:
                raise RuntimeError(content.decode())
        return time.perf_counter() - began


@contextmanager
def servers() -> Iterator[Ask]:
    """Run both servers in a scratch folder until the block ends."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/bootlora.db"
        (Path(folder) / "objects").mkdir()
        key, job_id = _scene(url)
        environment = {
            **os.environ,
            "BOOTLORA_DATABASE_URL": url,
            "BOOTLORA_BROKER_URL": "memory://",
            "BOOTLORA_STORAGE_URL": Path(folder).as_uri(),
            "BOOTLORA_SECRET_KEY": SECRET,
            "BOOTLORA_REQUESTS_PER_MINUTE": "1000000",
            "BOOTLORA_SUBMITS_PER_MINUTE": "1000000",
        }
        with gunicorn("api.wsgi:app", environment) as ours, gunicorn("benchmarks.http:bare", environment) as theirs:
            yield Ask(ours, theirs, key, job_id)


def _scene(url: str) -> tuple[str, str]:
    upgrade(url)
    database = Database(url)
    with database.transaction() as session:
        user: User = users.create(session, "bench")
        _, key = users.create_key(session, user, SECRET, name="bench")
        given = {**PROJECT, "subject_tags": ["1girl", "solo"], "base_model": "chibi", "curation": "manual"}
        project = projects.create(session, user, given, catalog.base_models())
        inputs = GenerateInputs(base_model="chibi", pictures=[], loras=[])
        job = jobs.enqueue(session, project, kinds.GENERATE, params=GenerateParams(), inputs=inputs)
        job.state = "succeeded"
        job_id = job.id
    database.dispose()
    return key, job_id


@contextmanager
def gunicorn(app: str, environment: dict[str, str], threads: str = THREADS) -> Iterator[int]:
    """Run a server in a process of its own. Yields its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--no-control-socket"]
    command += ["--worker-class", "api.server.Worker", "--threads", threads, app]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(port)
        yield port
    finally:
        process.terminate()
        process.wait()


def _wait(port: int) -> None:
    until = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


FIGURES: dict[str, Callable[[Ask], dict[str, Any]]] = {
    "get_job_vs_flask": get_job_vs_flask,
    "post_project_vs_flask": post_project_vs_flask,
}


def main(names: list[str]) -> None:
    with servers() as ask:
        for name in names or list(FIGURES):
            print(json.dumps(FIGURES[name](ask)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
