"""Events."""

from __future__ import annotations

from marshmallow import fields

from api.schemas.fields import MAX_INTEGER, Answer, QueryInteger, Schema


class EventSchema(Answer):
    """An event of a project. `data.seq` counts the project's events without a gap."""

    type = fields.String(required=True, metadata={"example": "round.candidates_ready"})
    timestamp = fields.String(required=True, metadata={"format": "date-time"})
    data = fields.Dict(keys=fields.String(), required=True)


class EventListSchema(Answer):
    items = fields.List(fields.Nested(EventSchema), required=True)
    has_more = fields.Boolean(required=True)


class EventQuery(Schema):
    after = QueryInteger(
        0, MAX_INTEGER, load_default=0, metadata={"description": "The `seq` of the last event that you have."}
    )
    limit = QueryInteger(1, 100, load_default=20)


class StreamQuery(Schema):
    after = QueryInteger(
        0, MAX_INTEGER, metadata={"description": "Begin after this `seq`. `Last-Event-ID` overrides it."}
    )
