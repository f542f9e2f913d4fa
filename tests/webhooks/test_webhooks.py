"""Webhooks and their deliveries, for owners and for senders."""

from __future__ import annotations

import datetime
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, timedelta, timezone
from pathlib import Path

import pytest
import standardwebhooks
from sqlalchemy import select, text, update

from shared import events, retention, webhooks
from shared.errors import Conflict, Invalid, NotFound
from shared.models import Delivery, Event, Webhook
from shared.outside.db import utcnow
from shared.webhooks import Claim, TryResult
from tests.domain import make_project, make_user
from tests.servers import Postgres
from tests.waiting import eventually
from tests.webhooks.conftest import World
from tests.webhooks.receiver import Handler, Receiver, hangs, one_after_another, says
from workers.delivery import DeliverySender, retry_after

HERE = "http://127.0.0.1:9999/"


def take(world: World, webhook_id: str, token: str = "me") -> Claim | None:
    with world.session() as session:
        return webhooks.take(session, webhook_id, token, world.settings)


def taken(world: World, webhook_id: str, token: str = "me") -> Claim:
    claim = take(world, webhook_id, token)
    assert claim is not None
    return claim


def fail(world: World, claim: Claim, status: int = 500, retry_after: float | None = None) -> bool:
    result = TryResult(at=utcnow(), seconds=0.1, status=status, retry_after=retry_after)
    with world.session() as session:
        return webhooks.failed_try(session, claim, result, world.settings)


def hear(world: World, claim: Claim) -> bool:
    with world.session() as session:
        return webhooks.delivered(session, claim, TryResult(at=utcnow(), seconds=0.1, status=200, text="thanks"))


def due_in(delivery: Delivery) -> float:
    return (delivery.due_at - utcnow()).total_seconds()


# --- endpoints ------------------------------------------------------------------------------------------------


def test_the_secret_is_shown_once_and_kept_sealed(world: World) -> None:
    webhook_id, secret = world.listen(HERE)
    assert secret.startswith("whsec_")
    row = world.webhook(webhook_id)
    assert secret.removeprefix("whsec_") not in row.sealed_secret
    assert world.runtime.vault.open(row.sealed_secret) == secret


def test_an_unknown_event_type_is_refused(world: World) -> None:
    with pytest.raises(Invalid) as refused:
        world.listen(HERE, event_types=["job.failed", "job.exploded"])
    assert refused.value.code == "unknown_event_type"
    assert refused.value.errors == [{"pointer": "/event_types/1", "detail": "unknown"}]


def test_the_webhooks_of_a_user_are_limited(make_world: Callable[..., World]) -> None:
    world = make_world(max_webhooks_per_user=2)
    world.listen(HERE)
    webhook_id, _ = world.listen(HERE)
    with pytest.raises(Conflict, match="2 webhooks"):
        world.listen(HERE)
    world.edit(webhook_id, webhooks.remove)
    world.listen(HERE)


def test_a_webhook_gets_events_of_its_project_or_of_all_its_users(world: World) -> None:
    everything, _ = world.listen(HERE)
    with world.session() as session:
        other = make_project(session, world.user, references=0, name="other")
        bobs = make_project(session, make_user(session, "bob"), references=0)
    one, _ = world.listen(HERE, project=other)
    with world.session() as session:
        for project in (other, bobs):
            events.record(session, session.merge(project), "round.completed")
    world.happen()
    assert len(world.deliveries(everything)) == 2
    assert len(world.deliveries(one)) == 1


def test_a_webhook_gets_the_types_that_it_wants(world: World) -> None:
    webhook_id, _ = world.listen(HERE, event_types=["job.failed"])
    world.happen(type_="job.started")
    world.happen(type_="job.failed")
    (delivery,) = world.deliveries(webhook_id)
    assert delivery.event.type == "job.failed"


def test_a_removed_webhook_loses_its_deliveries(world: World) -> None:
    webhook_id, _ = world.listen(HERE)
    world.happen(2)
    claim = taken(world, webhook_id)
    world.edit(webhook_id, webhooks.remove)
    assert world.deliveries() == []
    assert not hear(world, claim)
    assert not fail(world, claim)


