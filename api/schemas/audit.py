"""The audit log."""

from __future__ import annotations

from marshmallow import fields

from api.pagination import PageQuery
from api.schemas.fields import Answer, Text, Timestamp
from shared.audit import OPERATOR


class AuditEntrySchema(Answer):
    id = fields.String(required=True)
    user_id = fields.String(
        required=True, metadata={"description": f"The user; `{OPERATOR}`: an operator, with that command."}
    )
    api_key_id = fields.String(required=True, allow_none=True)
    action = fields.String(required=True, metadata={"description": "The name of the operation in the spec."})
    target = fields.String(required=True, metadata={"description": "The path of the request."})
    request_id = fields.String(required=True, allow_none=True)
    created_at = fields.AwareDateTime(required=True)


class AuditQuery(PageQuery):
    user_id = Text(100, metadata={"description": f"An id, or `{OPERATOR}`."})
    action = Text(100)
    created_after = Timestamp()
    created_before = Timestamp()
