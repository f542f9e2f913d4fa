from contextlib import suppress

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from shared.errors import Conflict, TooMany
from shared.models import Job, Project, User, Worker
from shared.outside.db import clock
from shared.queue import jobs, turns
from shared.runtime import Runtime
from tests.domain import NOTHING, RecordingBroker, claim, make_job, make_project, make_runtime, make_user, result_of
from tests.waiting import eventually


def waiting_job(runtime: Runtime, project: Project, **over: object) -> Job:
    with runtime.transaction() as session:
        return make_job(session, project, **over)  # type: ignore[arg-type]


def row(runtime: Runtime, job: Job) -> Job:
    with runtime.db.reading() as session:
        return session.get_one(Job, job.id)


def test_a_job_is_claimed_once(runtime: Runtime, project: Project) -> None:
    job = waiting_job(runtime, project)
    held = claim(runtime, job)
    assert held is not None
    assert held.attempt == 1
    assert claim(runtime, job) is None


def test_a_message_of_an_earlier_attempt_finds_nothing(runtime: Runtime, project: Project) -> None:
    job = waiting_job(runtime, project)
    held = claim(runtime, job)
    assert held is not None
    with runtime.transaction() as session:
        jobs.give_back(session, held)
    with runtime.transaction() as session:
        assert jobs.claim(session, job.id, 1, "gpu@two", 90) is None
        assert jobs.claim(session, job.id, 2, "gpu@two", 90) is not None


def test_a_worker_that_lost_its_lease_changes_nothing(runtime: Runtime, project: Project) -> None:
    job = waiting_job(runtime, project)
    zombie = claim(runtime, job)
    assert zombie is not None
    with runtime.transaction() as session:
        jobs.lose(session, session.get_one(Job, job.id), runtime.settings)
    heir = claim(runtime, job, "gpu@two")
    assert heir is not None
    for write in (
        lambda s: jobs.renew(s, zombie, 90, None),
        lambda s: jobs.succeed(s, zombie, NOTHING),
        lambda s: jobs.fail(s, zombie, {}),
        lambda s: jobs.save_checkpoint(s, zombie, {}),
        lambda s: jobs.give_back(s, zombie),
    ):
        with pytest.raises(jobs.LostLease), runtime.transaction() as session:
            write(session)
    with runtime.transaction() as session:
        jobs.succeed(session, heir, NOTHING)
    assert row(runtime, job).state == "succeeded"


def test_a_lease_that_is_over_is_noticed_and_the_job_waits_again(tmp_path: object) -> None:
    runtime = make_runtime(tmp_path, lease_seconds=0.05)  # type: ignore[arg-type]
    with runtime.transaction() as session:
        project = make_project(session, make_user(session))
    job = waiting_job(runtime, project)
    assert claim(runtime, job) is not None
    assert eventually(runtime.reap) == 1
    assert row(runtime, job).state == "queued"
    assert row(runtime, job).attempt == 2


def test_after_three_lost_workers_a_job_fails_and_says_so(runtime: Runtime, project: Project) -> None:
    job = waiting_job(runtime, project)
    for worker in ("gpu@a", "gpu@b", "gpu@c"):
        assert claim(runtime, job, worker) is not None
        runtime.bury_predecessor(worker)
    failed = row(runtime, job)
    assert failed.state == "failed"
    assert failed.error is not None
    assert failed.error["code"] == "worker_lost"


def test_a_worker_that_shuts_down_counts_no_lost_attempt(runtime: Runtime, project: Project) -> None:
    job = waiting_job(runtime, project)
    for _ in range(5):
        held = claim(runtime, job)
        assert held is not None
        with runtime.transaction() as session:
            jobs.give_back(session, held)
    assert row(runtime, job).state == "queued"
    assert row(runtime, job).lost_attempts == 0


def test_a_job_that_was_put_back_costs_no_gpu_while_it_waits(runtime: Runtime, user: User, project: Project) -> None:
    job = waiting_job(runtime, project)
    first = claim(runtime, job)
    assert first is not None
    with runtime.transaction() as session:
        session.execute(update(Job).values(dispatched_at=clock(-5000), started_at=clock(-5000)))
        jobs.give_back(session, first)
    with runtime.transaction() as session:
        session.execute(update(Job).values(started_at=clock(-9000)))
    second = claim(runtime, job)
    assert second is not None
    with runtime.transaction() as session:
        session.execute(update(Job).values(dispatched_at=clock(-100)))
        jobs.succeed(session, second, NOTHING)
    with runtime.db.reading() as session:
        for spent in (session.get_one(User, user.id).gpu_seconds, session.get_one(Project, project.id).gpu_seconds):
            assert 5100 <= spent < 5200