def test_another_url_resets_the_failures(world: World) -> None:
    webhook_id, _ = world.listen(HERE)
    world.happen()
    fail(world, taken(world, webhook_id), retry_after=3600)
    world.edit(webhook_id, lambda s, w: webhooks.change(s, w, {"url": HERE + "new"}, world.settings))
    row = world.webhook(webhook_id)
    assert (row.url, row.failures, row.failing_since, row.paused_until) == (HERE + "new", 0, None, None)


def test_a_failure_of_the_old_url_does_not_count_for_the_new_one(world: World) -> None:
    webhook_id, _ = world.listen(HERE)
    world.happen()
    claim = taken(world, webhook_id)
    world.edit(webhook_id, lambda s, w: webhooks.change(s, w, {"url": HERE + "new"}, world.settings))
    fail(world, claim, status=410)
    row = world.webhook(webhook_id)
    assert (row.disabled_at, row.failures, row.paused_until) == (None, 0, None)
    assert world.deliveries()[0].tries == 1


def test_a_bad_url_is_refused_in_a_change_too(world: World) -> None:
    webhook_id, _ = world.listen(HERE)
    with pytest.raises(Invalid):
        world.edit(webhook_id, lambda s, w: webhooks.change(s, w, {"url": "https://10.0.0.1/"}, world.settings))
    assert world.webhook(webhook_id).url == HERE


def test_a_disabled_webhook_gets_nothing_until_it_is_enabled(world: World, receiver: Receiver) -> None:
    webhook_id, _ = world.listen(receiver.url())
    world.happen()
    world.edit(webhook_id, lambda s, w: webhooks.change(s, w, {"enabled": False}, world.settings))
    assert world.webhook(webhook_id).disabled_reason == "disabled by its owner"
    world.happen()
    world.send()
    assert receiver.received == []
    assert [each.state for each in world.deliveries(webhook_id)] == ["failed"]
    for act in (webhooks.send_test, lambda s, w: webhooks.recover(s, w, utcnow(), world.settings)):
        with pytest.raises(Conflict) as refused:
            world.edit(webhook_id, act)
        assert refused.value.code == "webhook_disabled"
    world.edit(webhook_id, lambda s, w: webhooks.change(s, w, {"enabled": True}, world.settings))
    world.happen()
    world.send()
    assert len(receiver.at()) == 1


# --- signatures -----------------------------------------------------------------------------------------------


def test_while_secrets_overlap_both_verify_and_then_only_the_new_one(world: World, receiver: Receiver) -> None:
    webhook_id, old = world.listen(receiver.url())
    new = world.edit(webhook_id, lambda s, w: webhooks.rotate(s, w, world.runtime.vault))
    assert 86_000 < (world.webhook(webhook_id).old_secret_until - utcnow()).total_seconds() <= 86_400  # type: ignore[operator]
    world.happen()
    world.send()
    (request,) = receiver.at()
    assert request.verified(old) == request.verified(new)
    world.edit(webhook_id, lambda s, w: setattr(w, "old_secret_until", utcnow() - timedelta(seconds=1)))
    world.happen()
    world.send()
    request = receiver.at()[1]
    request.verified(new)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        request.verified(old)


def test_a_rotation_in_the_middle_of_retries_signs_the_next_try_with_both(world: World, receiver: Receiver) -> None:
    webhook_id, old = world.listen(receiver.url())
    made: list[str] = []

    def rotates(handler: object) -> None:
        made.append(world.edit(webhook_id, lambda s, w: webhooks.rotate(s, w, world.runtime.vault)))
        says(500)(handler)  # type: ignore[arg-type]

    receiver.answers["/hook"] = one_after_another(rotates, says(200))
    world.happen()
    world.send()
    first, second = receiver.at()
    first.verified(old)
    second.verified(old)
    second.verified(made[0])


