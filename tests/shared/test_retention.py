"""Old rows are deleted in batches, and all others are kept."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from environs import EnvError
from sqlalchemy import event, func, insert, select, text

from shared import events, retention
from shared.models import Base, Delivery, Event, IdempotencyKey, Project, User, Webhook
from shared.outside.db import utcnow
from shared.runtime import Runtime
from shared.settings import Settings
from tests.domain import make_project, make_runtime, make_user
from tests.servers import Postgres
from tests.shared.environment import NEEDED


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.servers)])
def runtime(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runtime]:
    url = request.getfixturevalue("postgres").make_database() if request.param == "postgres" else None
    runtime = make_runtime(tmp_path, url)
    yield runtime
    runtime.close()


@pytest.fixture
def webhook_id(runtime: Runtime, user: User) -> str:
    with runtime.transaction() as session:
        webhook = Webhook(user_id=user.id, url="https://example.com", event_types=[], sealed_secret="x")
        session.add(webhook)
        session.flush()
        events.record(session, make_project(session, user, references=0), "project.started")
        return webhook.id


def make_deliveries(runtime: Runtime, webhook_id: str, count: int, *, days: float, state: str = "delivered") -> None:
    """Deliveries that were last due so long ago."""
    due_at = utcnow() - timedelta(days=days)
    with runtime.transaction() as session:
        event_id = session.scalar(select(Event.id))
        row = {"webhook_id": webhook_id, "event_id": event_id, "state": state, "due_at": due_at, "attempts": []}
        session.execute(insert(Delivery), [row] * count)


def make_keys(runtime: Runtime, user: User, count: int, *, hours: float) -> None:
    """Idempotency keys that were first seen so long ago."""
    row = {"user_id": user.id, "route": "POST /", "fingerprint": "f", "created_at": utcnow() - timedelta(hours=hours)}
    with runtime.transaction() as session:
        session.execute(insert(IdempotencyKey), [row | {"key": f"{hours}-{number}"} for number in range(count)])


def forget(runtime: Runtime) -> int:
    with runtime.transaction() as session:
        return retention.forget(session, runtime.settings)


def count(runtime: Runtime, model: type[Base], *which: Any) -> int:
    with runtime.db.reading() as session:
        return session.scalar(select(func.count()).select_from(model).where(*which)) or 0


def test_deliveries_go_after_a_month_unless_they_still_wait(runtime: Runtime, webhook_id: str) -> None:
    make_deliveries(runtime, webhook_id, 2, days=31)
    make_deliveries(runtime, webhook_id, 2, days=31, state="failed")
    make_deliveries(runtime, webhook_id, 2, days=31, state="pending")
    make_deliveries(runtime, webhook_id, 2, days=29)
    assert forget(runtime) == 4
    assert forget(runtime) == 0
    assert count(runtime, Delivery, Delivery.state == "pending") == 3  # with that of the event itself
    assert count(runtime, Delivery, Delivery.state == "delivered") == 2
    assert count(runtime, Event) == count(runtime, Project) == 1


def test_idempotency_keys_live_a_whole_day(runtime: Runtime, user: User) -> None:
    make_keys(runtime, user, 3, hours=24.1)
    make_keys(runtime, user, 2, hours=23.9)
    assert forget(runtime) == 3
    assert count(runtime, IdempotencyKey) == 2


def test_many_rows_are_deleted_in_small_transactions(runtime: Runtime, user: User, webhook_id: str) -> None:
    make_deliveries(runtime, webhook_id, retention.BATCH + 1, days=40)
    make_keys(runtime, user, retention.BATCH + 2, hours=40)
    assert [forget(runtime) for _ in range(3)] == [2 * retention.BATCH, 3, 0]


@pytest.mark.servers
def test_two_workers_take_different_batches_and_wait_for_nobody(postgres: Postgres, tmp_path: Path) -> None:
    runtime = make_runtime(tmp_path, postgres.make_database())
    with runtime.transaction() as session:
        user = make_user(session)
    make_keys(runtime, user, retention.BATCH + 5, hours=40)
    with runtime.transaction() as first, runtime.transaction() as second:
        assert retention.forget(first, runtime.settings) == retention.BATCH
        assert retention.forget(second, runtime.settings) == 5
    assert count(runtime, IdempotencyKey) == 0
    runtime.close()


def test_old_rows_are_found_by_an_index(runtime: Runtime, user: User, webhook_id: str) -> None:
    """A few old rows among many: nothing but the old ones is read."""
    make_deliveries(runtime, webhook_id, 5000, days=1)
    make_keys(runtime, user, 5000, hours=1)
    make_deliveries(runtime, webhook_id, 5, days=31)
    make_keys(runtime, user, 5, hours=25)
    explain = "EXPLAIN QUERY PLAN" if runtime.db.engine.dialect.name == "sqlite" else "EXPLAIN"
    plans = []

    def note(connection: Any, clause: Any, multiparams: Any, params: Any, options: Any) -> None:
        if getattr(clause, "is_select", False) and "LIMIT" in str(clause):
            compiled = clause.compile(connection, compile_kwargs={"literal_binds": True})
            plans.append("\n".join(str(row) for row in connection.execute(text(f"{explain} {compiled}"))))

    with runtime.transaction() as session:
        session.execute(text("ANALYZE"))
    event.listen(runtime.db.engine, "before_execute", note)
    assert forget(runtime) == 10
    assert len(plans) == 3
    for plan, index in zip(plans, ["ix_idempotency_keys_created_at", "deliveries_due", "deliveries_due"], strict=True):
        assert index in plan, plan


@pytest.mark.parametrize("name", ["KEEP_DELIVERIES_DAYS", "KEEP_IDEMPOTENCY_KEYS_DAYS", "ORPHAN_GRACE_SECONDS"])
def test_retention_has_a_minimum(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for needed, value in NEEDED.items():
        monkeypatch.setenv(needed, value)
    assert Settings.from_env().keep_deliveries_days == 30
    monkeypatch.setenv(f"BOOTLORA_{name}", "0")
    with pytest.raises(EnvError, match=name):
        Settings.from_env()
