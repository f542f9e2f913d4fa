"""Rows are locked in one order: a project before its jobs, a webhook before its deliveries, admins by id."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from flask import Flask, g
from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from api import context, owned
from shared import events, projects, rounds, users, webhooks
from shared.errors import Conflict, TooMany, Unauthorized
from shared.models import ApiKey, Image, Job, Project, User, Webhook
from shared.outside.db import clock, utcnow
from shared.queue import jobs, turns
from shared.queue.jobs import ClaimedJob, LostLease
from shared.queue.turns import Turn
from shared.runtime import Runtime
from shared.settings import Settings
from shared.webhooks import TryResult
from tests.domain import NOTHING, RecordingBroker, claim, make_job, make_project, make_runtime, make_user, result_of
from tests.factories import make_round
from tests.servers import Postgres
from tests.waiting import eventually

pytestmark = pytest.mark.servers

WORKER = "gpu@one"


@pytest.fixture
def runtime(postgres: Postgres, tmp_path: Path) -> Iterator[Runtime]:
    runtime = make_runtime(tmp_path, postgres.make_database())
    yield runtime
    runtime.close()


@contextmanager
def request_of(runtime: Runtime, user: User) -> Iterator[None]:
    """Where the view of a request of this user runs: what it has locked is free after the block."""
    app = Flask("locks")
    app.extensions["bootlora"] = runtime
    with app.test_request_context("/"), context.sessions():
        g.api_key = ApiKey(user=user)
        yield


def claim_it(runtime: Runtime, job_id: str, held: ClaimedJob | None) -> None:
    with runtime.transaction() as session:
        jobs.claim(session, job_id, 1, WORKER, 90)


def succeed(runtime: Runtime, job_id: str, held: ClaimedJob | None) -> None:
    with runtime.transaction() as session:
        jobs.succeed(session, held, NOTHING)


def fail(runtime: Runtime, job_id: str, held: ClaimedJob | None) -> None:
    with runtime.transaction() as session:
        rounds.job_ended_badly(session, jobs.fail(session, held, {"code": "x", "message": "x", "retryable": True}))


def give_back(runtime: Runtime, job_id: str, held: ClaimedJob | None) -> None:
    with runtime.transaction() as session:
        jobs.give_back(session, held)


def give_up(runtime: Runtime, job_id: str, held: ClaimedJob | None) -> None:
    with runtime.transaction() as session:
        jobs.give_up(session, held, runtime.settings)


def reap(runtime: Runtime, job_id: str, held: ClaimedJob | None) -> None:
    runtime.reap()


def bury(runtime: Runtime, job_id: str, held: ClaimedJob | None) -> None:
    runtime.bury_predecessor(WORKER)


def cancel(runtime: Runtime, job_id: str, held: ClaimedJob | None) -> None:
    with runtime.transaction() as session:
        rounds.cancel_job(session, session.get_one(Job, job_id))


@pytest.mark.parametrize("act", [claim_it, succeed, fail, give_back, give_up, reap, bury, cancel])
def test_a_request_that_has_the_project_gets_its_jobs_whatever_a_worker_is_doing(
    runtime: Runtime, user: User, project: Project, act: Callable[..., None]
) -> None:
    with runtime.transaction() as session:
        job = make_job(session, project)
    held = None if act is claim_it else claim(runtime, job, WORKER)
    if act is reap:
        with runtime.transaction() as session:
            session.execute(update(Job).values(lease_until=clock(-1)))
    with ThreadPoolExecutor(1) as pool:
        with request_of(runtime, user):
            owned.locked_project(project.id)
            worker = pool.submit(act, runtime, job.id, held)
            await_waiting(runtime)
            rounds.cancel_job(context.begin_transaction(), owned.locked_job(job.id))
        with suppress(LostLease):
            worker.result()
    with runtime.db.reading() as session:
        cancelled = session.get_one(Job, job.id)
        assert cancelled.state == "cancelled" or cancelled.cancel_requested_at is not None


@pytest.mark.parametrize("noun", ["project", "image", "job", "round", "webhook", "key"])
def test_a_request_that_writes_waits_for_the_one_before_and_one_that_reads_does_not(
    runtime: Runtime, user: User, project: Project, noun: str
) -> None:
    named = make_one_of_each(runtime, user, project)[noun]
    read = owned.round_ if noun == "round" else getattr(owned, noun)
    write = getattr(owned, f"locked_{noun}")
    with ThreadPoolExecutor(1) as pool:
        with request_of(runtime, user):
            write(*named)
            assert pool.submit(ask, runtime, user, read, named).result(timeout=30)
            late = pool.submit(ask, runtime, user, write, named)
            await_waiting(runtime)
        assert late.result()


def make_one_of_each(runtime: Runtime, user: User, project: Project) -> dict[str, tuple[Any, ...]]:
    """What each thing that a request can lock is found by."""
    given = {"url": "https://1.1.1.1/", "event_types": [], "description": ""}
    with runtime.transaction() as session:
        make_round(session, session.get_one(Project, project.id))
        webhook, _ = webhooks.create(session, user, given, None, runtime.vault, runtime.settings)
        key, _ = users.create_key(session, user, runtime.settings.secret_key, name="test")
        image_id = session.scalars(select(Image.id).where(Image.project_id == project.id)).first()
        return {
            "project": (project.id,),
            "image": (image_id,),
            "job": (make_job(session, project).id,),
            "round": (project.id, 1),
            "webhook": (webhook.id,),
            "key": (key.id,),
        }


def ask(runtime: Runtime, user: User, look_up: Callable[..., Any], named: tuple[Any, ...]) -> Any:
    with request_of(runtime, user):
        return look_up(*named)


def test_a_key_that_is_made_while_its_parent_is_revoked_ends_with_it(runtime: Runtime, user: User) -> None:
    make = partial(users.create_key, secret_key=runtime.settings.secret_key, name="test")
    with runtime.transaction() as session:
        parent, _ = make(session, session.get_one(User, user.id))

    def revoke() -> None:
        with runtime.transaction() as session:
            users.revoke(session, session.get_one(ApiKey, parent.id))

    with ThreadPoolExecutor(1) as pool:
        with runtime.transaction() as session:
            child, _ = make(session, session.get_one(User, user.id), parent_id=parent.id)
            late = pool.submit(revoke)
            await_waiting(runtime)
        late.result()
    with runtime.db.reading() as session:
        assert not users.is_good(session, child.id)
    with runtime.transaction() as session, pytest.raises(Unauthorized):
        make(session, session.get_one(User, user.id), parent_id=parent.id)


@pytest.mark.parametrize("others", [[], ["gpu@two"]])
def test_a_submit_is_committed_before_it_waits_for_who_hands_out_or_checks_in(
    runtime: Runtime, project: Project, others: list[str]
) -> None:
    with runtime.transaction() as session:
        for worker in (WORKER, *others):
            jobs.check_in(session, worker, "gpu", 1)
    broker = runtime.broker
    assert isinstance(broker, RecordingBroker)
    with ThreadPoolExecutor(1) as pool:
        with runtime.db.transaction() as session:
            jobs.check_in(session, WORKER, "gpu", 1)
            submit = pool.submit(submitted, runtime, project)
            await_waiting(runtime)
            assert session.scalars(select(Job.state)).all() == ["queued"]
            assert broker.sent == []
        assert broker.sent == [("gpu", submit.result().id, 1)]


def submitted(runtime: Runtime, project: Project) -> Job:
    with runtime.transaction() as session:
        return make_job(session, project)


@pytest.mark.parametrize("of_all_projects", [False, True])
def test_a_project_that_is_deleted_gets_its_deliveries_whatever_a_sender_is_doing(
    runtime: Runtime, user: User, project: Project, of_all_projects: bool
) -> None:
    with runtime.transaction() as session:
        webhook = Webhook(
            user_id=user.id,
            project_id=None if of_all_projects else project.id,
            url="https://example.com",
            event_types=[],
            sealed_secret=runtime.vault.seal("x"),
        )
        session.add(webhook)
        session.flush()
        events.record(session, session.get_one(Project, project.id), "project.started")
    with runtime.transaction() as session:
        claim = webhooks.take(session, webhook.id, "token", runtime.settings)
    assert claim is not None
    with ThreadPoolExecutor(1) as pool:
        with runtime.transaction() as session:
            session.execute(update(Webhook).values(lease_until=clock(60)))  # as a sender does first
            deleting = pool.submit(delete, runtime, project.id)
            await_waiting(runtime)
            assert webhooks.delivered(session, claim, TryResult(at=utcnow(), seconds=0.1, status=200))
        deleting.result()


def delete(runtime: Runtime, project_id: str) -> None:
    with runtime.transaction() as session:
        projects.delete(session, session.get_one(Project, project_id))


def test_of_two_admins_who_demote_each_other_one_stays(runtime: Runtime) -> None:
    with runtime.transaction() as session:
        one, other = (users.create(session, name, "admin").id for name in ("one", "other"))
    with ThreadPoolExecutor(1) as pool:
        with runtime.transaction() as session:
            users.change(session, users.get_locked(session, other), {"role": "member"})
            late = pool.submit(demote, runtime, one)
            await_waiting(runtime)
        with pytest.raises(Conflict, match="only admin"):
            late.result()


def test_a_request_that_has_counted_its_user_s_jobs_gets_them_whatever_a_dispatcher_is_doing(
    runtime: Runtime, user: User, project: Project
) -> None:
    with runtime.transaction() as session:
        job = make_job(session, project)
    with ThreadPoolExecutor(1) as pool, runtime.transaction() as session:
        jobs.check_cap(session, user, runtime.settings)
        assert pool.submit(take_next, runtime).result(timeout=30) is None
        jobs.cancel(session, session.get_one(Job, job.id))


def take_next(runtime: Runtime, queue: str = "gpu") -> Turn | None:
    with runtime.transaction() as session:
        return turns.take_next(session, queue, runtime.settings)


def test_whatever_happens_at_once_nobody_waits_in_a_circle(runtime: Runtime) -> None:
    with runtime.transaction() as session:
        people = [make_user(session, name, max_queued_jobs=1000) for name in ("ann", "bo", "cy")]
        places = [(user, make_project(session, user, curation="manual")) for user in people for _ in range(2)]
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(act_at_random, runtime, places, seed) for seed in range(8)]:
            done.result()
    with runtime.db.reading() as session:
        assert session.scalars(select(Job).where(Job.state == "succeeded")).all()


def act_at_random(runtime: Runtime, places: list[tuple[User, Project]], seed: int) -> None:
    """What requests, workers and clocks do."""
    dice = random.Random(seed)
    for _ in range(60):
        user, project = dice.choice(places)
        kind, queue = dice.choice([("train", "gpu"), ("score", "cpu")])
        with runtime.db.reading() as session:
            job = session.scalars(select(Job).where(Job.project_id == project.id).order_by(Job.attempt)).first()
        with suppress(LostLease, Conflict):
            match dice.randrange(5):
                case 0 | 1:
                    with request_of(runtime, user):
                        submit_or_cancel(runtime, project.id, kind, job if dice.random() < 0.3 else None)
                case 2:
                    with runtime.transaction() as session:
                        jobs.check_in(session, f"{queue}@{seed}", queue, 2)
                        jobs.wake(session, queue)
                case 3:
                    repair_in_line(runtime)
                case 4:
                    with runtime.transaction() as session:
                        move_or_reroute(session, job)
        turns_of_workers = [*delivered(runtime), take_next(runtime, "gpu"), take_next(runtime, "cpu")]
        for turn in filter(None, turns_of_workers):
            work_on(runtime, turn, f"{turn.queue}@{seed}", kind)


def delivered(runtime: Runtime) -> list[Turn]:
    """Take the messages that were sent. A message that nobody takes would hold its user's slot for a minute."""
    broker = cast(RecordingBroker, runtime.broker)
    sent, broker.sent = broker.sent, []
    return [Turn(*each) for each in sent]


