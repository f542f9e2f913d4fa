"""A job's place in the queue and its estimated times match what the queue then does."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import select, text

from shared.models import Job
from shared.outside.db import utcnow
from shared.queue import jobs, turns
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
    taken = []
    while True:
        with session_of() as session:
            job = turns.take_next(session, "gpu", settings)
            if job is None:
                break
            taken.append(job.id)
        time.sleep(0.002)  # turns go by the database's clock, and SQLite's counts milliseconds
    assert [places[job_id] for job_id in taken] == list(range(9))


PICTURE = {"prompt": "a", "seed": 1}


@pytest.fixture
def history(ada, session_of):
    """A worker with one slot, and two drawings of ten pictures that took twenty seconds each."""
    began = utcnow() - timedelta(hours=1)
    with session_of() as session:
        project = make_project(session, ada.user_id)
        jobs.check_in(session, "w1", "gpu", 1)
        inputs = {"base_model": "chibi", "pictures": [PICTURE] * 10, "loras": []}
        past = {"state": "succeeded", "started_at": began, "finished_at": began + timedelta(seconds=20)}
        for _ in range(2):
            make_job(session, project, inputs=inputs, **past)
        make_job(session, project, inputs=inputs, state="running", started_at=utcnow() - timedelta(seconds=5))
        first = make_job(session, project, inputs=inputs)
        second = make_job(session, project, inputs=inputs | {"pictures": [PICTURE] * 5})
    return first.id, second.id


def test_the_wait_is_estimated_from_similar_jobs(ada, history):
    first, second = (ada.get(f"/v1/jobs/{job_id}").json for job_id in history)
    assert (first["place"], first["seconds_to_start"], first["seconds_to_finish"]) == (0, 10.0, 30.0)
    assert (second["place"], second["seconds_to_start"], second["seconds_to_finish"]) == (1, 30.0, 40.0)
    running = ada.get("/v1/jobs?state=running").json["items"][0]
    assert running["place"] is None
    assert 13 < running["seconds_to_finish"] < 16


def test_without_earlier_jobs_there_is_no_estimate(ada, session_of):
    with session_of() as session:
        job = make_job(session, make_project(session, ada.user_id))
    shown = ada.get(f"/v1/jobs/{job.id}").json
    assert (shown["place"], shown["seconds_to_start"], shown["seconds_to_finish"]) == (0, None, None)


def test_a_dry_run_estimates_the_seconds_if_it_can(ada, session_of, history):
    with session_of() as session:
        project = make_project(session, ada.user_id)
        began = utcnow()
        past = {"state": "succeeded", "started_at": began, "finished_at": began + timedelta(seconds=16)}
        make_job(session, project, kind="train", params={"train_steps": 160}, **past)
    body = {"name": "x", "trigger_word": "x21", "feature_tags": ["fox ears"]}
    rounds = ada.post("/v1/projects?dry_run=true", body).json["rounds"]
    character = rounds[-1]  # each of its steps learns from pictures of others too
    assert character["seconds"] == pytest.approx(2 * character["train_steps"] * 0.1 + character["pictures"] * 2.0)
    assert rounds[0]["seconds"] == pytest.approx(rounds[0]["train_steps"] * 0.1 + 48 * 2.0)


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
