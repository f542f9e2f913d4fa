"""`kill -9` of the GPU worker in the middle of a training: the job resumes from its checkpoint and succeeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from bootlora import Bootlora
from bootlora.following import follow
from bootlora.types import Job
from embedded import demo
from embedded.stack import Stack
from tests.e2e.plans import small
from tests.waiting import eventually

pytestmark = [pytest.mark.servers, pytest.mark.slow]

STEPS, EVERY = 40, 5


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Says often how far it is, so that the middle isn't missed."""
    folder = tmp_path_factory.mktemp("stack")
    with Stack(folder, settings={"BOOTLORA_HEARTBEAT_SECONDS": "0.3"}) as stack:
        yield stack


def test_a_killed_worker_loses_nothing(stack: Stack, bootlora: Bootlora) -> None:
    project_id = prepared(bootlora)
    bootlora.projects.start(project_id)
    job_id = next(
        event["data"]["job_id"]
        for event in bootlora.projects.events(project_id)
        if event["type"] == "round.training_started"
    )
    seen(bootlora, job_id, lambda job: step_of(job) >= 3 * EVERY)
    stack.kill("worker-gpu")
    after = seen(bootlora, job_id, lambda job: job["attempt"] == 2 and step_of(job) > 0)
    assert step_of(after) >= 2 * EVERY  # a run from nothing would be at its first steps

    *_, last = follow(bootlora, project_id)
    assert last.project["state"] == "completed"
    told = list(bootlora.projects.events(project_id))
    assert [event["data"]["seq"] for event in told] == list(range(1, len(told) + 1))
    assert [event["data"]["job_id"] for event in told if event["type"] == "job.requeued"] == [job_id]
    assert bootlora.loras.all(project_id)[0]["train_steps"] == STEPS


def prepared(bootlora: Bootlora) -> str:
    """A draft with four references, ready to start."""
    character = demo.Character.read(demo.EXAMPLE)
    project = bootlora.projects.create(
        name="killed",
        trigger_word=character.trigger,
        feature_tags=character.feature_tags,
        base_model="chibi",
        curation="auto",
        plan=small(train_steps=STEPS, checkpoint_every_steps=EVERY),
    )
    image = bootlora.images.upload(project["id"], character.picture, view="front", framing="full_body")
    bootlora.jobs.wait(bootlora.images.crop(image["id"], "quadrants")["id"])
    return project["id"]


def seen(bootlora: Bootlora, job_id: str, wanted: Callable[[Job], bool], seconds: float = 60) -> Job:
    """The job as soon as it is as wanted."""

    def as_wanted() -> Job | None:
        job = bootlora.jobs.get(job_id)
        return job if wanted(job) else None

    found = eventually(as_wanted, seconds, every_seconds=0.1)
    assert found is not None
    return found


def step_of(job: Job) -> int:
    progress = job.get("progress") or {}
    return progress["step"] if progress.get("stage") == "training" else 0