def test_a_second_rotation_within_the_overlap_is_refused(world: World) -> None:
    webhook_id, _ = world.listen(HERE)
    world.edit(webhook_id, lambda s, w: webhooks.rotate(s, w, world.runtime.vault))
    with pytest.raises(Conflict) as refused:
        world.edit(webhook_id, lambda s, w: webhooks.rotate(s, w, world.runtime.vault))
    assert refused.value.code == "rotation_under_way"
    secret = world.edit(webhook_id, lambda s, w: webhooks.rotate(s, w, world.runtime.vault, overlap_seconds=0))
    world.happen()
    claim = taken(world, webhook_id)
    assert [world.runtime.vault.open(each) for each in claim.sealed_secrets] == [secret]


def test_the_timestamp_is_right_in_any_time_zone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library overwrites a datetime's zone instead of converting it."""
    webhook_id, secret = world.listen(HERE)
    world.happen()
    claim = taken(world, webhook_id)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    signed = webhooks.headers(claim, world.runtime.vault)
    assert abs(int(signed["webhook-timestamp"]) - datetime.datetime.now(UTC).timestamp()) < 5
    standardwebhooks.Webhook(secret).verify(claim.body, signed)
    tokyo = datetime.datetime.now(timezone(timedelta(hours=9)))
    trap = standardwebhooks.Webhook(secret).sign("id", tokyo, "{}")
    assert trap != standardwebhooks.Webhook(secret).sign("id", tokyo.astimezone(UTC), "{}")


def test_a_secret_that_cannot_be_opened_is_a_failed_try(world: World, receiver: Receiver) -> None:
    webhook_id, _ = world.listen(receiver.url())
    world.edit(webhook_id, lambda s, w: setattr(w, "sealed_secret", "of another key"))
    world.happen()
    world.send()
    (delivery,) = world.deliveries(webhook_id)
    assert delivery.state == "failed"
    assert "BOOTLORA_SECRET_KEY" in delivery.attempts[0]["error"]
    assert receiver.received == []


def test_a_secret_is_in_no_repr(world: World) -> None:
    webhook_id, _ = world.listen(HERE)
    world.happen()
    claim = taken(world, webhook_id)
    assert claim.sealed_secrets[0] not in repr(claim)


# --- tests, redelivery, recovery ------------------------------------------------------------------------------


def test_a_test_event_arrives_whatever_types_are_asked_for_and_counts_in_no_project(
    world: World, receiver: Receiver
) -> None:
    webhook_id, secret = world.listen(receiver.url(), event_types=["job.failed"])
    delivery = world.edit(webhook_id, webhooks.send_test)
    assert delivery.state == "pending"
    world.send()
    (request,) = receiver.at()
    event = request.verified(secret)
    assert event["type"] == "webhook.test"
    assert event["data"]["webhook_id"] == webhook_id
    world.happen()
    with world.runtime.db.reading() as session:
        assert [each.seq for each in events.after(session, world.project.id, 0, 10)] == [1]


def test_a_redelivery_is_the_same_message_again(world: World, receiver: Receiver) -> None:
    webhook_id, secret = world.listen(receiver.url())
    world.happen()
    world.send()
    (delivery,) = world.deliveries(webhook_id)
    world.edit(webhook_id, lambda s, w: webhooks.redeliver(s, w, webhooks.get_delivery(s, w, delivery.id)))
    world.send()
    first, second = receiver.at()
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.verified(secret) == second.verified(secret)
    (delivery,) = world.deliveries(webhook_id)
    assert delivery.state == "delivered"
    assert len(delivery.attempts) == 2


def test_a_delivery_of_another_webhook_does_not_exist(world: World) -> None:
    one, _ = world.listen(HERE)
    world.happen()
    other, _ = world.listen(HERE)
    delivery = world.deliveries(one)[0]
    with pytest.raises(NotFound):
        world.edit(other, lambda s, w: webhooks.get_delivery(s, w, delivery.id))


