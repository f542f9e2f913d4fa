"""Health."""

from __future__ import annotations

from marshmallow import fields

from api.schemas.fields import Answer


class HealthSchema(Answer):
    status = fields.String(required=True)


class ReadinessSchema(Answer):
    status = fields.String(required=True, metadata={"description": "`ok` if all parts are `ok`."})
    database = fields.String(required=True)
    broker = fields.String(required=True)
    store = fields.String(required=True)