def submit_or_cancel(runtime: Runtime, project_id: str, kind: str, cancelled: Job | None) -> None:
    """A request that adds a job to a project, and cancels another of its jobs if that waits."""
    project, session = owned.locked_project(project_id), context.begin_transaction()
    jobs.check_cap(session, context.user(), runtime.settings)
    if cancelled and cancelled.state == "queued":
        jobs.cancel(session, owned.locked_job(cancelled.id))
    make_job(session, project, kind)


def move_or_reroute(session: Session, job: Job | None) -> None:
    """Put a score where an older version has it, or put what is there where it belongs."""
    if job and job.kind == "score":
        session.execute(update(Job).where(Job.id == job.id, Job.state == "queued").values(queue="io"))
    else:
        turns.reroute(session)


def work_on(runtime: Runtime, turn: Turn, worker: str, following: str) -> None:
    with runtime.transaction() as session:
        held = jobs.claim(session, turn.id, turn.attempt, worker, 90)
    if held is None:
        return
    with suppress(LostLease), runtime.transaction() as session:
        if turn.attempt == 1 and following == "score":
            jobs.give_back(session, held)
        else:
            jobs.succeed(session, held, result_of(held))
            make_job(session, session.get_one(Project, held.project_id), following)


def test_a_job_that_is_submitted_while_the_line_is_repaired_is_dispatched(
    runtime: Runtime, user: User, project: Project
) -> None:
    with ThreadPoolExecutor(1) as pool:
        with runtime.transaction() as session:
            assert turns.repair_in_line(session) == 1  # for there is no job
            submit = pool.submit(submitted, runtime, project)
            await_waiting(runtime)
        job = submit.result()
    assert take_next(runtime) == Turn("gpu", job.id, 1, "chibi")