def test_recovery_sends_failed_and_missed_events(world: World, receiver: Receiver) -> None:
    receiver.answers["/hook"] = says(410)
    webhook_id, secret = world.listen(receiver.url(), event_types=["round.completed"])
    world.happen(3)
    world.send()
    world.happen(2)  # while it is disabled: no delivery is written
    world.happen(type_="job.started")
    receiver.answers["/hook"] = says(200)
    receiver.received.clear()
    since = world.webhook(webhook_id).created_at - timedelta(hours=1)
    world.edit(webhook_id, lambda s, w: webhooks.change(s, w, {"enabled": True}, world.settings))
    assert world.edit(webhook_id, lambda s, w: webhooks.recover(s, w, since, world.settings)) == (5, False)
    world.send()
    assert sorted(each.verified(secret)["data"]["seq"] for each in receiver.at()) == [1, 2, 3, 4, 5]
    assert world.edit(webhook_id, lambda s, w: webhooks.recover(s, w, since, world.settings)) == (0, False)


def test_recovery_begins_at_the_given_time(world: World) -> None:
    webhook_id, _ = world.listen(HERE)
    world.happen(2)
    with world.session() as session:
        session.execute(update(Delivery).values(state="failed"))
        session.execute(update(Event).where(Event.seq == 1).values(created_at=utcnow() - timedelta(days=2)))
    day = utcnow() - timedelta(days=1)
    assert world.edit(webhook_id, lambda s, w: webhooks.recover(s, w, day, world.settings)) == (1, False)


def test_recovery_does_not_repeat_events_without_deliveries(world: World) -> None:
    webhook_id, _ = world.listen(HERE)
    long_ago = utcnow() - timedelta(days=world.settings.keep_deliveries_days + 1)
    world.happen(2)
    with world.session() as session:
        session.execute(update(Event).where(Event.seq == 1).values(created_at=long_ago))
        session.execute(update(Webhook).values(created_at=long_ago))
        session.execute(update(Delivery).values(state="delivered"))
        forgotten = select(Event.id).where(Event.seq == 1)
        session.execute(update(Delivery).where(Delivery.event_id.in_(forgotten)).values(due_at=long_ago))
        assert retention.forget(session, world.settings) == 1
    assert world.edit(webhook_id, lambda s, w: webhooks.recover(s, w, long_ago, world.settings)) == (0, False)


def test_recovery_goes_in_bounded_steps(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "MAX_RECOVERED", 3)
    webhook_id, _ = world.listen(HERE)
    since = utcnow()
    world.happen(2)
    world.edit(webhook_id, lambda s, w: webhooks.change(s, w, {"enabled": False}, world.settings))
    world.happen(2)
    world.edit(webhook_id, lambda s, w: webhooks.change(s, w, {"enabled": True}, world.settings))
    assert world.edit(webhook_id, lambda s, w: webhooks.recover(s, w, since, world.settings)) == (3, True)
    assert world.edit(webhook_id, lambda s, w: webhooks.recover(s, w, since, world.settings)) == (1, False)


# --- tries ----------------------------------------------------------------------------------------------------


def test_retries_follow_the_list_with_some_jitter(make_world: Callable[..., World]) -> None:
    world = make_world(webhook_retry_seconds=(5, 300, 1800))
    webhook_id, _ = world.listen(HERE)
    world.happen()
    for wanted in (5, 300, 1800):
        fail(world, taken(world, webhook_id))
        (delivery,) = world.deliveries(webhook_id)
        assert 0.88 * wanted < due_in(delivery) < 1.12 * wanted
        assert take(world, webhook_id) is None
        make_due(world, webhook_id)
    fail(world, taken(world, webhook_id))
    (delivery,) = world.deliveries(webhook_id)
    assert delivery.state == "failed"
    assert delivery.tries == 4


def make_due(world: World, webhook_id: str) -> None:
    with world.session() as session:
        session.execute(update(Delivery).values(due_at=utcnow()))
        session.execute(update(Webhook).values(paused_until=None, lease_until=None))


def test_jitter_differs(make_world: Callable[..., World]) -> None:
    world = make_world(webhook_retry_seconds=(1000,))
    random.seed()
    delays = {webhooks._delay(1, TryResult(at=utcnow(), seconds=0), world.settings) for _ in range(5)}
    assert len(delays) == 5


