from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared import events, webhooks
from shared.models import Delivery, Project, User, Webhook
from shared.runtime import Runtime
from tests.domain import make_project, make_runtime, make_user
from tests.waiting import eventually
from tests.webhooks.receiver import Receiver, receiving
from workers.delivery import DeliverySender

HERE = {
    "webhook_allow_http": True,
    "webhook_allow_networks": ("127.0.0.0/8",),
    "webhook_connect_seconds": 3.0,
    "webhook_timeout_seconds": 5.0,
    "webhook_retry_seconds": (0.02, 0.02, 0.02),
}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


class World:
    """A user with a project, endpoints that listen to it, and a sender that is driven until all is quiet."""

    def __init__(self, folder: Path, database_url: str | None = None, **settings: Any):
        self.runtime: Runtime = make_runtime(folder, database_url, **{**HERE, **settings})
        self.settings = self.runtime.settings
        with self.session() as session:
            self.user: User = make_user(session)
            self.project: Project = make_project(session, self.user, references=0)
        self.sender = DeliverySender(self.runtime)

    def session(self) -> Any:
        return self.runtime.transaction()

    def listen(self, url: str, **over: Any) -> tuple[str, str]:
        """A webhook's id and its secret."""
        given = {"url": url, "description": "", "event_types": [], **over}
        with self.session() as session:
            webhook, secret = webhooks.create(
                session, self.user, given, given.get("project"), self.runtime.vault, self.settings
            )
            return webhook.id, secret

    def happen(self, count: int = 1, type_: str = "round.completed", **data: Any) -> None:
        with self.session() as session:
            project = session.get_one(Project, self.project.id)
            for number in range(count):
                events.record(session, project, type_, number=number, **data)

    def send(self, until: Callable[[], bool] | None = None, seconds: float = 15.0) -> None:
        """Tick as a clock would, until nothing waits (or `until` says so)."""

        def done() -> bool:
            self.sender.tick()
            return until() if until else self.sender.idle and not self.waiting()

        eventually(done, seconds)

    def waiting(self) -> int:
        with self.runtime.db.reading() as session:
            return session.scalar(select(func.count()).where(Delivery.state == "pending")) or 0

    def deliveries(self, webhook_id: str | None = None) -> list[Delivery]:
        query = select(Delivery).order_by(Delivery.created_at, Delivery.id)
        with self.runtime.db.reading() as session:
            found = session.scalars(query.where(Delivery.webhook_id == webhook_id) if webhook_id else query)
            return list(found)

    def webhook(self, webhook_id: str) -> Webhook:
        with self.runtime.db.reading() as session:
            return session.get_one(Webhook, webhook_id)

    def edit(self, webhook_id: str, action: Callable[[Session, Webhook], Any]) -> Any:
        with self.session() as session:
            return action(session, session.get_one(Webhook, webhook_id))

    def close(self) -> None:
        self.sender.close(grace_seconds=0)
        self.runtime.close()


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(**settings: Any) -> World:
        folder = tmp_path / f"world{len(made)}"
        folder.mkdir()
        made.append(World(folder, **settings))
        return made[-1]

    yield make
    for world in made:
        world.close()


@pytest.fixture
def hasty(make_world: Callable[..., World]) -> World:
    """A world that waits for nobody longer than a second."""
    return make_world(webhook_timeout_seconds=1.0)


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()