def test_the_line_is_repaired_without_users_who_are_submitting(runtime: Runtime, user: User, project: Project) -> None:
    with ThreadPoolExecutor(1) as pool, runtime.transaction() as session:
        job = make_job(session, project)
        assert pool.submit(repair_in_line, runtime).result(timeout=30) == 0
    assert take_next(runtime) == Turn("gpu", job.id, 1, "chibi")


def repair_in_line(runtime: Runtime) -> int:
    with runtime.transaction() as session:
        return turns.repair_in_line(session)


def test_of_two_jobs_for_one_place_in_the_queue_one_is_refused(runtime: Runtime, user: User, project: Project) -> None:
    settings = replace(runtime.settings, max_queued_jobs=1)
    with ThreadPoolExecutor(1) as pool:
        with runtime.transaction() as session:
            submit(session, project, user, settings)
            late = pool.submit(submit_another, runtime, project, user, settings)
            await_waiting(runtime)
        with pytest.raises(TooMany):
            late.result()


def submit(session: Session, project: Project, user: User, settings: Settings) -> None:
    jobs.check_cap(session, user, settings)
    make_job(session, project)


def submit_another(runtime: Runtime, project: Project, user: User, settings: Settings) -> None:
    with runtime.transaction() as session:
        submit(session, project, user, settings)


