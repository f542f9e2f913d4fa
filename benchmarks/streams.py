"""How open streams slow other requests down: `python -m benchmarks.streams` prints one JSON line.

One gunicorn process runs as in the container, on SQLite. Each listener's project has a job that reports progress each
second.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import update

from benchmarks.figure import figure
from benchmarks.http import PROJECT, SECRET, gunicorn
from shared import catalog, projects, users
from shared.admin import upgrade
from shared.catalog import kinds
from shared.catalog.kinds import GenerateInputs
from shared.catalog.params import GenerateParams
from shared.lifecycle import JobState
from shared.models import Job
from shared.outside.db import Database, utcnow
from shared.queue import jobs

USERS = 50
STREAMS = 10  # of each user
ROUNDS = 7
REQUESTS = 400  # in a row, alone and then beside the streams
THREADS = "16"


class Listener(NamedTuple):
    key: str
    project_id: str


def get_me_beside_streams() -> dict[str, Any]:
    """95th percentile of the time of `GET /v1/me`, with 500 open streams of 50 users / with none."""
    with _service() as (port, key, listeners):
        _p95(port, key)  # warms up
        ratios, alone_ms = [], []
        for _ in range(ROUNDS):
            alone = _p95(port, key)
            with _streams(port, listeners) as open_:
                beside = _p95(port, key)
                told = sum(b"event: progress" in each.recv(65536) for each in open_)
            if told < len(open_):
                raise RuntimeError(f"only {told} of {len(open_)} streams sent progress")
            ratios.append(beside / alone)
            alone_ms.append(alone * 1000)
    about = f"{USERS * STREAMS} streams of {USERS} users in one process; alone {statistics.median(alone_ms):.1f} ms"
    return figure(
        "get_me_beside_streams", statistics.median(ratios), goal=1.3, better="lower", runs=ratios, about=about
    )


@contextmanager
def _service() -> Iterator[tuple[int, str, list[Listener]]]:
    """A server, the API key of a user without streams, and the listeners."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/bootlora.db"
        (Path(folder) / "objects").mkdir()
        upgrade(url)
        database = Database(url)
        key, listeners = _scene(database)
        environment = {
            **os.environ,
            "BOOTLORA_DATABASE_URL": url,
            "BOOTLORA_BROKER_URL": "memory://",
            "BOOTLORA_STORAGE_URL": (Path(folder) / "objects").as_uri(),
            "BOOTLORA_SECRET_KEY": SECRET,
            "BOOTLORA_REQUESTS_PER_MINUTE": "1000000",
        }
        with gunicorn("api.wsgi:app", environment, THREADS) as port, _progress(database):
            yield port, key, listeners
        database.dispose()


def _scene(database: Database) -> tuple[str, list[Listener]]:
    listeners = []
    with database.transaction() as session:
        _, key = users.create_key(session, users.create(session, "alone"), SECRET, name="bench")
        for number in range(USERS):
            user = users.create(session, f"listener {number}")
            _, listening = users.create_key(session, user, SECRET, name="bench")
            given = {**PROJECT, "subject_tags": ["1girl", "solo"], "base_model": "chibi", "curation": "manual"}
            project = projects.create(session, user, given, catalog.base_models())
            project.state = "running"
            inputs = GenerateInputs(base_model="chibi", pictures=[], loras=[])
            job = jobs.enqueue(session, project, kinds.GENERATE, params=GenerateParams(), inputs=inputs)
            job.state = JobState.RUNNING
            job.lease_until = utcnow() + timedelta(hours=1)
            listeners.append(Listener(listening, project.id))
    return key, listeners


@contextmanager
def _progress(database: Database) -> Iterator[None]:
    """Write new progress to all jobs each second, on both sides of the comparison."""
    ended = threading.Event()

    def write_progress() -> None:
        step = 0
        while not ended.wait(1.0):
            step += 1
            with database.transaction() as session:
                session.execute(update(Job).values(progress={"step": step}))

    thread = threading.Thread(target=write_progress)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def _streams(port: int, listeners: list[Listener]) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        open_ = []
        for listener in listeners:
            for _ in range(STREAMS):
                client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
                path = f"/v1/projects/{listener.project_id}/events/stream"
                head = f"GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {listener.key}\r\n\r\n"
                client.sendall(head.encode())
                if not client.recv(12).endswith(b"200"):
                    raise RuntimeError(client.recv(65536).decode())
                open_.append(client)
        yield open_
    time.sleep(1.0)  # until the server has closed the streams


def _p95(port: int, key: str) -> float:
    """The 95th percentile of the response times, in seconds."""
    took = []
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for _ in range(REQUESTS):
        began = time.perf_counter()
        connection.request("GET", "/v1/me", headers={"Authorization": f"Bearer {key}"})
        answer = connection.getresponse()
        answer.read()
        took.append(time.perf_counter() - began)
        if answer.status != 200:
            raise RuntimeError(f"GET /v1/me was answered with {answer.status}")
    connection.close()
    return statistics.quantiles(took, n=20)[-1]


def main() -> None:
    print(json.dumps(get_me_beside_streams()), flush=True)


if __name__ == "__main__":
    main()