def test_retry_after_is_respected_up_to_a_day(make_world: Callable[..., World]) -> None:
    world = make_world(webhook_retry_seconds=(5, 300))
    webhook_id, _ = world.listen(HERE)
    world.happen()
    fail(world, taken(world, webhook_id), 429, retry_after=1000)
    assert 990 < due_in(world.deliveries(webhook_id)[0]) <= 1000
    assert 990 < (world.webhook(webhook_id).paused_until - utcnow()).total_seconds() <= 1000  # type: ignore[operator]
    make_due(world, webhook_id)
    fail(world, taken(world, webhook_id), 503, retry_after=1e9)
    assert due_in(world.deliveries(webhook_id)[0]) <= 86_400


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [("120", 120, 120), ("0", 0, 0), (" 7 ", 7, 7), ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0), ("9" * 400, 1e11, 1e13)],
)
def test_retry_after_is_read_in_both_forms(header: str, low: float, high: float) -> None:
    seconds = retry_after(header)
    assert seconds is not None
    assert low <= seconds <= high


FAR = "Mon, 01 Jan 99999999999 00:00:00 GMT"


@pytest.mark.parametrize("header", [None, "", "soon", "-5", "1.5", "²", "Wed, 99 Oct 2015", FAR])
def test_an_invalid_retry_after_is_ignored(header: str | None) -> None:
    assert retry_after(header) is None


def test_a_failing_endpoint_is_paused_between_deliveries(make_world: Callable[..., World]) -> None:
    world = make_world(webhook_retry_seconds=(5, 300))
    webhook_id, _ = world.listen(HERE)
    world.happen(10)
    rests = []
    for _ in range(8):
        fail(world, taken(world, webhook_id))
        assert take(world, webhook_id) is None
        rests.append((world.webhook(webhook_id).paused_until - utcnow()).total_seconds())  # type: ignore[operator]
        with world.session() as session:
            session.execute(update(Webhook).values(paused_until=None, lease_until=None))
    assert [wanted - 1 < rest <= wanted for wanted, rest in zip((2, 4, 8, 16, 32, 60, 60, 60), rests, strict=True)]


def test_five_days_of_failures_disable_an_endpoint(world: World) -> None:
    webhook_id, _ = world.listen(HERE)
    world.happen(3)
    fail(world, taken(world, webhook_id))
    assert world.webhook(webhook_id).disabled_at is None
    world.edit(webhook_id, lambda s, w: setattr(w, "failing_since", utcnow() - timedelta(days=5, seconds=1)))
    make_due(world, webhook_id)
    fail(world, taken(world, webhook_id))
    row = world.webhook(webhook_id)
    assert row.disabled_at
    assert str(row.disabled_reason).startswith("every attempt since ")
    assert {each.state for each in world.deliveries(webhook_id)} == {"failed"}
    assert take(world, webhook_id) is None


def test_a_success_restarts_the_five_days(world: World) -> None:
    webhook_id, _ = world.listen(HERE)
    world.happen(2)
    fail(world, taken(world, webhook_id))
    make_due(world, webhook_id)
    hear(world, taken(world, webhook_id))
    row = world.webhook(webhook_id)
    assert (row.failing_since, row.failures, row.paused_until) == (None, 0, None)


def test_the_log_of_tries_is_bounded(world: World) -> None:
    webhook_id, _ = world.listen(HERE)
    world.happen()
    with world.session() as session:
        session.execute(update(Delivery).values(attempts=[{"at": str(n)} for n in range(100)]))
    fail(world, taken(world, webhook_id))
    assert len(world.deliveries(webhook_id)[0].attempts) == 30


# --- several senders ------------------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.servers)])
def on_both(request: pytest.FixtureRequest, make_world: Callable[..., World]) -> Iterator[World]:
    if request.param == "sqlite":
        yield make_world()
        return
    folder: Path = request.getfixturevalue("tmp_path")
    world = World(folder, request.getfixturevalue("postgres").make_database())
    yield world
    world.close()


