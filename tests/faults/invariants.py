"""What must hold after every fault, whatever it was: one function, called at the end of each test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.lifecycle import (
    JOB_MOVES,
    OPEN_ROUND_STATES,
    STAGE_JOBS,
    TERMINAL_JOB_STATES,
    JobState,
    ProjectState,
    RoundState,
)
from shared.models import Event, Image, Job, Lora, Project, Round

# An event tells which state a job has come to.
STATE_TOLD_BY = {
    "job.started": JobState.RUNNING,
    "job.requeued": JobState.QUEUED,
    "job.succeeded": JobState.SUCCEEDED,
    "job.failed": JobState.FAILED,
    "job.cancelled": JobState.CANCELLED,
}


def assert_rows(session: Session) -> None:
    """All that can be told from the tables alone, at any moment."""
    jobs = list(session.scalars(select(Job)))
    _leases_are_single(jobs)
    _events_have_no_gap(session)
    _moves_are_legal(session, jobs)
    _results_are_published_once(session, jobs)
    _rounds_wait_for_a_job(session)


def assert_accepted(session: Session, accepted: Iterable[str]) -> None:
    """Whatever was accepted has come to an end."""
    states = {job.id: job.state for job in session.scalars(select(Job))}
    lost = {job_id: states.get(job_id, "gone") for job_id in accepted if states.get(job_id) not in TERMINAL_JOB_STATES}
    assert not lost, f"accepted, but lost: {lost}"


def _leases_are_single(jobs: list[Job]) -> None:
    for job in jobs:
        held = job.lease_token is not None and job.lease_until is not None
        assert held == (job.state == JobState.RUNNING), f"{job.id} is {job.state}, lease {job.lease_token}"
        waits_in_vain = job.state == JobState.QUEUED and job.cancel_requested_at is not None
        assert not waits_in_vain, f"{job.id} has been cancelled, and yet waits for a worker"
    tokens = Counter(job.lease_token for job in jobs if job.lease_token)
    assert all(count == 1 for count in tokens.values())


def _events_have_no_gap(session: Session) -> None:
    for project_id, last in session.execute(select(Project.id, Project.seq)):
        query = select(Event.seq).where(Event.project_id == project_id).order_by(Event.seq)
        assert list(session.scalars(query)) == list(range(1, last + 1)), f"the events of {project_id} have a gap"


def _moves_are_legal(session: Session, jobs: list[Job]) -> None:
    told: dict[str, list[JobState]] = {job.id: [JobState.QUEUED] for job in jobs}
    query = select(Event.type, Event.data).where(Event.type.like("job.%")).order_by(Event.project_id, Event.seq)
    for type_, data in session.execute(query):
        told[data["job_id"]].append(STATE_TOLD_BY[type_])
    for job in jobs:
        story = told[job.id]
        for before, after in pairwise(story):
            assert after in JOB_MOVES[before], f"{job.id}: {' -> '.join(story)}"
        assert story[-1] == job.state, f"{job.id} is {job.state}, but its events say {' -> '.join(story)}"


def _results_are_published_once(session: Session, jobs: list[Job]) -> None:
    images = Counter(session.scalars(select(Image.job_id)))
    loras = Counter(session.scalars(select(Lora.job_id)))
    for job in jobs:
        found = images[job.id]
        done = job.state == JobState.SUCCEEDED
        assert (job.result is not None) == done, f"{job.id} is {job.state}, result {job.result}"
        assert loras[job.id] in ((0, 1) if done and job.kind == "train" else (0,))
        if job.kind == "generate":
            expected = {0, len(job.inputs["pictures"])} if job.round_id else {len(job.inputs["pictures"])}
            assert found in (expected if done else {0}), f"{job.id} is {job.state} with {found} pictures"
    keys = Counter(session.scalars(select(Image.key).where(Image.job_id.is_not(None))))
    assert all(count == 1 for count in keys.values()), "two pictures share an object"
    of_rounds = Counter(session.scalars(select(Lora.round_id)))
    assert all(count == 1 for count in of_rounds.values()), "a round has trained twice"


def _rounds_wait_for_a_job(session: Session) -> None:
    """A project at work has one round at work, and that waits for exactly one job, or for a person."""
    for project in session.scalars(select(Project).where(Project.state == ProjectState.RUNNING)):
        query = select(Round).where(Round.project_id == project.id, Round.state.in_(OPEN_ROUND_STATES))
        round_ = session.scalars(query).one()
        waiting = select(func.count()).where(
            Job.round_id == round_.id,
            Job.kind == STAGE_JOBS[RoundState(round_.state)],
            Job.state.in_((JobState.QUEUED, JobState.RUNNING)),
            Job.cancel_requested_at.is_(None) if round_.state == RoundState.CURATING else True,
        )
        for_a_person = round_.state == RoundState.CURATING and (project.curation == "manual" or round_.needs_attention)
        assert session.scalar(waiting) == (0 if for_a_person else 1), (
            f"{round_.state} of {project.id} waits for nothing"
        )
