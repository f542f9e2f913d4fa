"""A job's place in the queue and its estimated times match what the queue then does."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, text

from shared.catalog.kinds import LOADING
from shared.models import Job
from shared.outside.db import utcnow
from shared.queue import estimates, jobs, turns
from tests.factories import make_job, make_project, make_user


def test_a_place_is_what_the_queue_then_does(session_of, runtime):
    settings = replace(runtime.settings, max_running_jobs=100)
    with session_of() as session:
        for name, priorities, served in (("ada", [0, 0, 5, 0], 1), ("bob", [0, 9], 0), ("cy", [0, 0, 0], 2)):
            user = make_user(session, name, served_at=utcnow() - timedelta(hours=served))
            project = make_project(session, user.id)
            for priority in priorities:
                make_job(session, project, priority=priority)
    with session_of() as session:
        waiting = session.query(jobs.Job).all()
        places = {job.id: turns.place(session, job) for job in waiting}
        order = turns.in_order(session, "gpu")
    taken = []
    while True:
        with session_of() as session:
            job = turns.take_next(session, "gpu", settings)
            if job is None:
                break
            taken.append(job.id)
        time.sleep(0.002)  # turns go by the database's clock, and SQLite's counts milliseconds
    assert [places[job_id] for job_id in taken] == list(range(9))
    assert [row.id for row in order] == taken


PICTURE = {"prompt": "a", "seed": 1}


DRAWING = {"inference_steps": 4, "width": 10, "height": 10}


def generation(pictures: int, **given: Any) -> dict[str, Any]:
    inputs = {"base_model": "chibi", "pictures": [PICTURE] * pictures, "loras": []}
    return {"params": DRAWING, "inputs": inputs, **given}


@pytest.fixture
def history(ada, session_of, monkeypatch):
    """A worker with one slot, five drawings that took two seconds for each picture, and one that is going on."""
    with session_of() as session:
        project = make_project(session, ada.user_id)
        jobs.check_in(session, "w1", "gpu", 1)
        for _ in range(5):
            stages = [[LOADING, 1, 0.0], ["generating", 10 * 400, 20.0]]
            make_job(session, project, **generation(10, state="succeeded", stages=stages))
        progress = {"stage": "generating", "seconds": 0.0, "stage_seconds": 0.0}
        running = make_job(session, project, **generation(10, state="running", started_at=utcnow(), progress=progress))
        first = make_job(session, project, **generation(10))
        second = make_job(session, project, **generation(5))
    monkeypatch.setattr(estimates, "utcnow", lambda: running.started_at + timedelta(seconds=5))
    return first.id, second.id


def test_the_wait_is_estimated_from_similar_jobs(ada, history):
    first, second = (ada.get(f"/v1/jobs/{job_id}").json for job_id in history)
    for job, place, start, finish in ((first, 0, 15.0, 35.0), (second, 1, 35.0, 45.0)):
        assert job["place"] == place
        for name, seconds in (("seconds_to_start", start), ("seconds_to_finish", finish)):
            assert job[name] == seconds
            assert job[f"{name}_range"] == {"low": seconds, "high": seconds}  # all of them took the same
    running = ada.get("/v1/jobs?state=running").json["items"][0]
    assert (running["place"], running["seconds_to_start"], running["seconds_to_finish"]) == (None, 0.0, 15.0)


def test_without_earlier_jobs_there_is_no_estimate(ada, session_of):
    with session_of() as session:
        job = make_job(session, make_project(session, ada.user_id))
    shown = ada.get(f"/v1/jobs/{job.id}").json
    for name in ("seconds_to_start", "seconds_to_finish"):
        assert shown[name] is shown[f"{name}_range"] is None


def test_a_dry_run_estimates_the_seconds_if_it_can(ada, session_of):
    with session_of() as session:
        project = make_project(session, ada.user_id)
        drawing = project.plan.rounds[0].generate
        picture = drawing.width * drawing.height * drawing.inference_steps
        for _ in range(5):
            stages = [[LOADING, 1, 0.0], ["generating", picture, 2.0]]
            make_job(session, project, **generation(1, state="succeeded", stages=stages))
            area = 128 * 128
            stages = [["drawing others", area, 3.0], ["encoding", area, 0.5], ["training", 8 * area, 0.1]]
            ends = [[LOADING, 1, 5.0], ["drawing the preview", area, 2.0]]
            make_job(session, project, kind="train", state="succeeded", stages=[*ends, *stages])
    body = {"name": "x", "trigger_word": "x21", "feature_tags": ["fox ears"]}
    shown = ada.post("/v1/projects?dry_run=true", body).json
    style, _, character = shown["rounds"]
    training = 7 + style["train_images"] * 0.5 + style["train_steps"] * 0.1
    assert style["seconds"] == pytest.approx(training + style["pictures"] * 2.0, abs=0.1)
    others = 24  # pictures of other characters: they are drawn first, and each step learns from some of them too
    training = 7 + others * 3.0 + (character["train_images"] + others) * 0.5 + 2 * character["train_steps"] * 0.1
    assert character["seconds"] == pytest.approx(training + character["pictures"] * 2.0, abs=0.1)
    assert shown["seconds"] == pytest.approx(sum(each["seconds"] for each in shown["rounds"]), abs=0.2)
    assert shown["seconds_range"]["low"] <= shown["seconds"] <= shown["seconds_range"]["high"]


def test_a_list_of_jobs_uses_an_index(ada, session_of):
    with session_of() as session:
        for narrowed in ({}, {"state": "queued"}):
            query = select(Job).where(Job.user_id == ada.user_id).order_by(Job.created_at.desc(), Job.id.desc())
            found = (
                query.filter_by(**narrowed)
                .limit(20)
                .compile(session.get_bind(), compile_kwargs={"literal_binds": True})
            )
            plan = [row[3] for row in session.execute(text(f"EXPLAIN QUERY PLAN {found}"))]
            assert len(plan) == 1, plan
            assert "USING INDEX jobs_by_user" in plan[0]
            assert ("state=?" in plan[0]) == bool(narrowed)
