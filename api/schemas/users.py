"""Users and their API keys."""

from __future__ import annotations

from typing import Any

from marshmallow import fields

from api.schemas.choices import RoleChoice, ScopeChoice
from api.schemas.fields import Answer, List, Name, Schema, StrictBoolean, StrictInteger, Timestamp
from shared.models import ApiKey
from shared.users import SCOPES


class UserSchema(Answer):
    id = fields.String(required=True)
    name = fields.String(required=True)
    role = RoleChoice(required=True)
    max_running_jobs = fields.Integer(required=True, allow_none=True)
    max_queued_jobs = fields.Integer(required=True, allow_none=True)
    gpu_seconds = fields.Float(required=True)
    enabled = fields.Function(lambda user: user.disabled_at is None, metadata={"type": "boolean"}, required=True)
    disabled_at = fields.AwareDateTime(required=True, allow_none=True)
    created_at = fields.AwareDateTime(required=True)


class NewUserSchema(Schema):
    name = Name(100, required=True)
    role = RoleChoice(load_default="member")
    max_running_jobs = StrictInteger(0, 1_000, allow_none=True)
    max_queued_jobs = StrictInteger(0, 100_000, allow_none=True)


class UserChangeSchema(Schema):
    role = RoleChoice()
    enabled = StrictBoolean(
        metadata={"description": "False: the user's keys are refused, and the user's jobs are cancelled."}
    )
    max_running_jobs = StrictInteger(
        0, 1_000, allow_none=True, metadata={"description": "Null: the installation's own."}
    )
    max_queued_jobs = StrictInteger(
        0, 100_000, allow_none=True, metadata={"description": "Null: the installation's own."}
    )


class NewKeySchema(Schema):
    name = Name(100, required=True, metadata={"description": "What the key is for."})
    scopes = List(
        ScopeChoice(),
        1,
        len(SCOPES),
        metadata={
            "description": "By default all of your scopes (for another user, all of the user's role) except "
            "`keys:write`."
        },
    )
    expires_at = Timestamp(allow_none=True, load_default=None)


class KeySchema(Answer):
    id = fields.String(required=True)
    parent_id = fields.String(
        required=True, allow_none=True, metadata={"description": "The key that created it. Both are revoked together."}
    )
    name = fields.String(required=True)
    prefix = fields.String(required=True, metadata={"description": "The public part of the key."})
    scopes = fields.List(fields.String(), required=True)
    expires_at = fields.AwareDateTime(required=True, allow_none=True)
    last_used_at = fields.AwareDateTime(required=True, allow_none=True)
    revoked_at = fields.AwareDateTime(required=True, allow_none=True)
    created_at = fields.AwareDateTime(required=True)


class FreshKeySchema(KeySchema):
    key = fields.String(required=True, metadata={"description": "The key itself, which is shown only once."})

    @staticmethod
    def shown(row: ApiKey, text: str) -> dict[str, Any]:
        """A key's row with the key itself."""
        return {column.key: getattr(row, column.key) for column in ApiKey.__table__.columns} | {"key": text}
