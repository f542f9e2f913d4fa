"""What is told to webhooks while senders die."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

import pytest
from sqlalchemy import select

from shared import webhooks
from shared.models import Delivery, Event
from tests.faults.conftest import Trial
from tests.webhooks.receiver import Handler, Receiver, receiving, says


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.mark.fault("F22", "the sender is killed after the receiver's 200, before it is written down")
def test_an_event_is_told_again_under_the_same_id(trial: Trial, receiver: Receiver) -> None:
    service = trial.service
    heard, may_answer = threading.Event(), threading.Event()

    def answers_late(handler: Handler) -> None:
        heard.set()
        may_answer.wait(30)
        says(200)(handler)

    receiver.answers["/hook"] = answers_late
    given = {"url": receiver.url(), "description": "", "event_types": []}
    with service.runtime.transaction() as session:
        project = session.merge(trial.project)
        user = session.merge(service.local_user())
        webhooks.create(session, user, given, project, service.runtime.vault, service.runtime.settings)
    trial.submit(2)
    assert heard.wait(60)
    trial.strike()
    service.kill("worker-io")  # it has sent; what the receiver says now, nobody writes down
    may_answer.set()
    trial.all_done()

    def all_delivered() -> bool:
        with service.runtime.db.reading() as session:
            told = select(Delivery.state).join(Event).where(Event.project_id == trial.project.id)
            return set(session.scalars(told)) == {"delivered"}

    service.await_that(all_delivered)
    trial.recovered()
    ids = Counter(received.headers["webhook-id"] for received in receiver.received)
    assert max(ids.values()) == 2, "the first was told again, under its own id"
    with service.runtime.db.reading() as session:
        events = list(session.scalars(select(Event.id).where(Event.project_id == trial.project.id)))
    assert len(ids) == len(events)
