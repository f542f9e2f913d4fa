"""What must hold after every fault, whatever it was: one function, called at the end of each test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared import reconcile
from shared.lifecycle import (
    JOB_MOVES,
    OPEN_ROUND_STATES,
    TERMINAL_JOB_STATES,
    JobState,
    ProjectState,
    RoundState,
)
from shared.models import Delivery, Event, Image, Job, Lora, Project, Round, Webhook
from shared.rounds import STAGE_KINDS
from tests.faults.service import Service

# An event tells which state a job has come to.
STATE_TOLD_BY = {
    "job.started": JobState.RUNNING,
    "job.requeued": JobState.QUEUED,
    "job.succeeded": JobState.SUCCEEDED,
    "job.failed": JobState.FAILED,
    "job.cancelled": JobState.CANCELLED,
}


def assert_invariants(service: Service, accepted: list[str]) -> dict[str, int]:
    """The eight of them, when all is quiet again. Returns what was lost and doubled, which must be nothing.

    1. Every accepted job has ended. 2. No job has two leases. 3. Each result is published once. 4. Events count
    without a gap, and tell of legal moves only. 5. Every event was delivered, or its delivery is listed as failed
    or still due. 6. The store holds what the rows name, readable, and nothing else. 7. No process and no scratch
    file is left over. 8. No secret stands in a log.
    """
    with service.runtime.db.reading() as session:
        lost, doubled = count_lost(session, accepted), count_doubled(session)
        assert_rows(session)
        _events_are_told(session)
    assert (lost, doubled) == (0, 0), f"{lost} lost, {doubled} doubled"
    _store_and_rows_agree(service)
    _nothing_is_left_over(service)
    _logs_keep_secrets(service)
    return {"lost": lost, "doubled": doubled}


def assert_rows(session: Session) -> None:
    """All that can be told from the tables alone, at any moment."""
    jobs = list(session.scalars(select(Job)))
    _leases_are_single(jobs)
    _events_have_no_gap(session)
    _moves_are_legal(session, jobs)
    _results_are_published_once(session, jobs)
    _rounds_wait_for_a_job(session)


def count_lost(session: Session, accepted: Iterable[str]) -> int:
    """How many of the accepted jobs have not come to an end."""
    states = {job.id: job.state for job in session.scalars(select(Job))}
    lost = [(job_id, states.get(job_id)) for job_id in accepted if states.get(job_id) not in TERMINAL_JOB_STATES]
    if lost:
        print(f"lost: {lost}")
    return len(lost)


def count_doubled(session: Session) -> int:
    """How many ends, pictures and LoRAs there are beyond what there may be."""
    ends = Counter(
        data["job_id"]
        for type_, data in session.execute(select(Event.type, Event.data).where(Event.type.like("job.%")))
        if STATE_TOLD_BY[type_] in TERMINAL_JOB_STATES
    )
    pictures = Counter(session.scalars(select(Image.key).where(Image.job_id.is_not(None))))
    of_rounds = Counter(session.scalars(select(Lora.round_id)))
    doubled = [what for each in (ends, pictures, of_rounds) for what, count in each.items() for _ in range(count - 1)]
    if doubled:
        print(f"doubled: {doubled}")
    return len(doubled)


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
        curating = round_.state == RoundState.CURATING
        open_ = select(Job.kind).where(
            Job.round_id == round_.id,
            Job.state.in_((JobState.QUEUED, JobState.RUNNING)),
            Job.cancel_requested_at.is_(None) if curating else True,
        )
        at_work = Counter(session.scalars(open_))
        awaited = at_work[STAGE_KINDS[RoundState(round_.state)]]
        if curating and (project.curation == "manual" or round_.needs_attention):
            assert awaited == 0, f"{project.id} waits for a person, and is scored"
        elif curating and at_work["generate"]:  # more was asked for: it is scored when that is there
            assert awaited <= 1, f"{project.id} is scored twice at once"
        else:
            assert awaited == 1, f"{round_.state} of {project.id} waits for {awaited} jobs"


def _events_are_told(session: Session) -> None:
    """Every webhook of a project has one delivery for each event since it began to listen."""
    for webhook in session.scalars(select(Webhook).where(Webhook.project_id.is_not(None))):
        wanted = select(Event.id).where(Event.project_id == webhook.project_id, Event.created_at > webhook.created_at)
        told = Counter(session.scalars(select(Delivery.event_id).where(Delivery.webhook_id == webhook.id)))
        assert set(told) >= set(session.scalars(wanted)) or webhook.disabled_at
        assert all(count == 1 for count in told.values())


def _store_and_rows_agree(service: Service) -> None:
    reconcile.collect(service.runtime, grace_seconds=0)
    found = reconcile.compare(service.runtime, grace_seconds=0, read=True)
    assert not found.missing, f"named by rows, but not in the store: {found.missing}"
    assert not found.orphans, f"in the store, but named by no row: {found.orphans}"


def _nothing_is_left_over(service: Service) -> None:
    for name in service.supervisor.processes:
        if name.startswith(("worker-gpu", "worker-cpu")):
            service.await_that(lambda name=name: len(service.processes(name)) == 2)
    scratch = service.data_dir / "scratch"
    service.await_that(lambda: not [each for each in scratch.glob("*") if each.is_dir()])  # of jobs


def _logs_keep_secrets(service: Service) -> None:
    for path in service.logs():
        text = path.read_text(errors="replace")
        for name, secret in service.secrets().items():
            assert secret not in text, f"{name} stands in {path.name}"