def test_a_worker_that_gives_a_job_back_is_given_no_other(runtime: Runtime, project: Project) -> None:
    with runtime.transaction() as session:
        jobs.check_in(session, "gpu@one", "gpu", 1)
    held = claim(runtime, waiting_job(runtime, project))
    assert held is not None
    broker = runtime.broker
    assert isinstance(broker, RecordingBroker)
    broker.sent.clear()
    with runtime.transaction() as session:
        jobs.give_back(session, held)
    assert broker.sent == []


def test_a_waiting_job_is_cancelled_at_once_and_a_running_one_is_asked(runtime: Runtime, project: Project) -> None:
    waiting, running = waiting_job(runtime, project), waiting_job(runtime, project)
    held = claim(runtime, running)
    assert held is not None
    for _ in range(2):  # asking twice changes nothing
        with runtime.transaction() as session:
            assert jobs.cancel(session, session.get_one(Job, waiting.id)).state == "cancelled"
            assert jobs.cancel(session, session.get_one(Job, running.id)).state == "running"
    with runtime.transaction() as session:
        assert jobs.renew(session, held, 90, None) is True
        jobs.stop(session, held)
    assert row(runtime, running).state == "cancelled"


def test_a_job_that_has_ended_can_not_be_cancelled(runtime: Runtime, project: Project) -> None:
    job = waiting_job(runtime, project)
    held = claim(runtime, job)
    assert held is not None
    with runtime.transaction() as session:
        jobs.succeed(session, held, NOTHING)
    with pytest.raises(Conflict), runtime.transaction() as session:
        jobs.cancel(session, session.get_one(Job, job.id))


def test_a_cancelled_job_whose_worker_is_lost_is_cancelled(runtime: Runtime, project: Project) -> None:
    job = waiting_job(runtime, project)
    assert claim(runtime, job, "gpu@a") is not None
    with runtime.transaction() as session:
        jobs.cancel(session, session.get_one(Job, job.id))
    runtime.bury_predecessor("gpu@a")
    assert row(runtime, job).state == "cancelled"


def test_a_cancelled_job_whose_worker_shuts_down_is_cancelled(runtime: Runtime, project: Project) -> None:
    job = waiting_job(runtime, project)
    held = claim(runtime, job)
    assert held is not None
    with runtime.transaction() as session:
        jobs.cancel(session, session.get_one(Job, job.id))
    with runtime.transaction() as session:
        jobs.give_back(session, held)
    assert row(runtime, job).state == "cancelled"


def test_only_as_many_jobs_are_sent_as_there_are_live_slots(runtime: Runtime, project: Project) -> None:
    broker = runtime.broker
    assert isinstance(broker, RecordingBroker)
    for _ in range(3):
        waiting_job(runtime, project)
    assert broker.sent == []
    with runtime.transaction() as session:
        jobs.check_in(session, "gpu@one", "gpu", 1)
    assert runtime.dispatch() == 1
    assert runtime.dispatch() == 0
    assert len(broker.sent) == 1


