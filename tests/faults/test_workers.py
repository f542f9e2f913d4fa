"""Workers that die, freeze, drain, and are told the same thing twice."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import select

from shared import rounds
from shared.errors import Conflict
from shared.models import Event, Job
from tests.faults.conftest import Trial

GPU_WORKERS = ("worker-gpu", "worker-gpu2")


def notes(diary: Path) -> list[tuple[int, str]]:
    """What the handlers wrote down, and the process in which they did."""
    return [(pid, text) for pid, text in map(json.loads, diary.read_text().splitlines())]


def drawn(diary: Path) -> list[str]:
    """The pictures."""
    return [text for _, text in notes(diary) if " drew " in text]


@pytest.mark.fault("F1", "kill -9 of a GPU worker's child")
def test_a_killed_child_is_noticed_at_once_and_its_job_goes_on(trial: Trial, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    job = trial.running(12, diary=str(diary))
    worker = trial.service.job(job).worker
    assert worker is not None
    trial.strike()
    trial.service.child_of(f"worker-{worker.partition('@')[0]}").kill()
    trial.service.await_that(lambda: trial.service.job(job).attempt == 2)
    trial.service.await_running(job)
    trial.recovered()
    trial.all_done()
    assert len(drawn(diary)) == 12, "what was stored is not drawn again"


@pytest.mark.fault("F2", "kill -9 of a whole worker")
def test_a_killed_worker_is_noticed_and_another_goes_on(trial: Trial) -> None:
    job = trial.running(12)
    trial.strike()
    trial.service.kill(name_of_worker(trial, job))
    trial.service.await_that(lambda: trial.service.job(job).attempt == 2)
    trial.service.await_that(lambda: trial.service.job(job).state != "queued")
    trial.recovered()
    trial.all_done()


# On SQLite a worker may stand still with the one write lock in hand, and then everybody waits for it.
@pytest.mark.on("postgres")
@pytest.mark.fault("F3", "a worker stands still, and wakes when its job is another's")
def test_a_zombie_changes_nothing(trial: Trial) -> None:
    job = trial.running(12)
    zombie = name_of_worker(trial, job)
    trial.strike()
    with trial.service.frozen(zombie):
        trial.service.await_that(lambda: trial.service.job(job).attempt == 2)
        (done,) = trial.service.await_done(job)
        trial.recovered()
        assert name_of_worker(trial, job) != zombie
        result = done.result
    trial.service.await_that(lambda: {"gpu", "gpu2"} <= trial.service.live_workers())
    trial.all_done()
    after = trial.service.job(job)
    assert (after.attempt, after.result) == (done.attempt, result)


@pytest.mark.fault("F6", "a job that kills its worker each time")
def test_a_poisonous_job_fails_and_the_next_users_job_runs(trial: Trial) -> None:
    service = trial.service
    poison = trial.submit(2, dies=True)
    other = service.submit(service.project(service.user(f"other than {trial.project.id}")), 2)
    trial.strike()
    (healthy,) = service.await_done(other)
    assert healthy.state == "succeeded"
    (failed,) = trial.all_done("failed")
    assert failed.error is not None
    assert failed.error["code"] == "worker_lost"
    assert (failed.id, failed.lost_attempts) == (poison.id, 3)


@pytest.mark.fault("F6", "CUDA fails in a worker's child")
def test_a_child_whose_gpu_has_failed_is_replaced_and_its_job_goes_on(trial: Trial, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    children = {trial.service.child_of(name).pid for name in GPU_WORKERS}
    trial.strike()
    trial.submit(4, at=2, loses_gpu=2, diary=str(diary))
    (done,) = trial.all_done()
    assert (done.attempt, done.lost_attempts) == (3, 2)
    assert len(drawn(diary)) == 4, "what was stored is not drawn again"
    hurt = [pid for pid, line in notes(diary) if " attempt " in line][:2]
    assert hurt[0] in children
    for pid in hurt:
        trial.service.await_that(lambda pid=pid: not psutil.pid_exists(pid))


@pytest.mark.fault("F6", "CUDA fails each time")
def test_a_job_that_always_loses_the_gpu_fails(trial: Trial) -> None:
    trial.submit(2, loses_gpu=99)
    trial.strike()
    (failed,) = trial.all_done("failed")
    assert failed.error is not None
    assert (failed.error["code"], failed.lost_attempts) == ("worker_lost", 3)
    assert trial.service.await_done(trial.service.submit(trial.project, 1))[0].state == "succeeded"


@pytest.mark.fault("F6", "a job leaves its process grown")
@pytest.mark.parametrize("queue", ["gpu", "cpu"])
def test_a_child_that_has_grown_is_replaced(trial: Trial, tmp_path: Path, queue: str) -> None:
    diary = tmp_path / "diary"
    submit = {"gpu": trial.submit, "cpu": trial.crop}[queue]
    submit(grows=600_000_000, diary=str(diary))
    trial.strike()
    trial.all_done()
    (grown,) = {pid for pid, _ in notes(diary)}
    trial.service.await_that(lambda: not psutil.pid_exists(grown))
    trial.recovered()
    assert trial.service.await_done(submit())[0].lost_attempts == 0


@pytest.mark.fault("F12", "the same message twice at once, and again after success")
def test_a_doubled_message_finds_nothing_to_do(trial: Trial) -> None:
    job = trial.submit(4)
    trial.strike()
    for _ in range(3):
        trial.service.runtime.broker.send("gpu", job.id, 1)
    trial.all_done()
    trial.service.runtime.broker.send("gpu", job.id, 1)
    follower = trial.submit(1)
    trial.service.await_done(follower)
    assert trial.service.job(job).attempt == 1
    assert starts_of(trial, job) == 1


@pytest.mark.on("postgres")  # as above: worker-io is frozen
@pytest.mark.fault("F13", "a dispatcher dies between marking a job and sending its message")
def test_a_job_that_was_marked_but_not_sent_is_sent_again(trial: Trial) -> None:
    service = trial.service
    with service.frozen("worker-io"):
        trial.accepted.append(service.mark_as_sent(trial.project, 0))
    trial.strike()
    trial.all_done()


@pytest.mark.fault("F14", "many dispatchers and reapers at once")
def test_several_dispatchers_and_reapers_are_harmless(trial: Trial) -> None:
    service = trial.service
    trial.strike()
    with ThreadPoolExecutor(8) as pool:
        submitted = [pool.submit(trial.submit, 2) for _ in range(10)]
        meddling = [pool.submit(act) for _ in range(15) for act in (service.runtime.dispatch, service.runtime.reap)]
        for each in (*submitted, *meddling):
            each.result()
    trial.all_done()
    assert all(job.attempt == 1 for job in service.await_done(*trial.accepted))


@pytest.mark.fault("F15", "rolling restart under load")
def test_a_rolling_restart_loses_nothing_and_counts_no_attempt_as_lost(trial: Trial) -> None:
    service = trial.service
    for _ in range(4):
        trial.submit(100)
    service.await_running(trial.accepted[0])
    trial.strike()
    for name in ("worker-gpu", "worker-gpu2", "worker-cpu", "worker-io"):
        service.restart(name)
    trial.recovered()
    done = trial.all_done()
    assert all(job.lost_attempts == 0 for job in done)
    assert any(job.attempt > 1 for job in done), "nothing was interrupted, so nothing was shown"


@pytest.mark.fault("F15", "SIGTERM to every process of a worker at once")
def test_a_sigterm_that_reaches_the_child_too_gives_its_job_back(trial: Trial, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    job = trial.running(100, diary=str(diary))
    trial.strike()
    trial.service.terminate_group(name_of_worker(trial, job))
    (done,) = trial.all_done()
    assert (done.attempt, done.lost_attempts) == (2, 0)
    assert len(drawn(diary)) == 100, "what was stored is not drawn again"


@pytest.mark.fault("F17", "cancel: waiting, running, twice, and at the moment of completion")
def test_a_cancelled_job_ends_once(trial: Trial) -> None:
    service = trial.service
    running, waiting = trial.running(200), trial.submit(200)
    quick = [trial.submit(1, seconds=0.01 * number) for number in range(6)]
    trial.strike()
    for _ in range(2):
        for job in (running, waiting, *quick):
            cancel(trial, job)
    ended = service.await_done(*trial.accepted)
    trial.recovered()
    assert {job.state for job in ended} <= {"cancelled", "succeeded"}
    assert {service.job(job).state for job in (running, waiting)} == {"cancelled"}


@pytest.mark.fault("F17", "cancel of a running job: by the flag, by SIGTERM, by SIGKILL")
@pytest.mark.parametrize("queue", ["gpu", "cpu"])
@pytest.mark.parametrize(
    ("trouble", "child_lives", "lost_attempts"),
    [({}, True, 0), ({"hangs": True}, False, 0), ({"deaf": True}, False, 1)],
    ids=["step", "sigterm", "sigkill"],
)
def test_a_cancel_comes_through_by_a_flag_or_sigterm_or_sigkill(
    trial: Trial, tmp_path: Path, queue: str, trouble: dict[str, Any], child_lives: bool, lost_attempts: int
) -> None:
    diary = tmp_path / "diary"
    if queue == "gpu":
        job = trial.running(400, at=1, diary=str(diary), **trouble)
    else:
        job = trial.crop(steps=400, diary=str(diary), **trouble)
    trial.service.await_that(diary.exists)
    (child,) = {pid for pid, _ in notes(diary)}
    trial.strike()
    cancel(trial, job)
    (ended,) = trial.all_done("cancelled")
    assert (ended.attempt, ended.lost_attempts) == (1, lost_attempts)
    if child_lives:
        assert psutil.pid_exists(child)
    else:
        trial.service.await_that(lambda: not psutil.pid_exists(child))
    follower = trial.submit(1) if queue == "gpu" else trial.crop()
    assert trial.service.await_done(follower)[0].state == "succeeded"


@pytest.mark.fault("F25", "one user queues many jobs, another one")
def test_the_other_users_job_is_next(trial: Trial) -> None:
    service = trial.service
    greedy = [trial.submit(3) for _ in range(30)]
    modest = service.submit(service.project(service.user(f"modest beside {trial.project.id}")), 1)
    trial.strike()
    service.await_done(modest)
    trial.recovered()
    assert sum(service.job(job).state == "succeeded" for job in greedy) < 15
    trial.all_done()


def cancel(trial: Trial, job: Job) -> None:
    try:
        with trial.service.runtime.transaction() as session:
            rounds.cancel_job(session, session.get_one(Job, job.id))
    except Conflict:
        assert trial.service.job(job).state == "succeeded"


def name_of_worker(trial: Trial, job: Job) -> str:
    worker = trial.service.job(job).worker
    assert worker is not None
    return f"worker-{worker.partition('@')[0]}"


def starts_of(trial: Trial, job: Job) -> int:
    with trial.service.runtime.db.reading() as session:
        told = session.scalars(select(Event.data).where(Event.type == "job.started"))
        return sum(data["job_id"] == job.id for data in told)
