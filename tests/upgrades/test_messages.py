"""Today's workers take the messages that 7a09abe left in the broker, and deliver the webhooks that it left pending."""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import urllib3

from embedded import servers
from embedded.stack import Stack
from embedded.supervisor import Supervisor
from tests.upgrades.conftest import ABOUT, MESSAGES, Tables, load, sent_just_now, unpack_into
from tests.webhooks.receiver import Received, Receiver, receiving

pytestmark = [pytest.mark.servers, pytest.mark.slow]

PATIENCE_SECONDS = 240
PASSWORD = secrets.token_hex(16)


class Service(Stack):
    """The whole service on the old tables and objects. `sent` are the jobs whose messages lie in its broker."""

    old: Tables
    sent: set[str]

    def ask(self, method: str, path: str, json: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {ABOUT['api_keys']['ada']}", "If-Match": "*"}
        answer = urllib3.request(method, f"{self.url}/v1{path}", json=json, headers=headers, retries=False, timeout=30)
        assert answer.status < 300, answer.data
        return answer.json()

    def await_that(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"it did not come to that in {PATIENCE_SECONDS} s"
            time.sleep(0.2)


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    tables = load(folder / "bootlora.db")
    sent = sent_just_now(folder / "bootlora.db")
    unpack_into(f"file://{folder}/objects")
    leave_in_broker(folder, tmp_path_factory.mktemp("old"))
    settings = {
        "SECRET_KEY": ABOUT["secret_key"],
        "STORAGE_URL": f"file://{folder}/objects",
        "REDISPATCH_SECONDS": "3600",  # the clock sends no message again: only the old one can start its job
        "HEARTBEAT_SECONDS": "0.5",
        "MAX_RUNNING_JOBS": "1000",
        "REQUESTS_PER_MINUTE": "1000000",
        "WEBHOOK_RETRY_SECONDS": ",".join(["1"] * 1000),  # the old URLs refuse connections until a test changes them
    }
    with Service(folder, settings={f"BOOTLORA_{name}": value for name, value in settings.items()}) as service:
        service.old, service.sent = tables, sent
        yield service


def leave_in_broker(folder: Path, other: Path) -> None:
    """Fill a broker with the old messages and stop it. The service then starts its broker from the same folder."""
    (port,) = servers.free_ports(1)
    with Supervisor(other) as supervisor:
        supervisor.start(servers.valkey(folder / "valkey", port, PASSWORD))
        with redis.Redis(host=servers.HOST, port=port, password=PASSWORD) as client:
            for queue, messages in MESSAGES.items():
                client.rpush(queue, *(json.dumps(message) for message in messages))


def in_broker(service: Service) -> dict[str, int]:
    """How many messages lie in each old queue, and how many were taken and not acknowledged."""
    with redis.Redis.from_url(service.environment["BOOTLORA_BROKER_URL"]) as client:
        return {queue: client.llen(queue) for queue in MESSAGES} | {"unacked": client.hlen("unacked")}


def named_by_messages() -> list[tuple[str, int]]:
    """The jobs and attempts that the messages name."""
    bodies = [json.loads(base64.b64decode(message["body"])) for each in MESSAGES.values() for message in each]
    return [(job_id, attempt) for ((job_id, attempt), *_) in bodies]


def test_the_messages_are_of_every_kind_and_one_is_for_a_job_that_has_ended(service: Service) -> None:
    kinds = {row["id"]: row["kind"] for row in service.old["jobs"]}
    named = dict(named_by_messages())
    assert service.sent < set(named)
    assert {kinds[job_id] for job_id in service.sent} == {"upload", "crop", "score", "train", "generate"}
    assert max(named.values()) == 2


def test_every_message_is_taken_and_its_job_done(service: Service) -> None:
    attempts = dict(named_by_messages())

    def jobs() -> list[Any]:
        return [service.ask("GET", f"/jobs/{job_id}") for job_id in sorted(service.sent)]

    service.await_that(lambda: all(job["state"] not in ("queued", "running") for job in jobs()))
    assert {job["state"] for job in jobs()} == {"succeeded"}
    assert {job["id"]: job["attempt"] for job in jobs()} == {job_id: attempts[job_id] for job_id in service.sent}


def test_nothing_is_left_in_the_queue_that_workers_still_read(service: Service) -> None:
    """The messages of the queue `io` stay: its jobs were moved to `cpu` and sent anew."""
    service.await_that(lambda: not in_broker(service)["gpu"])


def test_pending_deliveries_are_sent_and_signed_with_the_old_secrets(service: Service, receiver: Receiver) -> None:
    webhooks = {row["id"]: row for row in service.old["webhooks"] if row["disabled_at"] is None}
    pending = [row for row in service.old["deliveries"] if row["state"] == "pending"]
    assert {row["webhook_id"] for row in pending} == set(webhooks)
    for webhook_id in webhooks:
        service.ask("PATCH", f"/webhooks/{webhook_id}", {"url": receiver.url(f"/{webhook_id}")})

    def received(webhook_id: str) -> dict[str, Received]:
        return {each.headers["webhook-id"]: each for each in receiver.at(f"/{webhook_id}")}

    service.await_that(lambda: all(row["event_id"] in received(row["webhook_id"]) for row in pending))
    for row in pending:
        received(row["webhook_id"])[row["event_id"]].verified(ABOUT["webhook_secrets"][row["webhook_id"]])
        told = f"/webhooks/{row['webhook_id']}/deliveries/{row['id']}"
        service.await_that(lambda told=told: service.ask("GET", told)["state"] == "delivered")
