"""Who did what. Written with what was done, in the same transaction; for admins to read."""

from __future__ import annotations

from sqlalchemy import insert
from sqlalchemy.orm import Session

from shared.models import ApiKey, AuditEntry

_WRITING = insert(AuditEntry.__table__)


def record(session: Session, key: ApiKey, action: str, target: str, request_id: str | None) -> None:
    """Remember that the holder of a key did this."""
    entry = {"user_id": key.user_id, "api_key_id": key.id, "action": action, "target": target[:500]}
    session.execute(_WRITING, {**entry, "request_id": request_id})
