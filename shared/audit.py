"""The audit log, for admins. An entry is written in the transaction of its action."""

from __future__ import annotations

from sqlalchemy import insert
from sqlalchemy.orm import Session

from shared.models import ApiKey, AuditEntry

_WRITING = insert(AuditEntry.__table__)
OPERATOR = "bootlora-admin"  # instead of a user's id, for actions by this command


def record(session: Session, key: ApiKey, action: str, target: str, request_id: str | None) -> None:
    """Record an action by the user of an API key."""
    entry = {"user_id": key.user_id, "api_key_id": key.id, "action": action, "target": target[:500]}
    session.execute(_WRITING, {**entry, "request_id": request_id})


def record_operator(session: Session, action: str, target: str) -> None:
    """Record an action by `bootlora-admin`. Action and target are those of the route that does the same."""
    entry = {"user_id": OPERATOR, "api_key_id": None, "action": action, "target": target}
    session.execute(_WRITING, {**entry, "request_id": None})
