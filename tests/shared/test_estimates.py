"""What is left of a job is the sum of its stages; a job begins when enough of those before it have ended."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session

from shared import catalog, figures, inventory
from shared.catalog import kinds
from shared.catalog.kinds import (
    LOADING,
    GenerateInputs,
    ImportInputs,
    ImportParams,
    StoredImage,
    UploadInputs,
    UploadParams,
    UploadResult,
)
from shared.catalog.params import GenerateParams, TrainParams, WantedPicture
from shared.models import Job
from shared.outside.db import utcnow
from shared.queue import estimates, jobs, speeds
from shared.queue.estimates import free_at, starts_of
from shared.queue.speeds import Seconds
from shared.runtime import Runtime
from tests.domain import FILE, NOTHING, claim, make_job, make_project, make_runtime, make_user


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.servers)])
def runtime(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runtime]:
    url = request.getfixturevalue("postgres").make_database() if request.param == "postgres" else None
    runtime = make_runtime(tmp_path, url)
    yield runtime
    runtime.close()
    figures.forget()


@pytest.fixture
def session(runtime: Runtime) -> Iterator[Session]:
    with runtime.transaction() as session:
        yield session


NOW = utcnow()


@pytest.fixture(autouse=True)
def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "utcnow", lambda: NOW)


@pytest.fixture
def add(session: Session) -> Callable[..., Job]:
    """Adds a job as it stands in the table. `ago`: it runs, since so many seconds."""
    project = make_project(session, make_user(session))

    def add(kind: str = "train", *, ago: float | None = None, **row: Any) -> Job:
        job = make_job(session, project, kind)
        if ago is not None:
            row = {"state": "running", "started_at": NOW - timedelta(seconds=ago), **row}
        if kind == "train":
            row = {"stages": TRAINING, **row}
        for name, value in row.items():
            setattr(job, name, value)
        session.flush()
        return job

    return add


TRAINING = [["drawing others", 10], ["encoding", 2], ["training", 100]]
SECONDS = {"drawing others": 50.0, "encoding": 2.0, "training": 200.0}
TIMED = [[name, size, SECONDS[name]] for name, size in TRAINING]


def done(add: Callable[..., Job], *paces: float) -> None:
    """Trainings that have succeeded, each so many times slower than `SECONDS`."""
    for pace in paces:
        add(state="succeeded", stages=[[name, size, seconds * pace] for name, size, seconds in TIMED])


def finish(session: Session, job: Job, runtime: Runtime) -> Seconds | None:
    return estimates.of_job(session, job, runtime.settings).to_finish


def about(seconds: float) -> Any:
    return pytest.approx(seconds, abs=0.01)


# --- a job that runs


def test_the_stages_that_follow_are_part_of_what_is_left(session, runtime, add):
    done(add, 1, 1, 1, 1, 1)
    progress = {"stage": "drawing others", "step": 64, "total_steps": 100, "seconds": 32.0, "seconds_left": 18.0}
    left = finish(session, add(ago=32, progress={**progress, "stage_seconds": 32.0}), runtime)
    assert left.middle == about(18 + 2 + 200)
    assert left.low == about(18 / 1.25 + 2 + 200)
    assert left.high == about(18 * 1.25 + 2 + 200)


def test_a_stage_that_has_just_begun_goes_as_those_of_earlier_jobs(session, runtime, add):
    done(add, 1, 1, 1, 1, 1)
    progress = {"stage": "training", "step": 5, "total_steps": 100, "seconds": 62.0, "stage_seconds": 10.0}
    left = finish(session, add(ago=62, progress={**progress, "seconds_left": 900.0}), runtime)
    assert (left.low, left.middle, left.high) == (about(190), about(190), about(190))


def test_a_tenth_of_a_stage_later_its_own_speed_counts_too(session, runtime, add):
    done(add, 1, 1, 1, 1, 1)
    progress = {"stage": "training", "step": 10, "total_steps": 100, "seconds": 152.0, "stage_seconds": 100.0}
    left = finish(session, add(ago=152, progress={**progress, "seconds_left": 900.0}), runtime)
    assert (left.low, left.middle, left.high) == (about(180), about((180 + 900) / 2), about(900 * 1.25))


def test_the_own_speed_of_a_stage_may_change_as_much_as_those_of_earlier_jobs(session, runtime, add):
    done(add, *(1 + number / 10 for number in range(11)))  # from 1 to 2
    progress = {"stage": "training", "step": 50, "total_steps": 100, "seconds": 152.0, "stage_seconds": 100.0}
    left = finish(session, add(ago=152, progress={**progress, "seconds_left": 150.0}), runtime)
    assert (left.low, left.middle, left.high) == (about(150 * 1.1 / 1.5), about(150), about(150 * 1.9 / 1.5))


def test_time_since_the_last_report_is_taken_off(session, runtime, add):
    done(add, 1, 1, 1, 1, 1)
    counted = {"stage": "training", "step": 50, "total_steps": 100, "seconds": 152.0, "stage_seconds": 100.0}
    job = add(ago=162, progress={**counted, "seconds_left": 100.0})
    assert finish(session, job, runtime).middle == about(90)
    uncounted = {"stage": "training", "seconds": 52.0, "stage_seconds": 0.0}
    assert finish(session, add(ago=92, progress=uncounted), runtime).middle == about(160)


def test_a_job_that_has_not_reported_yet_is_in_its_first_stage(session, runtime, add):
    done(add, 1, 1, 1, 1, 1)
    assert finish(session, add(ago=20), runtime).middle == about(232)


def test_an_attempt_is_timed_from_its_own_start(session, runtime, add):
    done(add, 1, 1, 1, 1, 1)
    dispatched_at = NOW - timedelta(seconds=20)
    assert finish(session, add(ago=5000, attempt=2, dispatched_at=dispatched_at), runtime).middle == about(232)


def test_what_takes_longer_than_ever_may_take_as_long_again(session, runtime, add):
    done(add, 1, 1, 1, 1, 1)
    left = finish(session, add(ago=352, progress={"stage": "training", "seconds": 52.0, "stage_seconds": 0.0}), runtime)
    assert (left.low, left.middle, left.high) == (0.0, about(150), about(300))


def test_the_bounds_are_percentiles_of_earlier_jobs(session, runtime, add):
    done(add, *(1 + number / 10 for number in range(11)))  # from 1 to 2
    left = finish(session, add(ago=0), runtime)
    assert (left.low, left.middle, left.high) == (about(1.1 * 252), about(1.5 * 252), about(1.9 * 252))


def test_the_bounds_of_few_jobs_are_wide(session, runtime, add):
    done(add, 1.0, 1.2)
    left = finish(session, add(ago=0), runtime)
    assert (left.low, left.middle, left.high) == (about(252 / 2), about(1.1 * 252), about(1.2 * 252 * 2))


def test_only_jobs_of_the_same_kind_and_base_model_count(session, runtime, add):
    done(add, 1, 1, 1, 1, 1)
    assert finish(session, add(ago=0, base_model="large"), runtime) is None
    assert finish(session, add("generate", ago=0, stages=[["training", 100]]), runtime) is None


@pytest.mark.parametrize("stages", [None, [["training", 100]], [*TRAINING, ["polishing", 1]]])
def test_there_is_no_estimate_if_the_seconds_of_a_stage_are_unknown(session, runtime, add, stages):
    add(state="succeeded", stages=TRAINING)  # as a worker of an earlier version ends it
    if stages and len(stages) > 1:
        done(add, 1, 1, 1, 1, 1)
    assert finish(session, add(ago=10, stages=stages), runtime) is None


def test_the_last_stage_needs_no_earlier_jobs_once_a_tenth_is_done(session, runtime, add):
    progress = {"stage": "training", "total_steps": 100, "seconds": 52.0, "stage_seconds": 0.0, "seconds_left": 80.0}
    assert finish(session, add(ago=52, progress={**progress, "step": 9}), runtime) is None
    assert finish(session, add(ago=52, progress={**progress, "step": 10}), runtime).middle == about(80)


# --- a job that waits


@pytest.mark.parametrize(
    ("running", "waiting", "slots", "starts"),
    [
        ([], [5, 5], 1, [0, 5]),
        ([15], [10, 20], 1, [15, 25]),
        ([15, 40], [10, 20, 5], 2, [15, 25, 40]),
        ([15], [10, 20], 3, [0, 0]),
        ([15, 40, 60], [10], 2, [40]),  # a slot has gone: the first to end frees none
    ],
)
def test_jobs_begin_on_the_slot_that_is_free_first(running, waiting, slots, starts):
    assert starts_of({None: free_at(running, slots)}, [("chibi", seconds) for seconds in waiting]) == starts


def test_a_job_waits_for_a_slot_of_a_worker_that_has_its_base_model():
    slots = {frozenset({"a"}): [10.0], frozenset({"a", "b"}): [30.0]}
    waiting = [("b", 5.0), ("a", 5.0), ("a", 50.0), (None, 5.0), ("c", 5.0), ("b", 5.0)]
    assert starts_of(slots, waiting) == [30.0, 10.0, 15.0, 35.0, math.inf, 40.0]


def test_a_job_whose_base_model_no_worker_has_gets_no_estimate(session, runtime, add):
    done(add, 1, 1, 1, 1, 1)
    jobs.check_in(session, "gpu@one", "gpu", 1)
    session.flush()
    inventory.report(session, "gpu@one", {"other": replace(catalog.base_models()["chibi"], name="other")})
    assert estimates.of_job(session, add(), runtime.settings) == estimates.Wait()
    inventory.report(session, "gpu@one", catalog.base_models())
    figures.forget()
    assert finish(session, add(), runtime).middle == about(252 + 252)


def test_a_job_begins_when_those_before_it_have_ended(session, runtime, add):
    done(add, 1, 1, 1, 1, 1)
    add("generate", state="succeeded", stages=[["generating", 10, 30.0]])
    jobs.check_in(session, "gpu@one", "gpu", 1)
    progress = {"stage": "training", "step": 50, "total_steps": 100, "seconds": 152.0, "stage_seconds": 100.0}
    add(ago=152, progress={**progress, "seconds_left": 100.0})  # as usual
    add("generate", stages=[["generating", 20]])
    last = estimates.of_job(session, add(stages=[["training", 50]]), runtime.settings)
    assert last.to_start.middle == about(100 + 60)
    assert last.to_start.low == about(80 + 30)
    assert last.to_start.high == about(125 + 120)
    assert last.to_finish.middle == about(100 + 60 + 100)


def test_what_stands_behind_an_unknown_job_has_no_estimate(session, runtime, add):
    done(add, 1, 1, 1, 1, 1)
    jobs.check_in(session, "gpu@one", "gpu", 1)
    unknown, last = add("generate"), add()
    assert estimates.of_job(session, unknown, runtime.settings).to_start == Seconds(0.0, 0.0, 0.0)
    assert estimates.of_job(session, unknown, runtime.settings).to_finish is None
    assert estimates.of_job(session, last, runtime.settings) == estimates.Wait()
    jobs.check_in(session, "gpu@two", "gpu", 1)
    figures.forget()
    assert estimates.of_job(session, last, runtime.settings).to_finish.middle == about(252)


def test_nothing_begins_without_a_worker(session, runtime, add):
    done(add, 1, 1, 1, 1, 1)
    assert estimates.of_job(session, add(), runtime.settings) == estimates.Wait()


def test_a_part_of_a_requeued_job_may_have_been_done(session, runtime, add):
    done(add, 1, 1, 1, 1, 1)
    jobs.check_in(session, "gpu@one", "gpu", 1)
    assert finish(session, add(attempt=2), runtime) == Seconds(0.0, 252.0, 252.0)


# --- sizes and measurements


def test_the_size_of_a_training_is_of_its_params_and_pictures():
    params = TrainParams(train_steps=100, batch_size=2, gradient_accumulation=3, resolution=10)
    ends = {LOADING: 1, "drawing the preview": 100}
    without = {"drawing others": 0, "encoding": 400, "training": 60_000}
    assert kinds.train_stages(params, 4) == ends | without
    with_prior = {"drawing others": 600, "encoding": 1000, "training": 120_000}
    assert kinds.train_stages(replace(params, prior_images=6), 4) == ends | with_prior


def test_a_job_keeps_the_stages_in_which_there_is_something_to_do(session):
    project = make_project(session, make_user(session))
    picture = WantedPicture(prompt="a", seed=1)
    params = GenerateParams(width=10, height=20, inference_steps=5)
    inputs = GenerateInputs(base_model="chibi", pictures=[picture] * 3, loras=[])
    drawing = jobs.enqueue(session, project, kinds.GENERATE, params=params, inputs=inputs)
    assert (drawing.base_model, drawing.stages) == ("chibi", [[LOADING, 1], ["generating", 3000]])
    zip_ = jobs.enqueue(session, project, kinds.IMPORT, params=ImportParams(pictures=7), inputs=ImportInputs(key="k"))
    assert (zip_.base_model, zip_.stages) == (None, [["importing", 7]])
    nothing = jobs.enqueue(
        session, project, kinds.GENERATE, params=params, inputs=replace(inputs, pictures=[]), checkpoint={"images": {}}
    )
    assert nothing.stages is None  # the checkpoint may hold a part of the work


def test_the_seconds_of_one_attempt_are_kept(runtime):
    with runtime.transaction() as session:
        project = make_project(session, make_user(session))
        once, again = make_job(session, project), make_job(session, project)
        for job in (once, again):
            job.stages = [[LOADING, 1], ["generating", 3000]]
    held = claim(runtime, once)
    with runtime.transaction() as session:
        jobs.succeed(session, held, NOTHING, {LOADING: 1.0, "generating": 6.0, "tidying up": 1.0})
    lost = claim(runtime, again)
    with runtime.transaction() as session:
        jobs.give_back(session, lost)
    held = claim(runtime, again)
    with runtime.transaction() as session:
        jobs.succeed(session, held, NOTHING, {LOADING: 1.0, "generating": 3.0})
    with runtime.transaction() as session:
        assert session.get_one(Job, once.id).stages == [[LOADING, 1, 1.0], ["generating", 3000, 6.0]]
        assert session.get_one(Job, again.id).stages == [[LOADING, 1], ["generating", 3000]]
        size = {"generating": 1000.0}
        assert speeds.expected(session, "generate", "chibi", size) == Seconds(1.0, 2.0, 4.0)


def test_a_kind_without_a_base_model_is_timed_as_a_whole(runtime):
    with runtime.transaction() as session:
        project = make_project(session, make_user(session))
        jobs.check_in(session, "cpu@one", "cpu", 1)
        first, second = (
            jobs.enqueue(session, project, kinds.UPLOAD, params=UploadParams(), inputs=UploadInputs(key=key))
            for key in ("a", "b")
        )
    held = claim(runtime, first, "cpu@one")
    result = UploadResult(image=StoredImage(**FILE, width=64, height=64))
    with runtime.transaction() as session:
        jobs.succeed(session, held, result, {"decoding": 1.5, "storing": 0.5})
    with runtime.transaction() as session:
        wait = estimates.of_job(session, session.get_one(Job, second.id), runtime.settings)
        assert wait == estimates.Wait(to_start=Seconds(0.0, 0.0, 0.0), to_finish=Seconds(1.0, 2.0, 4.0))
