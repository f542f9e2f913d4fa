"""Delete old rows: ended deliveries and idempotency keys. Events and the audit log are kept.

Each call deletes one batch, so that a million old rows don't hold a lock for long. The clock calls it repeatedly.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, inspect, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from shared import inventory
from shared.models import Base, Delivery, IdempotencyKey
from shared.outside.db import clock
from shared.settings import Settings

BATCH = 1000
KEEP_INVENTORY_DAYS = 7  # after a worker has gone: jobs and projects may still name what it had
DAY = 86_400.0
ENDED = ("delivered", "failed")


def forget(session: Session, settings: Settings) -> int:
    """Delete a batch of old rows from each table. Returns how many were deleted."""
    gone = _forget(session, IdempotencyKey, IdempotencyKey.created_at, settings.keep_idempotency_keys_days)
    for state in ENDED:
        gone += _forget(session, Delivery, Delivery.due_at, settings.keep_deliveries_days, Delivery.state == state)
    return gone + inventory.forget(session, KEEP_INVENTORY_DAYS)


def _forget(session: Session, model: type[Base], age: InstrumentedAttribute[Any], days: int, *which: Any) -> int:
    """Delete the oldest rows, along an index. `SKIP LOCKED`, because several workers may run this."""
    until = session.scalar(
        select(clock(-days * DAY))
    )  # computed first: an index can't be used with a volatile function
    key = tuple_(*inspect(model).primary_key)
    old = select(*key).where(*which, age < until).order_by(age).limit(BATCH).with_for_update(skip_locked=True)
    found = [tuple(row) for row in session.execute(old)]
    session.execute(delete(model).where(key.in_(found)), execution_options={"synchronize_session": False})
    return len(found)
