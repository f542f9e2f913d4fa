"""Metrics for Prometheus: of jobs and deliveries, from the tables, and of requests, from this process.

With `PROMETHEUS_MULTIPROC_DIR` set, the request metrics are the sum over all processes of the server.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from sqlalchemy import and_, func, literal_column, or_, select
from sqlalchemy.orm import Session

from api import readiness
from shared.catalog import QUEUES
from shared.lifecycle import JobState
from shared.models import Delivery, Job, Project, User, Worker
from shared.outside.db import clock, utcnow
from shared.runtime import Runtime

LATEST_JOBS = 500  # of each queue; the mean durations are taken from these

_requests = CollectorRegistry()
REQUESTS = Counter(
    "bootlora_http_requests", "Requests by route and status.", ["method", "route", "status"], registry=_requests
)
SECONDS = Histogram(
    "bootlora_http_request_seconds",
    "How long requests took.",
    ["method", "route"],
    buckets=(0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
    registry=_requests,
)


def observe(method: str, route: str, status: int, seconds: float) -> None:
    """Count an answered request."""
    REQUESTS.labels(method, route, str(status)).inc()
    SECONDS.labels(method, route).observe(seconds)


def exposed(runtime: Runtime) -> bytes:
    """All metrics in Prometheus's text format. Those of the tables are left out while the database is down."""
    ready = readiness.check(runtime)
    asked = CollectorRegistry()
    asked.register(Parts(runtime, ready))
    if ready["database"] == "ok":
        asked.register(Tables(runtime))
    return bytes(generate_latest(_of_all_processes()) + generate_latest(asked))


def _of_all_processes() -> CollectorRegistry:
    together = CollectorRegistry()
    try:
        MultiProcessCollector(together)
    except ValueError:  # PROMETHEUS_MULTIPROC_DIR is not set
        return _requests
    return together


class Parts(Collector):
    """Metrics of the database, the broker, the store and the disk."""

    def __init__(self, runtime: Runtime, ready: dict[str, str]):
        self.runtime = runtime
        self.ready = ready

    def collect(self) -> Iterator[Any]:
        parts = GaugeMetricFamily("bootlora_ready", "Whether a part answers and takes writes.", labels=["part"])
        for part, state in self.ready.items():
            parts.add_metric([part], float(state == "ok"))
        yield parts
        disk = _disk(self.runtime.settings.scratch_dir)
        yield GaugeMetricFamily(
            "bootlora_disk_bytes", "Size of the disk with the API's scratch folder.", value=disk.total
        )
        yield GaugeMetricFamily("bootlora_disk_free_bytes", "Free bytes on it.", value=disk.free)


def _disk(folder: Path) -> Any:
    """Disk usage of a folder, which need not exist yet."""
    return shutil.disk_usage(next(each for each in (folder, *folder.absolute().parents) if each.exists()))


class Tables(Collector):
    """Metrics of the tables, queried at each scrape."""

    def __init__(self, runtime: Runtime):
        self.runtime = runtime

    def collect(self) -> Iterator[Any]:
        with self.runtime.db.reading() as session:
            yield from _jobs(session)
            yield from _lost(session)
            yield from _durations(session)
            yield from _deliveries(session)
            yield from _totals(session, self.runtime)


def _jobs(session: Session) -> Iterator[Any]:
    count = GaugeMetricFamily("bootlora_jobs", "Jobs by queue and state.", labels=["queue", "state"])
    oldest = GaugeMetricFamily("bootlora_oldest_job_seconds", "Age of the oldest job.", labels=["queue", "state"])
    open_jobs = (JobState.QUEUED, JobState.RUNNING)
    query = select(Job.queue, Job.state, func.count(), func.min(Job.queued_at)).where(Job.state.in_(open_jobs))
    for queue, state, number, since in session.execute(query.group_by(Job.queue, Job.state)):
        count.add_metric([queue, state], number)
        oldest.add_metric([queue, state], (utcnow() - since).total_seconds())
    yield count
    yield oldest


def _lost(session: Session) -> Iterator[Any]:
    """Jobs that have lost a worker lately: they were requeued, or have failed with `worker_lost`."""
    since = utcnow() - timedelta(hours=1)
    failed = and_(Job.finished_at > since, Job.error["code"].as_string() == "worker_lost")
    lost = Job.lost_attempts > literal_column("0")  # a literal, as in the partial index
    number = session.scalar(select(func.count()).where(lost, or_(Job.queued_at > since, failed)))
    yield GaugeMetricFamily("bootlora_jobs_lost", "Jobs whose worker was lost in the last hour.", value=number or 0)


def _durations(session: Session) -> Iterator[Any]:
    mean = GaugeMetricFamily(
        "bootlora_job_seconds", "Mean duration of the latest jobs that succeeded.", labels=["kind"]
    )
    spent: dict[str, list[float]] = {}
    for queue in QUEUES:
        ended = select(Job.kind, Job.started_at, Job.finished_at)
        ended = ended.where(Job.queue == queue, Job.state == JobState.SUCCEEDED)
        for kind, started_at, finished_at in session.execute(ended.order_by(Job.id.desc()).limit(LATEST_JOBS)):
            if started_at and finished_at:
                spent.setdefault(kind, []).append((finished_at - started_at).total_seconds())
    for kind, seconds in sorted(spent.items()):
        mean.add_metric([kind], sum(seconds) / len(seconds))
    yield mean


def _deliveries(session: Session) -> Iterator[Any]:
    waiting, since = session.execute(
        select(func.count(), func.min(Delivery.created_at)).where(Delivery.state == "pending")
    ).one()
    yield GaugeMetricFamily("bootlora_webhook_backlog", "Deliveries that are waiting.", value=waiting)
    age = (utcnow() - since).total_seconds() if since else 0.0
    yield GaugeMetricFamily("bootlora_webhook_oldest_seconds", "Age of the oldest of them.", value=age)


def _totals(session: Session, runtime: Runtime) -> Iterator[Any]:
    busy = session.scalar(select(func.coalesce(func.sum(User.gpu_seconds), 0.0))) or 0.0
    yield GaugeMetricFamily("bootlora_gpu_busy_seconds_total", "Seconds that GPU workers spent on jobs.", value=busy)
    yield from _workers(session, runtime)
    projects = GaugeMetricFamily("bootlora_projects", "Projects by state.", labels=["state"])
    for state, number in session.execute(select(Project.state, func.count()).group_by(Project.state)):
        projects.add_metric([state], number)
    yield projects


def _workers(session: Session, runtime: Runtime) -> Iterator[Any]:
    workers = GaugeMetricFamily("bootlora_workers", "Live workers by queue.", labels=["queue"])
    slots = GaugeMetricFamily("bootlora_worker_slots", "Jobs that live workers can run at once.", labels=["queue"])
    live = Worker.seen_at > clock(-runtime.settings.worker_seen_seconds)
    query = select(Worker.queue, func.count(), func.sum(Worker.slots)).where(live)
    for queue, number, places in session.execute(query.group_by(Worker.queue).order_by(Worker.queue)):
        workers.add_metric([queue], number)
        slots.add_metric([queue], places)
    yield workers
    yield slots
