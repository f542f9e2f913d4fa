"""Workers, dispatchers, reapers and clients, interleaved as hypothesis likes, over the real domain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select, update

from shared import projects, rounds
from shared.catalog.kinds import GENERATE, GenerateInputs, GenerateResult
from shared.catalog.params import GenerateParams, WantedPicture
from shared.errors import Conflict
from shared.lifecycle import TERMINAL_JOB_STATES, JobState, ProjectState
from shared.models import Base, Job, Project, Worker
from shared.outside.db import clock
from shared.queue import jobs, turns
from shared.runtime import Runtime
from tests.domain import RecordingBroker, make_project, make_runtime, make_user, result_of
from tests.faults.invariants import assert_rows, count_doubled, count_lost

WORKERS = {"gpu@one": ("gpu", 1), "gpu@two": ("gpu", 2), "cpu@one": ("cpu", 1)}
PICTURES = [WantedPicture(prompt="a", seed=1)] * 2
# The whole method in few pictures.
PLAN = {"rounds": [{"kind": "style", "target": 6, "max_generations": 2}, {"kind": "character"}]}


class Broker(RecordingBroker):
    """Messages lie here until somebody takes, doubles or loses them."""

    runtime: Runtime

    def send(self, queue: str, job_id: str, attempt: int) -> None:
        super().send(queue, job_id, attempt)
        with self.runtime.db.reading() as session:
            assert turns.free_slots(session, queue, self.runtime.settings) >= 0, "more was handed out than can be taken"


class Machine(RuleBasedStateMachine):
    """The model is small: who believes to hold what, and what has been accepted. The rest is the tables."""

    runtime: Runtime  # of the test that runs this

    def __init__(self) -> None:
        super().__init__()
        self.accepted: list[str] = []
        self.held: list[tuple[str, jobs.ClaimedJob]] = []  # (worker, job): also what zombies believe to hold
        self.broker.sent.clear()
        self.broker.down = False
        with self.runtime.transaction() as session:
            for table in reversed(Base.metadata.sorted_tables):
                session.execute(table.delete())

    @property
    def broker(self) -> Broker:
        assert isinstance(self.runtime.broker, Broker)
        return self.runtime.broker

    @initialize()
    def a_service_at_work(self) -> None:
        with self.runtime.transaction() as session:
            ann, bob = (make_user(session, name) for name in ("ann", "bob"))
            self.projects = [make_project(session, user, references=0).id for user in (ann, bob)]
            method = make_project(session, bob, plan=PLAN)
            self.method = method.id
            projects.start(session, method)
        for worker in WORKERS:
            self.check_in(worker)
        self.submit(whose=0, priority=0)

    # --- clients

    @rule(whose=st.integers(0, 1), priority=st.integers(0, 1))
    def submit(self, whose: int, priority: int) -> None:
        with self.runtime.transaction() as session:
            project = session.get_one(Project, self.projects[whose])
            inputs = GenerateInputs(base_model="chibi", pictures=PICTURES, loras=[])
            job = jobs.enqueue(session, project, GENERATE, params=GenerateParams(), inputs=inputs, priority=priority)
        self.accepted.append(job.id)

    @rule()
    def start_retry_or_reopen_the_method(self) -> None:
        with self.runtime.transaction() as session:
            project = session.get_one(Project, self.method)
            if project.state == ProjectState.DRAFT:
                projects.start(session, project)
            elif project.state == ProjectState.FAILED:
                rounds.retry(session, project)
            elif project.state == ProjectState.COMPLETED:
                projects.add_round(session, project, {"kind": "character"}, self.runtime.base_models)

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job_id = self.draw_job(data)
        if job_id is None:
            return
        ended = self.state_of(job_id) in (JobState.SUCCEEDED, JobState.FAILED)
        try:
            with self.runtime.transaction() as session:
                rounds.cancel_job(session, session.get_one(Job, job_id))
        except Conflict:
            assert ended
        else:
            assert not ended

    @rule()
    @precondition(lambda self: len(self.accepted) > 6)
    def cancel_the_method(self) -> None:
        with self.runtime.transaction() as session:
            project = session.get_one(Project, self.method)
            if project.state in (ProjectState.RUNNING, ProjectState.FAILED):
                projects.cancel(session, project)

    # --- workers

    @rule(worker=st.sampled_from(sorted(WORKERS)))
    def check_in(self, worker: str) -> None:
        with self.runtime.transaction() as session:
            jobs.check_in(session, worker, *WORKERS[worker])
            jobs.wake(session, WORKERS[worker][0])

    @rule(worker=st.sampled_from(sorted(WORKERS)))
    def check_out(self, worker: str) -> None:
        with self.runtime.transaction() as session:
            jobs.check_out(session, worker)

    @rule(worker=st.sampled_from(sorted(WORKERS)))
    def fall_silent(self, worker: str) -> None:
        with self.runtime.transaction() as session:
            session.execute(update(Worker).where(Worker.name == worker).values(seen_at=clock(-3600)))

    @rule(data=st.data(), double=st.booleans())
    @precondition(lambda self: self.broker.sent)
    def take_a_message(self, data: st.DataObject, double: bool) -> None:
        message = data.draw(st.sampled_from(self.broker.sent))
        if not double:
            self.broker.sent.remove(message)
        queue, job_id, attempt = message
        worker = data.draw(st.sampled_from(sorted(name for name, (of, _) in WORKERS.items() if of == queue)))
        with self.runtime.transaction() as session:
            job = session.get_one(Job, job_id)
            due = job.state == JobState.QUEUED and job.attempt == attempt
            held = jobs.claim(session, job_id, attempt, worker, 90)
        assert (held is not None) == due
        if held is not None:
            self.held.append((worker, held))

    @rule(data=st.data())
    @precondition(lambda self: self.held)
    def beat(self, data: st.DataObject) -> None:
        _, held = self.draw_held(data)

        def renew(session: Any) -> None:
            if jobs.renew(session, held, 90, {"step": 1}):
                rounds.job_ended_badly(session, jobs.stop(session, held))

        self.as_holder(held, renew)

    @rule(data=st.data())
    @precondition(lambda self: self.held)
    def save_a_checkpoint(self, data: st.DataObject) -> None:
        _, held = self.draw_held(data)
        self.as_holder(held, lambda session: jobs.save_checkpoint(session, held, {"step": held.attempt}))

    @rule(data=st.data(), taken=st.integers(0, 3))
    @precondition(lambda self: self.held)
    def succeed(self, data: st.DataObject, taken: int) -> None:
        _, held = self.draw_held(data)
        self.as_holder(held, lambda session: self.publish(session, held, taken))

    @rule(data=st.data())
    @precondition(lambda self: self.held)
    def fail(self, data: st.DataObject) -> None:
        _, held = self.draw_held(data)
        error = {"code": "nan_loss", "message": "", "retryable": True}
        self.as_holder(held, lambda session: rounds.job_ended_badly(session, jobs.fail(session, held, error)))

    @rule(data=st.data())
    @precondition(lambda self: self.held)
    def drain(self, data: st.DataObject) -> None:
        _, held = self.draw_held(data)

        def give_back(session: Any) -> None:
            lost = session.get_one(Job, held.id).lost_attempts
            job = jobs.give_back(session, held)
            assert job.lost_attempts == lost
            if job.state == JobState.CANCELLED:
                rounds.job_ended_badly(session, job)

        self.as_holder(held, give_back)

    @rule(data=st.data())
    @precondition(lambda self: self.held)
    def give_up(self, data: st.DataObject) -> None:
        _, held = self.draw_held(data)

        def lose_the_gpu(session: Any) -> None:
            job = jobs.give_up(session, held, self.runtime.settings)
            if job.state in TERMINAL_JOB_STATES:
                session.flush()
                rounds.job_ended_badly(session, job)

        self.as_holder(held, lose_the_gpu)

    @rule(data=st.data())
    @precondition(lambda self: self.held)
    def crash_and_start_again(self, data: st.DataObject) -> None:
        worker, _ = self.draw_held(data)
        self.held = [(name, held) for name, held in self.held if name != worker]
        self.runtime.bury_predecessor(worker)

    # --- time, the reaper, the dispatchers, the broker

    @rule(data=st.data())
    @precondition(lambda self: self.held)
    def a_lease_runs_out(self, data: st.DataObject) -> None:
        _, held = self.draw_held(data)
        with self.runtime.transaction() as session:
            mine = (Job.id == held.id, Job.lease_token == held.token)
            session.execute(update(Job).where(*mine).values(lease_until=clock(-1)))

    @rule()
    def messages_grow_old(self) -> None:
        with self.runtime.transaction() as session:
            session.execute(update(Job).where(Job.dispatched_at.is_not(None)).values(dispatched_at=clock(-3600)))

    @rule()
    def reap(self) -> None:
        self.runtime.reap()
        with self.runtime.db.reading() as session:
            assert not jobs.overdue(session)

    @rule()
    def dispatch(self) -> None:
        self.runtime.dispatch()

    @rule(queue=st.sampled_from(["gpu", "cpu"]))
    def a_dispatcher_dies_before_it_sends(self, queue: str) -> None:
        with self.runtime.db.transaction() as session:
            if turns.free_slots(session, queue, self.runtime.settings) > 0:
                turns.take_next(session, queue, self.runtime.settings)

    @rule(down=st.booleans())
    def the_broker_goes_or_comes(self, down: bool) -> None:
        self.broker.down = down

    @rule()
    def the_broker_forgets_everything(self) -> None:
        self.broker.sent.clear()

    # --- what always holds

    @invariant()
    def rows_are_in_order(self) -> None:
        with self.runtime.db.reading() as session:
            assert_rows(session)

    def teardown(self) -> None:
        """Bring everything up again: whatever was accepted comes to its end."""
        self.broker.down = False
        for _ in range(200):
            if not self.open_jobs():
                break
            self.a_quiet_hour()
        with self.runtime.db.reading() as session:
            assert_rows(session)
            assert (count_lost(session, self.accepted), count_doubled(session)) == (0, 0)

    def a_quiet_hour(self) -> None:
        with self.runtime.transaction() as session:
            session.execute(update(Job).where(Job.state == JobState.RUNNING).values(lease_until=clock(-1)))
            session.execute(update(Job).where(Job.state == JobState.QUEUED).values(dispatched_at=None))
        self.broker.sent.clear()
        self.runtime.reap()
        for worker in WORKERS:
            self.check_in(worker)
        for queue, job_id, attempt in self.broker.sent[:]:
            with self.runtime.transaction() as session:
                held = jobs.claim(session, job_id, attempt, f"{queue}@one", 90)
            assert held is not None, "what was just handed out is there to be taken"
            with self.runtime.transaction() as session:
                self.publish(session, held, taken=100)

    # --- helpers

    def publish(self, session: Any, held: jobs.ClaimedJob, taken: int) -> None:
        result = result_of(held, taken)
        if isinstance(result, GenerateResult):
            keys = (f"{held.id}/{held.attempt}/{number}" for number in range(len(result.images)))
            result = GenerateResult(
                images=[replace(each, key=key) for each, key in zip(result.images, keys, strict=True)]
            )
        jobs.succeed(session, held, result)

    def as_holder(self, held: jobs.ClaimedJob, write: Any) -> None:
        """Write as one who believes to hold the job: it succeeds if the token is still the job's, and only then."""
        with self.runtime.db.reading() as session:
            mine = session.get_one(Job, held.id).lease_token == held.token
        try:
            with self.runtime.transaction() as session:
                write(session)
        except jobs.LostLease:
            assert not mine
        else:
            assert mine

    def draw_held(self, data: st.DataObject) -> tuple[str, jobs.ClaimedJob]:
        return data.draw(st.sampled_from(self.held))

    def draw_job(self, data: st.DataObject) -> str | None:
        with self.runtime.db.reading() as session:
            found = list(session.scalars(select(Job.id).order_by(Job.id)))
        return found[data.draw(st.integers(0, len(found) - 1))] if found else None

    def state_of(self, job_id: str) -> str:
        with self.runtime.db.reading() as session:
            return session.get_one(Job, job_id).state

    def open_jobs(self) -> list[str]:
        with self.runtime.db.reading() as session:
            return list(session.scalars(select(Job.id).where(Job.state.not_in(TERMINAL_JOB_STATES))))


def interleave(runtime: Runtime, examples: int) -> None:
    broker = Broker()
    broker.runtime = runtime
    runtime.broker = broker
    machine = type("Bound", (Machine,), {"runtime": runtime})
    limits = settings(
        max_examples=examples,
        stateful_step_count=25,
        phases=[Phase.generate],  # to shrink takes minutes: remove this to look into a failure
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=limits)


@pytest.mark.slow
def test_whatever_order_things_happen_in_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    runtime = make_runtime(tmp_path)
    interleave(runtime, 10)
    runtime.close()


@pytest.mark.servers
def test_and_on_postgres(tmp_path: Path, postgres_url: str) -> None:
    runtime = make_runtime(tmp_path, postgres_url)
    interleave(runtime, 3)
    runtime.close()
