"""The audit log, for admins."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from api import filters
from api.blueprint import Blueprint
from api.context import reading
from api.pagination import page, page_of
from api.schemas.audit import AuditEntrySchema, AuditQuery
from shared.models import AuditEntry

blp = Blueprint("audit", __name__, url_prefix="/v1", description="For admins: who did what")


@blp.get("/audit")
@blp.needs("admin")
@blp.arguments(AuditQuery, location="query")
@blp.response(200, page_of(AuditEntrySchema))
def list_audit_entries(query: dict[str, Any]) -> Any:
    """List the audit log: who made, changed, curated, downloaded or deleted what, newest first"""
    return page(
        reading(), filters.narrowed(select(AuditEntry), AuditEntry, query, "user_id", "action"), AuditEntry, query
    )
