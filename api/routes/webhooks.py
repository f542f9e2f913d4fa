"""Webhooks and their deliveries."""

from __future__ import annotations

from typing import Any

from api import etags, owned
from api.blueprint import Blueprint
from api.context import begin_transaction, reading, runtime, user
from api.pagination import PageQuery, page, page_of
from api.schemas.fields import address
from api.schemas.webhooks import (
    DeliveryQuery,
    DeliverySchema,
    FreshWebhookSchema,
    NewWebhookSchema,
    RecoveredSchema,
    RecoverySchema,
    RotationSchema,
    WebhookChangeSchema,
    WebhookSchema,
)
from shared import webhooks
from shared.models import Delivery, Webhook

blp = Blueprint(
    "webhooks", __name__, url_prefix="/v1", description="Endpoints to which events are sent, and their deliveries"
)


@blp.post("/webhooks")
@blp.needs("webhooks:write")
@blp.fails(404)
@blp.idempotent
@blp.arguments(NewWebhookSchema)
@blp.response(201, FreshWebhookSchema)
def create_webhook(body: dict[str, Any]) -> Any:
    """Create a webhook, which sends events to a URL

    Messages are signed according to Standard Webhooks 1.0.0. The secret is shown only once.
    """
    session = begin_transaction()
    project = owned.locked_project(body["project_id"]) if body["project_id"] else None
    webhook, secret = webhooks.create(session, user(), body, project, runtime().vault, runtime().settings)
    return FreshWebhookSchema.shown(webhook, secret), {"Location": address(f"/v1/webhooks/{webhook.id}")}


@blp.get("/webhooks")
@blp.needs("webhooks:write")
@blp.arguments(PageQuery, location="query")
@blp.response(200, page_of(WebhookSchema))
def list_webhooks(query: dict[str, Any]) -> Any:
    """List your webhooks, newest first"""
    return page(reading(), webhooks.owned_by(user().id), Webhook, query)


@blp.get("/webhooks/<id:webhook_id>")
@blp.needs("webhooks:write")
@blp.fails(404)
@blp.with_etag
@blp.response(200, WebhookSchema)
def get_webhook(webhook_id: str) -> Any:
    """Show a webhook"""
    return owned.webhook(webhook_id)


@blp.patch("/webhooks/<id:webhook_id>")
@blp.needs("webhooks:write")
@blp.fails(404)
@blp.if_match
@blp.with_etag
@blp.arguments(WebhookChangeSchema)
@blp.response(200, WebhookSchema)
def change_webhook(body: dict[str, Any], webhook_id: str) -> Any:
    """Change a webhook, or enable it again

    A new URL, or enabling it again, resets its failures.
    """
    session = begin_transaction()
    webhook = owned.locked_webhook(webhook_id)
    etags.check(WebhookSchema, webhook)
    return webhooks.change(session, webhook, body, runtime().settings)


@blp.delete("/webhooks/<id:webhook_id>")
@blp.needs("webhooks:write")
@blp.fails(404)
@blp.response(204)
def delete_webhook(webhook_id: str) -> Any:
    """Delete a webhook and its deliveries"""
    session = begin_transaction()
    webhooks.remove(session, owned.locked_webhook(webhook_id))


@blp.post("/webhooks/<id:webhook_id>/rotate-secret")
@blp.needs("webhooks:write")
@blp.fails(404)
@blp.idempotent
@blp.arguments(RotationSchema)
@blp.response(200, FreshWebhookSchema)
def rotate_webhook_secret(body: dict[str, Any], webhook_id: str) -> Any:
    """Create a new secret. It is shown only once

    For some time, a day by default, messages are signed with both secrets.
    """
    session = begin_transaction()
    webhook = owned.locked_webhook(webhook_id)
    secret = webhooks.rotate(session, webhook, runtime().vault, body["overlap_seconds"])
    return FreshWebhookSchema.shown(webhook, secret)


@blp.post("/webhooks/<id:webhook_id>/test")
@blp.needs("webhooks:write")
@blp.fails(404)
@blp.idempotent
@blp.response(202, DeliverySchema)
def test_webhook(webhook_id: str) -> Any:
    """Send a test event

    Its type is `webhook.test`, and it is sent whatever types the webhook wants. The delivery shows the result.
    """
    session = begin_transaction()
    delivery = webhooks.send_test(session, owned.locked_webhook(webhook_id))
    return delivery, {"Location": address(f"/v1/webhooks/{webhook_id}/deliveries/{delivery.id}")}


@blp.get("/webhooks/<id:webhook_id>/deliveries")
@blp.needs("webhooks:write")
@blp.fails(404)
@blp.arguments(DeliveryQuery, location="query")
@blp.response(200, page_of(DeliverySchema))
def list_deliveries(query: dict[str, Any], webhook_id: str) -> Any:
    """List the deliveries of a webhook, newest first"""
    webhook = owned.webhook(webhook_id)
    states = [query["state"]] if "state" in query else []
    return page(reading(), webhooks.deliveries(webhook, states), Delivery, query)


@blp.get("/webhooks/<id:webhook_id>/deliveries/<id:delivery_id>")
@blp.needs("webhooks:write")
@blp.fails(404)
@blp.response(200, DeliverySchema)
def get_delivery(webhook_id: str, delivery_id: str) -> Any:
    """Show a delivery with its tries"""
    return webhooks.get_delivery(reading(), owned.webhook(webhook_id), delivery_id)


@blp.post("/webhooks/<id:webhook_id>/deliveries/<id:delivery_id>/redeliver")
@blp.needs("webhooks:write")
@blp.fails(404)
@blp.idempotent
@blp.response(202, DeliverySchema)
def redeliver(webhook_id: str, delivery_id: str) -> Any:
    """Send an event again

    The `webhook-id` stays the same, so that receivers recognise an event that they have already.
    """
    session = begin_transaction()
    webhook = owned.locked_webhook(webhook_id)
    delivery = webhooks.redeliver(session, webhook, webhooks.get_delivery(session, webhook, delivery_id))
    return delivery, {"Location": address(f"/v1/webhooks/{webhook_id}/deliveries/{delivery_id}")}


@blp.post("/webhooks/<id:webhook_id>/recover")
@blp.needs("webhooks:write")
@blp.fails(404)
@blp.idempotent
@blp.arguments(RecoverySchema)
@blp.response(202, RecoveredSchema)
def recover_webhook(body: dict[str, Any], webhook_id: str) -> Any:
    """Send all failed events since a time again

    This includes events that happened while the webhook was disabled.
    """
    session = begin_transaction()
    webhook = owned.locked_webhook(webhook_id)
    recovered, has_more = webhooks.recover(session, webhook, body["since"], runtime().settings)
    return {"recovered": recovered, "has_more": has_more}