def test_an_endpoint_is_held_by_one_sender_and_delivers_in_order(on_both: World) -> None:
    webhook_id, _ = on_both.listen(HERE)
    on_both.happen(3)
    first = taken(on_both, webhook_id, "one")
    assert take(on_both, webhook_id, "two") is None
    with on_both.runtime.db.reading() as session:
        assert webhooks.due(session, 10) == []
    assert hear(on_both, first)
    second = taken(on_both, webhook_id, "one")
    assert second.delivery_id != first.delivery_id
    with on_both.session() as session:
        webhooks.release(session, webhook_id, "one")
    assert taken(on_both, webhook_id, "two").delivery_id == second.delivery_id
    assert not hear(on_both, second)  # it lost the endpoint; the other one's word counts
    assert [each.state for each in on_both.deliveries(webhook_id)].count("delivered") == 1


def test_one_of_many_senders_gets_an_endpoint(on_both: World) -> None:
    webhook_id, _ = on_both.listen(HERE)
    on_both.happen(5)
    got: list[Claim | None] = []
    start = threading.Barrier(8)

    def reach(number: int) -> None:
        start.wait()
        got.append(take(on_both, webhook_id, f"sender {number}"))

    threads = [threading.Thread(target=reach, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(each is not None for each in got) == 1


def test_several_senders_deliver_everything_once_and_in_order(on_both: World, receiver: Receiver) -> None:
    hooks = [on_both.listen(receiver.url(f"/{number}")) for number in range(3)]
    others = [DeliverySender(on_both.runtime) for _ in range(2)]
    on_both.happen(20)
    try:

        def quiet() -> bool:
            for each in others:
                each.tick()
            return not on_both.waiting() and all(each.idle for each in (on_both.sender, *others))

        on_both.send(until=quiet)
    finally:
        for each in others:
            each.close(grace_seconds=0)
    for number, (_, secret) in enumerate(hooks):
        told = [each.verified(secret)["data"]["seq"] for each in receiver.at(f"/{number}")]
        assert told == list(range(1, 21))


SENDER = """
import sys, time
from shared.outside.db import Database
from shared.runtime import Runtime
from shared.outside.secrets import Vault
from shared.settings import Settings
from tests.webhooks.conftest import HERE
from workers.delivery import DeliverySender

url, secret = sys.argv[1:]
settings = Settings(database_url=url, broker_url="", storage_url="", secret_key=secret, **HERE)
runtime = Runtime(
    settings=settings, db=Database(url), storage=None, broker=None, vault=Vault(secret), base_models={}
)
sender = DeliverySender(runtime)
while True:
    sender.tick()
    time.sleep(0.05)
"""


def test_a_sender_killed_after_the_200_and_before_it_is_written_leads_to_one_repeat_with_the_same_id(
    make_world: Callable[..., World], receiver: Receiver
) -> None:
    world = make_world(webhook_timeout_seconds=0.5)
    webhook_id, secret = world.listen(receiver.url())
    lock = world.runtime.db.engine.connect()
    heard = threading.Event()

    def locks_and_says_yes(handler: Handler) -> None:
        lock.begin()  # from here on nobody can write
        says(200)(handler)
        heard.set()

    receiver.answers["/hook"] = one_after_another(locks_and_says_yes, says(200))
    world.happen()
    arguments = [sys.executable, "-c", SENDER, world.settings.database_url, world.settings.secret_key]
    with subprocess.Popen(arguments) as process:
        assert heard.wait(60)
        time.sleep(0.2)  # it has read the answer by now, and waits to write
        process.kill()
    lock.close()
    assert world.deliveries(webhook_id)[0].state == "pending"
    make_due(world, webhook_id)  # the lease ends
    world.send()
    first, second = receiver.at()
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.verified(secret) == second.verified(secret)
    (delivery,) = world.deliveries(webhook_id)
    assert (delivery.state, delivery.tries) == ("delivered", 1)


def test_a_lease_ends_by_itself(make_world: Callable[..., World]) -> None:
    world = make_world(webhook_timeout_seconds=0.01)
    webhook_id, _ = world.listen(HERE)
    world.happen()
    first = taken(world, webhook_id, "one")
    assert take(world, webhook_id, "two") is None
    second = eventually(lambda: take(world, webhook_id, "two"))
    assert second is not None
    assert second.delivery_id == first.delivery_id


def test_a_request_cut_by_the_end_of_a_sender_is_no_failed_try(world: World, receiver: Receiver) -> None:
    receiver.answers["/hook"] = one_after_another(hangs(20), says(200))
    webhook_id, _ = world.listen(receiver.url())
    world.happen()
    world.send(until=lambda: len(receiver.at()) == 1)
    world.sender.close(grace_seconds=0.1)
    (delivery,) = world.deliveries(webhook_id)
    assert (delivery.state, delivery.tries) == ("pending", 0)
    assert world.webhook(webhook_id).failing_since is None
    assert world.sender.deliver_due() == 0
    world.sender = DeliverySender(world.runtime)
    world.send()
    assert world.deliveries(webhook_id)[0].state == "delivered"


def test_many_dead_endpoints_do_not_delay_a_live_one(make_world: Callable[..., World], receiver: Receiver) -> None:
    world = make_world(
        webhook_threads=4, webhook_timeout_seconds=60.0, webhook_retry_seconds=(60,), max_webhooks_per_user=30
    )
    receiver.answers["/dead"] = hangs()
    dead = [world.listen(receiver.url("/dead"))[0] for _ in range(25)]
    live, _ = world.listen(receiver.url("/live"))
    with world.session() as session:  # it is known that they fail, and the live one was served a moment ago
        session.execute(update(Webhook).where(Webhook.id != live).values(failures=1))
        session.execute(update(Webhook).where(Webhook.id == live).values(lease_until=utcnow()))
    world.happen(20)
    world.send(until=lambda: all(each.state == "delivered" for each in world.deliveries(live)))
    assert len(receiver.at("/dead")) <= 2  # half of the threads
    assert len(world.deliveries(dead[0])) == 20


def test_slow_endpoints_do_not_hide_a_quick_one(make_world: Callable[..., World], receiver: Receiver) -> None:
    world = make_world(webhook_threads=2, webhook_timeout_seconds=60.0, max_webhooks_per_user=30)
    receiver.answers["/slow"] = hangs()
    slow = [world.listen(receiver.url("/slow"))[0] for _ in range(20)]
    world.sender._slow.update(slow)  # they answered late before
    live, _ = world.listen(receiver.url("/live"))
    world.happen(3)
    world.send(until=lambda: all(each.state == "delivered" for each in world.deliveries(live)))
    assert len(receiver.at("/slow")) <= 1


def test_the_next_delivery_is_found_by_an_index(world: World) -> None:
    world.listen(HERE)
    with world.session() as session:
        plan = session.execute(
            text(
                "EXPLAIN QUERY PLAN SELECT d.id FROM deliveries d JOIN events e ON e.id = d.event_id "
                "WHERE d.webhook_id = 'x' AND d.state = 'pending' AND d.due_at <= '2026' "
                "ORDER BY d.due_at, e.seq LIMIT 1"
            )
        ).all()
    assert any("deliveries_next" in str(row) for row in plan)


def test_the_next_tick_tries_a_lost_database_again(world: World, receiver: Receiver) -> None:
    world.listen(receiver.url())
    world.happen()
    real = world.runtime.db
    world.runtime.db = type(real)("sqlite:////nowhere/at/all.db")
    world.sender.tick()
    world.runtime.db = real
    world.send()
    assert len(receiver.at()) == 1


@pytest.mark.servers
def test_removing_a_webhook_does_not_roll_back_simultaneous_events(tmp_path: Path, postgres: Postgres) -> None:
    """On Postgres both go on side by side: the row must not vanish between being found and being told."""
    world = World(tmp_path, postgres.make_database())
    try:
        ids = [world.listen(HERE)[0] for _ in range(15)]
        remover = threading.Thread(target=lambda: [world.edit(each, webhooks.remove) for each in ids])
        remover.start()
        while remover.is_alive():
            world.happen()
        remover.join()
        assert world.deliveries() == []
        with world.runtime.db.reading() as session:
            told = events.after(session, world.project.id, 0, 10_000)
        assert [each.seq for each in told] == list(range(1, len(told) + 1))
    finally:
        world.close()