def test_of_two_imports_for_one_place_in_the_queue_one_is_refused(
    runtime: Runtime, user: User, project: Project
) -> None:
    settings = replace(runtime.settings, max_queued_imports=1)
    with runtime.transaction() as session:
        other = make_project(session, user)
    with ThreadPoolExecutor(1) as pool:
        with runtime.transaction() as session:
            projects.import_zip(session, session.get_one(Project, project.id), "a", 1, settings)
            late = pool.submit(import_another, runtime, other.id, settings)
            await_waiting(runtime)
        with pytest.raises(TooMany):
            late.result()


def import_another(runtime: Runtime, project_id: str, settings: Settings) -> None:
    with runtime.transaction() as session:
        projects.import_zip(session, session.get_one(Project, project_id), "b", 1, settings)


def test_of_two_webhooks_for_one_place_one_is_refused(runtime: Runtime, user: User) -> None:
    settings = replace(runtime.settings, max_webhooks_per_user=1)
    given = {"url": "https://1.1.1.1/", "event_types": [], "description": ""}
    with ThreadPoolExecutor(1) as pool:
        with runtime.transaction() as session:
            webhooks.create(session, user, given, None, runtime.vault, settings)
            late = pool.submit(create_another, runtime, user, given, settings)
            await_waiting(runtime)
        with pytest.raises(Conflict, match="the most that are allowed"):
            late.result()


def create_another(runtime: Runtime, user: User, given: dict[str, Any], settings: Settings) -> None:
    with runtime.transaction() as session:
        webhooks.create(session, user, given, None, runtime.vault, settings)


def demote(runtime: Runtime, user_id: str) -> None:
    with runtime.transaction() as session:
        users.change(session, users.get_locked(session, user_id), {"role": "member"})


def await_waiting(runtime: Runtime) -> None:
    """Wait until a transaction waits for another's lock."""
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )

    def somebody_waits() -> bool:
        with runtime.db.reading() as session:
            return bool(session.scalar(waiting))

    eventually(somebody_waits)
