import errno
import itertools
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from shared.catalog.kinds import KINDS, ImageInput
from shared.models import Event, Job
from shared.queue import jobs
from shared.runtime import Runtime
from tests.domain import make_project, make_runtime, make_user
from tests.factories import png
from tests.waiting import eventually
from tests.workers import handlers
from tests.workers.handlers import ProbeInputs, ProbeParams, probe
from workers.runner import disk_is_full, gpu_is_lost, run_job
from workers.work import Work


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    runtime = make_runtime(tmp_path, heartbeat_seconds=0.05, lease_seconds=5.0, store_patience_seconds=0.5)
    yield runtime
    runtime.close()


@pytest.fixture
def make(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Job]:
    """A waiting job whose handler is a function of tests.workers.handlers."""
    with runtime.transaction() as session:
        project = make_project(session, make_user(session))

    def make(code: str, *, timeout_seconds: int = 30, file: ImageInput | None = None, **params: Any) -> Job:
        kind = probe(code, timeout_seconds)
        monkeypatch.setitem(KINDS, kind.name, kind)
        with runtime.transaction() as session:
            return jobs.enqueue(session, project, kind, params=ProbeParams(**params), inputs=ProbeInputs(file=file))

    return make


def run(runtime: Runtime, job: Job, draining: Callable[[], bool] = lambda: False) -> Job:
    current = row(runtime, job)
    run_job(runtime, job.id, current.attempt, "cpu@test", draining)
    return row(runtime, job)


def row(runtime: Runtime, job: Job) -> Job:
    with runtime.db.reading() as session:
        return session.get_one(Job, job.id)


def in_background(runtime: Runtime, job: Job, draining: Callable[[], bool] = lambda: False) -> threading.Thread:
    thread = threading.Thread(target=run, args=(runtime, job, draining))
    thread.start()
    eventually(lambda: row(runtime, job).state != "queued")
    return thread


def test_a_job_is_done_and_its_result_kept(runtime: Runtime, make: Callable[..., Job]) -> None:
    done = run(runtime, make("steps", steps=3))
    assert (done.state, done.result) == ("succeeded", {"first": 0, "seen": None})


def test_how_long_it_took_is_kept(runtime: Runtime, make: Callable[..., Job]) -> None:
    ((stage, size, seconds),) = run(runtime, make("steps", steps=3, seconds=0.05)).stages or []
    assert (stage, size) == ("working", 1)
    assert seconds >= 3 * 0.05


def test_a_doubled_message_does_nothing(runtime: Runtime, make: Callable[..., Job]) -> None:
    job = make("steps", steps=2)
    run(runtime, job)
    run_job(runtime, job.id, 1, "cpu@other", lambda: False)
    with runtime.db.reading() as session:
        types = list(session.scalars(select(Event.type).where(Event.type.like("job.%")).order_by(Event.seq)))
    assert types == ["job.started", "job.succeeded"]


@pytest.mark.parametrize(
    ("code", "error", "retryable"),
    [
        ("fails", "nan_loss", True),
        ("crashes", "internal", True),
        ("store_is_down", "store_unavailable", True),
        ("fills_the_disk", "disk_full", True),
        ("tells_nonsense", "internal", True),
        ("tells_a_wrong_type", "internal", True),
        ("leaves_things", "invalid_dataset", False),
    ],
)
def test_a_job_that_fails_says_why(
    runtime: Runtime, make: Callable[..., Job], code: str, error: str, retryable: bool
) -> None:
    failed = run(runtime, make(code))
    assert failed.state == "failed"
    assert failed.error is not None
    assert (failed.error["code"], failed.error["retryable"]) == (error, retryable)
    assert "secret" not in failed.error["message"]


def test_nothing_is_left_in_the_scratch_folder(runtime: Runtime, make: Callable[..., Job]) -> None:
    run(runtime, make("leaves_things"))
    assert not os.path.exists(os.environ.pop("BOOTLORA_TEST_FOLDER"))


def test_an_input_that_is_not_what_was_stored_is_refused(runtime: Runtime, make: Callable[..., Job]) -> None:
    runtime.storage.put_bytes("projects/x/file", b"other bytes")
    failed = run(runtime, make("fetches", file=ImageInput(id="x", key="projects/x/file", sha256="0" * 64)))
    assert failed.error is not None
    assert failed.error["code"] == "corrupt_object"


def test_an_input_that_is_gone_is_named(runtime: Runtime, make: Callable[..., Job]) -> None:
    failed = run(runtime, make("fetches", file=ImageInput(id="x", key="projects/x/gone", sha256="0")))
    assert failed.error is not None
    assert failed.error["code"] == "missing_object"


@pytest.mark.parametrize(("most", "seen"), [(50, ["RGB", 50, 25]), (100, ["RGB", 100, 50]), (200, ["RGB", 100, 50])])
def test_a_picture_has_no_more_pixels_than_are_looked_at(
    runtime: Runtime, make: Callable[..., Job], most: int, seen: list[Any]
) -> None:
    stored = runtime.storage.put_bytes("projects/x/wide.png", png(100, 50))
    done = run(runtime, make("looks", file=ImageInput(id="x", key=stored.key, sha256=stored.sha256), most=most))
    assert done.result is not None
    assert done.result["seen"] == seen


