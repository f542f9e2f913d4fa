"""Who did what. Written with what was done, in the same transaction; for admins to read."""

from __future__ import annotations

from sqlalchemy import insert
from sqlalchemy.orm import Session

from shared import prepared
from shared.db import utcnow
from shared.ids import new_id
from shared.models import ApiKey, AuditEntry

_WRITING = insert(AuditEntry.__table__)


def record(session: Session, key: ApiKey, action: str, target: str, request_id: str | None) -> None:
    """Remember that the holder of a key did this."""
    entry = {"user_id": key.user_id, "api_key_id": key.id, "action": action, "target": target[:500]}
    prepared.run(session, _WRITING, **entry, id=new_id("aud"), request_id=request_id, created_at=utcnow())
