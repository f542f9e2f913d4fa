"""Webhooks and their deliveries."""

from __future__ import annotations

from types import SimpleNamespace

from marshmallow import fields

from api.pagination import PageQuery
from api.schemas.choices import DeliveryStateChoice, EventTypeChoice
from api.schemas.fields import Answer, IdField, Links, List, Schema, StrictBoolean, StrictInteger, Text, Timestamp
from shared.models import Delivery, Webhook
from shared.outside.destinations import MAX_URL
from shared.webhooks import OVERLAP_SECONDS, next_try_at

URL = {
    "description": "The endpoint: https, without a user name or fragment, on the open internet "
    "(or in a network that the operator allows).",
    "example": "https://studio.example/hooks/bootlora",
}
EVENT_TYPES = {"description": "The event types to send. Empty: all types, including future ones."}
DESCRIPTION = {"description": "A note for yourself."}


class NewWebhookSchema(Schema):
    url = Text(MAX_URL, required=True, metadata=URL)
    description = Text(200, min_length=0, load_default="", metadata=DESCRIPTION)
    event_types = List(
        EventTypeChoice(), 0, len(EventTypeChoice.words), load_default=list, metadata=EVENT_TYPES | {"default": []}
    )
    project_id = IdField(
        allow_none=True, load_default=None, metadata={"description": "By default all of your projects."}
    )


class WebhookChangeSchema(Schema):
    url = Text(MAX_URL, metadata=URL)
    description = Text(200, min_length=0, metadata=DESCRIPTION)
    event_types = List(EventTypeChoice(), 0, len(EventTypeChoice.words), metadata=EVENT_TYPES)
    enabled = StrictBoolean(metadata={"description": "True enables it again and resets its failures."})


class WebhookSchema(Answer):
    id = fields.String(required=True)
    project_id = fields.String(required=True, allow_none=True)
    url = fields.String(required=True)
    description = fields.String(required=True)
    event_types = fields.List(fields.String(), required=True)
    enabled = fields.Function(lambda webhook: webhook.disabled_at is None, metadata={"type": "boolean"}, required=True)
    disabled_at = fields.AwareDateTime(required=True, allow_none=True)
    disabled_reason = fields.String(required=True, allow_none=True)
    failing_since = fields.AwareDateTime(
        required=True, allow_none=True, metadata={"description": "All tries since this time have failed."}
    )
    old_secret_until = fields.AwareDateTime(
        required=True, allow_none=True, metadata={"description": "Until this time the previous secret signs too."}
    )
    created_at = fields.AwareDateTime(required=True)
    links = Links(
        self="/v1/webhooks/{it.id}",
        deliveries="/v1/webhooks/{it.id}/deliveries",
        test="/v1/webhooks/{it.id}/test",
        rotate_secret="/v1/webhooks/{it.id}/rotate-secret",  # noqa: S106  (an address)
        recover="/v1/webhooks/{it.id}/recover",
    )


class FreshWebhookSchema(WebhookSchema):
    secret = fields.String(
        required=True,
        metadata={"description": "The secret that signs its messages, `whsec_` and base64. It is shown only once."},
    )

    @staticmethod
    def shown(webhook: Webhook, secret: str) -> SimpleNamespace:
        """A webhook's row with its secret."""
        columns = {column.key: getattr(webhook, column.key) for column in Webhook.__table__.columns}
        return SimpleNamespace(**columns, secret=secret)


class RotationSchema(Schema):
    overlap_seconds = StrictInteger(
        0,
        7 * 24 * 3600,
        load_default=OVERLAP_SECONDS,
        metadata={"description": "For how long the old secret signs too. 0: not at all."},
    )


class TrySchema(Answer):
    at = fields.String(required=True, metadata={"format": "date-time"})
    status = fields.Integer(required=True, allow_none=True, metadata={"description": "Null if no answer came."})
    seconds = fields.Float(required=True)
    answer = fields.String(required=True, allow_none=True, metadata={"description": "The first kB of its body."})
    error = fields.String(required=True, allow_none=True)


def _next_try_at(delivery: Delivery) -> str | None:
    at = next_try_at(delivery)
    return None if at is None else at.isoformat()


class DeliverySchema(Answer):
    """The delivery of one event to one webhook."""

    id = fields.String(required=True)
    webhook_id = fields.String(required=True)
    event_id = fields.String(
        required=True, metadata={"description": "Sent as `webhook-id`. It is the same in each try."}
    )
    event_type = fields.String(attribute="event.type", required=True)
    project_id = fields.String(attribute="event.project_id", required=True, allow_none=True)
    seq = fields.Integer(attribute="event.seq", required=True)
    state = DeliveryStateChoice(required=True)
    tries = fields.Integer(required=True)
    next_try_at = fields.Function(
        _next_try_at,
        metadata={
            "type": ["string", "null"],
            "format": "date-time",
            "description": "The earliest time. It may be later if the endpoint is busy with another delivery.",
        },
        required=True,
    )
    paused_until = fields.AwareDateTime(
        attribute="webhook.paused_until",
        required=True,
        allow_none=True,
        metadata={"description": "The endpoint gets no requests before this time, because its last try failed."},
    )
    attempts = fields.List(fields.Nested(TrySchema), required=True, metadata={"description": "The last 30 tries."})
    delivered_at = fields.AwareDateTime(required=True, allow_none=True)
    created_at = fields.AwareDateTime(required=True)
    links = Links(
        self="/v1/webhooks/{it.webhook_id}/deliveries/{it.id}",
        webhook="/v1/webhooks/{it.webhook_id}",
        redeliver="/v1/webhooks/{it.webhook_id}/deliveries/{it.id}/redeliver",
    )


class DeliveryQuery(PageQuery):
    state = DeliveryStateChoice()


class RecoverySchema(Schema):
    since = Timestamp(required=True, metadata={"description": "Events from this time on."})


class RecoveredSchema(Answer):
    recovered = fields.Integer(required=True, metadata={"description": "Deliveries that are queued again."})
    has_more = fields.Boolean(
        required=True, metadata={"description": "Whether there may be more. Then repeat the request."}
    )