def test_a_running_job_stops_at_its_next_step_when_cancelled(runtime: Runtime, make: Callable[..., Job]) -> None:
    job = make("steps", steps=1000)
    thread = in_background(runtime, job)
    with runtime.transaction() as session:
        jobs.cancel(session, session.get_one(Job, job.id))
    thread.join(10)
    assert row(runtime, job).state == "cancelled"


def test_a_worker_that_shuts_down_gives_its_job_back_and_another_goes_on(
    runtime: Runtime, make: Callable[..., Job]
) -> None:
    job = make("steps", steps=60)
    shutting_down = threading.Event()
    thread = in_background(runtime, job, shutting_down.is_set)
    eventually(lambda: (row(runtime, job).checkpoint or {}).get("step", 0) >= 3)
    shutting_down.set()
    thread.join(10)
    waiting = row(runtime, job)
    assert (waiting.state, waiting.attempt, waiting.lost_attempts) == ("queued", 2, 0)
    done = run(runtime, job)
    assert done.state == "succeeded"
    assert done.result is not None
    assert done.result["first"] >= 3


def test_a_worker_that_shuts_down_leaves_a_checkpoint(runtime: Runtime, make: Callable[..., Job]) -> None:
    job = make("trains", steps=100)
    shutting_down = threading.Event()
    thread = in_background(runtime, job, shutting_down.is_set)
    eventually(lambda: row(runtime, job).progress)
    shutting_down.set()
    thread.join(10)
    assert row(runtime, job).state == "queued"
    done = run(runtime, job)
    assert done.result is not None
    assert done.result["first"] > 0


def test_a_database_that_is_away_for_a_moment_fails_no_job(
    runtime: Runtime, make: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    save, calls = jobs.save_checkpoint, itertools.count()

    def breaks_off(*args: Any) -> None:
        if next(calls) == 1:
            raise OperationalError("UPDATE", {}, Exception("server closed the connection unexpectedly"))
        save(*args)

    monkeypatch.setattr(jobs, "save_checkpoint", breaks_off)
    done = run(runtime, make("steps", steps=3))
    assert (done.state, done.attempt) == ("succeeded", 1)


def test_a_job_that_takes_too_long_is_stopped(runtime: Runtime, make: Callable[..., Job]) -> None:
    failed = run(runtime, make("steps", steps=10_000, timeout_seconds=1))
    assert failed.error is not None
    assert failed.error["code"] == "timeout"


def test_a_worker_whose_job_was_given_away_stops_and_publishes_nothing(
    runtime: Runtime, make: Callable[..., Job]
) -> None:
    job = make("steps", steps=200)
    thread = in_background(runtime, job)
    with runtime.transaction() as session:
        jobs.lose(session, session.get_one(Job, job.id), runtime.settings)
    thread.join(10)
    assert not thread.is_alive()
    assert row(runtime, job).state == "queued"
    assert row(runtime, job).result is None


def test_progress_reaches_the_row(runtime: Runtime, make: Callable[..., Job]) -> None:
    job = make("steps", steps=100)
    thread = in_background(runtime, job)
    eventually(lambda: (row(runtime, job).progress or {}).get("step", 0) >= 5)
    progress = row(runtime, job).progress
    assert progress is not None
    with runtime.transaction() as session:
        jobs.cancel(session, session.get_one(Job, job.id))
    thread.join(10)
    assert progress["stage"] == "counting"
    assert progress["total_steps"] == 100
    assert progress["seconds_left"] > 0
    assert progress["seconds"] >= progress["stage_seconds"] > 0


def test_a_worker_whose_renewal_hangs_stops_when_its_lease_is_over(
    runtime: Runtime, make: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    hang = threading.Event()
    monkeypatch.setattr(jobs, "renew", lambda *_: hang.wait(20))
    quick = replace(runtime, settings=replace(runtime.settings, lease_seconds=0.3))
    ended, counts = threading.Event(), handlers.counts

    def counts_and_tells(work: Work[Any, Any]) -> Any:
        try:
            return counts(work)
        finally:
            ended.set()

    monkeypatch.setattr(handlers, "counts", counts_and_tells)
    job = make("counts", steps=10_000)
    thread = in_background(quick, job)
    assert ended.wait(30)
    hang.set()
    thread.join(30)
    assert row(runtime, job).result is None
    assert row(runtime, job).state == "running", "it is no longer ours to end"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
        sqlite3.OperationalError("database or disk is full"),
        sqlite3.OperationalError("disk I/O error"),
    ],
)
def test_a_full_disk_is_recognised_however_it_is_told_and_wrapped(error: Exception) -> None:
    wrapped = RuntimeError("the checkpoint could not be kept")
    wrapped.__cause__ = error
    assert disk_is_full(error)
    assert disk_is_full(wrapped)
    assert not disk_is_full(ValueError("some other bug"))


def test_a_gpu_that_has_failed_is_told_from_one_that_is_full() -> None:
    assert gpu_is_lost(RuntimeError("CUDA error: an illegal memory access was encountered"))
    assert gpu_is_lost(RuntimeError("No CUDA GPUs are available"))
    assert not gpu_is_lost(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"))