def test_a_job_is_handed_out_by_the_transaction_that_makes_it_and_told_of_after_it(
    runtime: Runtime, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with runtime.transaction() as session:
        jobs.check_in(session, "gpu@one", "gpu", 1)
    told: list[bool] = []
    monkeypatch.setattr(runtime.broker, "send", lambda queue, job_id, attempt: told.append(is_sent(runtime, job_id)))
    with runtime.transaction() as session:
        make_job(session, project)
        assert told == []
    assert told == [True]


def is_sent(runtime: Runtime, job_id: str) -> bool:
    with runtime.db.reading() as session:
        return session.get_one(Job, job_id).dispatched_at is not None


def test_of_a_transaction_that_fails_nothing_is_handed_out(runtime: Runtime, project: Project) -> None:
    broker = runtime.broker
    assert isinstance(broker, RecordingBroker)
    with runtime.transaction() as session:
        jobs.check_in(session, "gpu@one", "gpu", 1)
    with suppress(ZeroDivisionError), runtime.transaction() as session:
        make_job(session, project)
        raise ZeroDivisionError
    assert broker.sent == []


def test_a_message_that_could_not_be_sent_is_sent_when_the_broker_is_back(runtime: Runtime, project: Project) -> None:
    broker = runtime.broker
    assert isinstance(broker, RecordingBroker)
    with runtime.transaction() as session:
        jobs.check_in(session, "gpu@one", "gpu", 1)
    broker.down = True
    job = waiting_job(runtime, project)
    assert broker.sent == []
    broker.down = False
    runtime.dispatch()
    assert broker.sent == [("gpu", job.id, 1)]


def test_the_next_turn_is_that_of_the_user_served_least_recently(runtime: Runtime, user: User) -> None:
    broker = runtime.broker
    assert isinstance(broker, RecordingBroker)
    with runtime.transaction() as session:
        greedy = make_project(session, user)
        modest = make_project(session, make_user(session, "bob"))
        first, *_ = [make_job(session, greedy) for _ in range(5)]
        other = make_job(session, modest)
        jobs.check_in(session, "gpu@one", "gpu", 2)
    runtime.dispatch()
    assert {job_id for _, job_id, _ in broker.sent} == {first.id, other.id}


def in_line(runtime: Runtime, user: User) -> bool:
    with runtime.db.reading() as session:
        return session.get_one(User, user.id).in_line


def test_who_has_no_open_job_leaves_the_line_and_comes_back_with_the_next(
    runtime: Runtime, user: User, project: Project
) -> None:
    with runtime.transaction() as session:
        assert turns.repair_in_line(session) == 1
    assert not in_line(runtime, user)
    job = waiting_job(runtime, project)
    assert in_line(runtime, user)
    held = claim(runtime, job)
    assert held is not None
    with runtime.transaction() as session:
        assert turns.repair_in_line(session) == 0  # it may come back to the queue
    with runtime.transaction() as session:
        jobs.succeed(session, held, NOTHING)
        assert turns.repair_in_line(session) == 1
    assert not in_line(runtime, user)


def test_who_was_left_out_of_the_line_with_a_job_is_put_into_it(runtime: Runtime, user: User, project: Project) -> None:
    """As by an API of an older version, which runs on beside a newer worker until it is replaced."""
    waiting_job(runtime, project)
    with runtime.transaction() as session:
        session.execute(update(User).values(in_line=False))
        assert turns.take_next(session, "gpu", runtime.settings) is None
        assert turns.repair_in_line(session) == 1
        assert turns.take_next(session, "gpu", runtime.settings)


def test_a_waiting_job_in_a_queue_of_an_older_version_is_sent_to_the_queue_of_today(
    runtime: Runtime, project: Project
) -> None:
    broker = runtime.broker
    assert isinstance(broker, RecordingBroker)
    job, other = waiting_job(runtime, project, kind="score"), waiting_job(runtime, project)
    with runtime.transaction() as session:
        jobs.check_in(session, "cpu@one", "cpu", 1)
        session.execute(update(Job).where(Job.id == job.id).values(queue="io", dispatched_at=clock()))
    assert runtime.dispatch() == 0
    with runtime.transaction() as session:
        assert turns.reroute(session) == 1
        assert turns.reroute(session) == 0
    runtime.dispatch()
    assert broker.sent == [("cpu", job.id, 1)]
    assert row(runtime, other).queue == "gpu"


def test_a_running_job_in_a_queue_of_an_older_version_ends_as_any_other(runtime: Runtime, project: Project) -> None:
    job = waiting_job(runtime, project, kind="score")
    with runtime.transaction() as session:
        session.execute(update(Job).values(queue="io"))
    held = claim(runtime, job, "io@one")
    assert held is not None
    with runtime.transaction() as session:
        assert turns.reroute(session) == 0
    with runtime.transaction() as session:
        jobs.succeed(session, held, result_of(held))
    assert row(runtime, job).state == "succeeded"


def test_a_worker_is_alive_while_it_checks_in(runtime: Runtime) -> None:
    with runtime.transaction() as session:
        jobs.check_in(session, "cpu@one", "cpu", 1)
        assert jobs.is_alive(session, "cpu@one", 30)
        assert not jobs.is_alive(session, "cpu@two", 30)
        session.execute(update(Worker).values(seen_at=clock(-31)))
        assert not jobs.is_alive(session, "cpu@one", 30)
        jobs.check_out(session, "cpu@one")
        assert not jobs.is_alive(session, "cpu@one", 60)


def test_priority_counts_within_a_user(runtime: Runtime, project: Project) -> None:
    broker = runtime.broker
    assert isinstance(broker, RecordingBroker)
    with runtime.transaction() as session:
        make_job(session, project)
        urgent = make_job(session, project, priority=5)
        jobs.check_in(session, "gpu@one", "gpu", 1)
    runtime.dispatch()
    assert broker.sent == [("gpu", urgent.id, 1)]


def test_a_user_runs_no_more_than_their_share(runtime: Runtime, user: User, project: Project) -> None:
    broker = runtime.broker
    assert isinstance(broker, RecordingBroker)
    with runtime.transaction() as session:
        session.get_one(User, user.id).max_running_jobs = 1
        for _ in range(3):
            make_job(session, project)
        jobs.check_in(session, "gpu@one", "gpu", 3)
    runtime.dispatch()
    assert len(broker.sent) == 1


def test_too_many_waiting_jobs_are_refused(session: Session, runtime: Runtime, user: User) -> None:
    mine = make_project(session, user)
    for _ in range(runtime.settings.max_queued_jobs):
        make_job(session, mine)
    with pytest.raises(TooMany, match="are waiting"):
        jobs.check_cap(session, user, runtime.settings)
