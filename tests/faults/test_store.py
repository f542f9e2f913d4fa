"""The object store goes away, crawls, and sends other bytes than were put."""

from __future__ import annotations

import time
from typing import Any

import pytest
from sqlalchemy import select

from shared import projects
from shared.lifecycle import ProjectState
from shared.models import Image, Project
from tests.domain import make_project
from tests.faults.conftest import Trial

PLAN = {
    "rounds": [
        {"kind": "style", "target": 6, "max_generations": 1, "enough": 4, "candidates_per_pick": 2},
        {"kind": "character"},
    ]
}
TRAINING = {"train_steps": 30, "checkpoint_every_steps": 10}


@pytest.mark.fault("F10", "the store is down for 12 s")
def test_a_store_that_is_down_is_waited_for(trial: Trial) -> None:
    trial.running(30)
    trial.strike()
    trial.service.store.cut()
    time.sleep(12)
    trial.service.store.heal()
    trial.all_done()


@pytest.mark.fault("F10", "the store is killed while objects are being put")
def test_a_store_that_dies_keeps_what_it_has_acknowledged(trial: Trial) -> None:
    for _ in range(4):
        trial.submit(30)
    trial.service.await_running(trial.accepted[0])
    trial.strike()
    trial.service.kill("seaweedfs")
    trial.service.await_ready("seaweedfs")
    trial.recovered()
    trial.all_done()


@pytest.mark.fault("F10", "the store answers at 10 kB/s")
def test_a_store_that_crawls_only_takes_longer(trial: Trial) -> None:
    trial.strike()
    trial.service.store.slow(10_000)
    trial.submit(4)
    trial.all_done()


@pytest.mark.fault("F10", "the store sends wrong bytes for a picture, a checkpoint and a LoRA")
def test_wrong_bytes_are_noticed_and_fetched_again(trial: Trial) -> None:
    project = bootstrap(trial)
    trial.strike()
    trial.service.store.spoil(3)
    trial.service.await_that(lambda: state_of(trial, project) != ProjectState.RUNNING)
    trial.recovered()
    assert state_of(trial, project) == ProjectState.COMPLETED
    trial.all_done()


def bootstrap(trial: Trial, **over: Any) -> Project:
    """A project on its way, with pictures that are really in the store."""
    runtime = trial.service.runtime
    plan = {"rounds": [{**each, "train": TRAINING} for each in PLAN["rounds"]]}
    with runtime.transaction() as session:
        project = make_project(session, session.merge(trial.service.local_user()), plan=plan, **over)
        for image in session.scalars(select(Image).where(Image.project_id == project.id)):
            key = f"projects/{project.id}/images/{image.id}.png"
            stored = runtime.storage.put_bytes(key, image.id.encode() * 200)
            image.key, image.sha256 = stored.key, stored.sha256
        trial.accepted.append(projects.start(session, project))
    return project


def state_of(trial: Trial, project: Project) -> str:
    with trial.service.runtime.db.reading() as session:
        return session.get_one(Project, project.id).state
