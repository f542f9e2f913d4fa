"""Does a long table slow the queue down? `python -m benchmarks.tables [NAME...]` prints one JSON line for each figure.

It compares a table of a thousand jobs with one of a million, of the same thousand users, on SQLite and on Postgres. The
same queries run on both alternately. The figure is that of the slower database.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from flask.testing import FlaskClient
from sqlalchemy import select, update

from api.app import create_app
from benchmarks import crowd
from benchmarks.figure import figure
from benchmarks.webhooks import SECRET, make_runtime
from embedded.supervisor import Supervisor
from shared import users
from shared.models import Job
from shared.queue import jobs, turns
from shared.runtime import Runtime
from tests import servers

SMALL, LARGE = 1_000, 1_000_000
PAIRS = 15
TIMES = 10  # repetitions of a query within one measurement
GOAL = 1.5
# The first page without filters and with each of them. Each page is full in both tables.
LISTS = ("", "&state=queued", "&state=failed", "&created_before=2100-01-01T00:00:00Z&state=succeeded")


@dataclass
class Side:
    """One database, and its client."""

    runtime: Runtime
    client: FlaskClient
    key: str

    def claim(self) -> float:
        with self.runtime.db.reading() as session:
            wanted = select(Job.id).where(Job.user_id == crowd.busy_user(session).id, Job.state == "queued")
            ids = list(session.scalars(wanted.limit(TIMES)))
        began = time.perf_counter()
        for job_id in ids:
            with self.runtime.db.transaction() as session:
                if not jobs.claim(session, job_id, 1, "gpu@one", 90):
                    raise RuntimeError(job_id)
        seconds = time.perf_counter() - began
        self._put_back(ids)
        return seconds / len(ids)

    def dispatch(self) -> float:
        ids = []
        with self.runtime.db.transaction() as session:
            jobs.check_in(session, "gpu@one", "gpu", crowd.SLOTS)
        began = time.perf_counter()
        for _ in range(TIMES):
            with self.runtime.db.transaction() as session:
                if turns.free_slots(session, "gpu", self.runtime.settings) <= 0:
                    raise RuntimeError("no slot is free")
                job = turns.take_next(session, "gpu", self.runtime.settings)
                if job is None:
                    raise RuntimeError("no job waits")
                ids.append(job.id)
        seconds = time.perf_counter() - began
        self._put_back(ids)
        return seconds / TIMES

    def read_lists(self) -> float:
        began = time.perf_counter()
        for filters in LISTS:
            page = self.client.get(f"/v1/jobs?limit=10{filters}", headers={"Authorization": f"Bearer {self.key}"})
            if len(json.loads(page.data)["items"]) != 10:
                raise RuntimeError(page.text)
        return (time.perf_counter() - began) / len(LISTS)

    def _put_back(self, ids: list[str]) -> None:
        free = {"state": "queued", "dispatched_at": None, "lease_until": None, "lease_token": None, "worker": None}
        with self.runtime.db.transaction() as session:
            session.execute(update(Job).where(Job.id.in_(ids)).values(**free))


def compared(name: str, work: Callable[[Side], float], scene: dict[str, tuple[Side, Side]]) -> dict[str, Any]:
    """The figure of the slower database."""
    found = {database: ratios(work, *sides) for database, sides in scene.items()}
    worst = max(found, key=lambda database: statistics.median(found[database][0]))
    about = "; ".join(f"{database} {statistics.median(own):.2f}, {ms:.1f} ms" for database, (own, ms) in found.items())
    runs = found[worst][0]
    value = statistics.median(runs)
    return figure(name, value, goal=GOAL, better="lower", runs=runs, about=f"{about} with 10^6")


def ratios(work: Callable[[Side], float], small: Side, large: Side) -> tuple[list[float], float]:
    for side in (small, large):
        for _ in range(3):
            work(side)
    pairs = [(work(large), work(small)) for _ in range(PAIRS)]
    return [ours / theirs for ours, theirs in pairs], statistics.median(pair[0] for pair in pairs) * 1000


@contextmanager
def scene() -> Iterator[dict[str, tuple[Side, Side]]]:
    """The small and the large table, in both databases."""
    with (
        tempfile.TemporaryDirectory() as folder,
        servers.short_folder() as short,
        Supervisor(Path(folder) / "servers") as supervisor,
    ):
        postgres = servers.Postgres(supervisor, short)
        urls = {
            "SQLite": [f"sqlite:///{folder}/{count}.db" for count in (SMALL, LARGE)],
            "Postgres": [postgres.make_database() for _ in (SMALL, LARGE)],
        }
        both = {database: (side(small, SMALL), side(large, LARGE)) for database, (small, large) in urls.items()}
        yield both
        for each in (each for sides in both.values() for each in sides):
            each.runtime.close()
        supervisor.stop("postgres")


def side(url: str, count: int) -> Side:
    runtime = make_runtime(url)
    crowd.fill(runtime.db, count)
    with runtime.db.transaction() as session:
        _, key = users.create_key(session, crowd.busy_user(session), SECRET, name="bench")
    return Side(runtime, create_app(runtime).test_client(), key)


FIGURES: dict[str, Callable[[Side], float]] = {
    "claim_1e6_vs_1e3": Side.claim,
    "list_1e6_vs_1e3": Side.read_lists,
    "dispatch_1e6_vs_1e3": Side.dispatch,
}


def main(names: list[str]) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    with scene() as both:
        for name in names or list(FIGURES):
            print(json.dumps(compared(name, FIGURES[name], both)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
