"""Webhooks: the endpoints with their secrets, and the deliveries to them.

`events.record` writes a delivery in the transaction of its event. A sender takes an endpoint by compare-and-set, and
gets its oldest due delivery. So each endpoint gets one request at a time, with any number of senders. When a sender
dies, its lease expires, and the same message is sent again with the same id.
"""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import standardwebhooks
import structlog
from sqlalchemy import Select, and_, delete, exists, func, or_, select, update
from sqlalchemy.orm import Session, contains_eager

from shared import events
from shared.errors import Conflict, Invalid, NotFound
from shared.models import Delivery, Event, Project, User, Webhook
from shared.outside.db import clock, utcnow
from shared.outside.destinations import Destinations
from shared.outside.secrets import Vault, new_webhook_secret
from shared.settings import Settings

log = structlog.get_logger()

OVERLAP_SECONDS = 24 * 3600  # for which the old secret signs too
MAX_ATTEMPTS_KEPT = 30
MAX_KEPT = 1024  # characters of a response, for the delivery's list of attempts
MAX_PAUSE_SECONDS = 60.0  # between two requests to a failing endpoint, however many deliveries wait for it
MAX_RETRY_AFTER_SECONDS = 24 * 3600.0
MAX_RECOVERED = 10_000  # in one call
JITTER = 0.1
TEST = "webhook.test"


# --- for the owner --------------------------------------------------------------------------------------------


def create(
    session: Session, user: User, given: dict[str, Any], project: Project | None, vault: Vault, settings: Settings
) -> tuple[Webhook, str]:
    """Create an endpoint for one project or for all of the user's. Returns it and its secret, which is shown once."""
    Destinations.from_settings(settings).check(given["url"])
    _check_types(given["event_types"])
    session.execute(select(User.id).where(User.id == user.id).with_for_update(key_share=True))  # one count at a time
    count = session.scalar(select(func.count()).where(Webhook.user_id == user.id)) or 0
    if count >= settings.max_webhooks_per_user:
        raise Conflict(f"you have {count} webhooks, the most that are allowed; delete one", code="too_many_webhooks")
    secret = new_webhook_secret()
    webhook = Webhook(
        user_id=user.id,
        project_id=project.id if project else None,
        url=given["url"],
        description=given["description"],
        event_types=list(dict.fromkeys(given["event_types"])),
        sealed_secret=vault.seal(secret),
    )
    session.add(webhook)
    session.flush()
    return webhook, secret


def owned_by(user_id: str) -> Select[Webhook]:
    return select(Webhook).where(Webhook.user_id == user_id)


def change(session: Session, webhook: Webhook, changes: dict[str, Any], settings: Settings) -> Webhook:
    """Change an endpoint. A new URL, or enabling it again, resets its failures."""
    if "event_types" in changes:
        _check_types(changes["event_types"])
        webhook.event_types = list(dict.fromkeys(changes["event_types"]))
    if "description" in changes:
        webhook.description = changes["description"]
    if "url" in changes and changes["url"] != webhook.url:
        Destinations.from_settings(settings).check(changes["url"])
        webhook.url = changes["url"]
        _forget_failures(webhook)
    if changes.get("enabled") is True and webhook.disabled_at:
        webhook.disabled_at = webhook.disabled_reason = None
        _forget_failures(webhook)
    session.flush()
    if changes.get("enabled") is False and not webhook.disabled_at:
        _disable(session, webhook, "disabled by its owner")
    return webhook


def remove(session: Session, webhook: Webhook) -> None:
    """Delete an endpoint and its deliveries."""
    session.execute(delete(Delivery).where(Delivery.webhook_id == webhook.id))
    session.delete(webhook)
    session.flush()


def rotate(session: Session, webhook: Webhook, vault: Vault, overlap_seconds: float = OVERLAP_SECONDS) -> str:
    """Create a new secret and return it. The old one signs too until the overlap is over."""
    now = utcnow()
    if overlap_seconds and webhook.old_secret_until and webhook.old_secret_until > now:
        raise Conflict(
            f"the secret was changed lately, and the old one signs until {webhook.old_secret_until.isoformat()}; "
            "wait until then, or set overlap_seconds to 0, so that neither of these two signs any more",
            code="rotation_under_way",
        )
    secret = new_webhook_secret()
    webhook.sealed_old_secret = webhook.sealed_secret if overlap_seconds else None
    webhook.old_secret_until = now + timedelta(seconds=overlap_seconds) if overlap_seconds else None
    webhook.sealed_secret = vault.seal(secret)
    session.flush()
    return secret


def send_test(session: Session, webhook: Webhook) -> Delivery:
    """Send a test event, whatever types the webhook wants. The event belongs to no project."""
    _check_enabled(webhook)
    event = Event(user_id=webhook.user_id, project_id=None, seq=0, type=TEST, data={"webhook_id": webhook.id})
    session.add(event)
    session.flush()
    delivery = Delivery(webhook=webhook, event=event, due_at=clock())
    session.add(delivery)
    session.flush()
    session.refresh(delivery)
    return delivery


def deliveries(webhook: Webhook, states: Collection[str] = ()) -> Select[Delivery]:
    query = select(Delivery).where(Delivery.webhook_id == webhook.id)
    return query.where(Delivery.state.in_(states)) if states else query


def get_delivery(session: Session, webhook: Webhook, delivery_id: str) -> Delivery:
    delivery = session.scalar(deliveries(webhook).where(Delivery.id == delivery_id))
    if delivery is None:
        raise NotFound(f"the webhook has no delivery {delivery_id}")
    return delivery


def redeliver(session: Session, webhook: Webhook, delivery: Delivery) -> Delivery:
    """Send a delivery again, starting with its first try. The message keeps its id."""
    _check_enabled(webhook)
    session.execute(update(Delivery).where(Delivery.id == delivery.id).values(**_AGAIN, due_at=clock()))
    session.refresh(delivery)
    return delivery


def recover(session: Session, webhook: Webhook, since: datetime, settings: Settings) -> tuple[int, bool]:
    """Send failed events since a time again, also those that happened while the endpoint was disabled.

    Returns the number of queued deliveries, and whether there may be more. Older events than `keep_deliveries_days` are
    left out: without their deliveries, nothing shows which of them have been delivered.
    """
    _check_enabled(webhook)
    since = max(since, utcnow() - timedelta(days=settings.keep_deliveries_days))
    failed = (
        select(Delivery.id)
        .join(Event, Event.id == Delivery.event_id)
        .where(Delivery.webhook_id == webhook.id, Delivery.state == "failed", Event.created_at >= since)
        .order_by(Event.created_at, Event.seq)
        .limit(MAX_RECOVERED)
    )
    again = session.execute(update(Delivery).where(Delivery.id.in_(failed)).values(**_AGAIN, due_at=clock())).rowcount  # type: ignore[attr-defined]
    known = exists().where(Delivery.webhook_id == webhook.id, Delivery.event_id == Event.id)
    undelivered = select(Event.id).where(
        Event.user_id == webhook.user_id,
        Event.created_at >= max(since, webhook.created_at),
        Event.type.in_(webhook.event_types or events.TYPES),
        Event.type != TEST,
        ~known,
    )
    if webhook.project_id:
        undelivered = undelivered.where(Event.project_id == webhook.project_id)
    room = MAX_RECOVERED - again
    missed = session.scalars(undelivered.order_by(Event.created_at, Event.seq).limit(room)).all() if room else []
    session.add_all(Delivery(webhook_id=webhook.id, event_id=event_id, due_at=clock()) for event_id in missed)
    session.flush()
    count = again + len(missed)
    return count, count >= MAX_RECOVERED


# --- for senders ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Claim:
    """An endpoint that a sender has taken, with the delivery to send, as plain values."""

    delivery_id: str
    webhook_id: str
    token: str
    url: str
    message_id: str
    body: str
    sealed_secrets: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class TryResult:
    """The result of one try."""

    at: datetime
    seconds: float
    status: int | None = None
    text: str | None = None  # the response body as it came
    error: str | None = None
    retry_after: float | None = None  # seconds, from the response

    @property
    def was_delivered(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


@dataclass(frozen=True)
class Due:
    """An endpoint with a delivery that is due."""

    webhook_id: str
    failing: bool


def due(session: Session, limit: int, but: Collection[str] = ()) -> list[Due]:
    """Endpoints with a due delivery and without a sender: healthy ones first, then the least recently served first.

    Failing ones come last, so that even many of them don't push others beyond the limit.
    """
    waiting = exists().where(Delivery.webhook_id == Webhook.id, Delivery.state == "pending", Delivery.due_at <= clock())
    query = (
        select(Webhook.id, Webhook.failures)
        .where(*_free(), Webhook.id.not_in(but), waiting)
        .order_by(Webhook.failures > 0, Webhook.lease_until.asc().nulls_first(), Webhook.id)
        .limit(limit)
    )
    return [Due(webhook_id, failures > 0) for webhook_id, failures in session.execute(query)]


def take(session: Session, webhook_id: str, token: str, settings: Settings) -> Claim | None:
    """Take an endpoint and its oldest due delivery. None if another sender has it, or if no delivery is due."""
    mine = and_(Webhook.lease_token == token, Webhook.disabled_at.is_(None), _unpaused())
    held = session.execute(
        update(Webhook)
        .where(Webhook.id == webhook_id, or_(and_(*_free()), mine))
        .values(lease_token=token, lease_until=clock(lease_seconds(settings)))
    )
    if not _one(held):
        return None
    delivery = session.scalar(
        select(Delivery)
        .join(Delivery.event)
        .options(contains_eager(Delivery.event))
        .where(Delivery.webhook_id == webhook_id, Delivery.state == "pending", Delivery.due_at <= clock())
        .order_by(Delivery.due_at, Event.seq)
        .limit(1)
        .execution_options(populate_existing=True)
    )
    if delivery is None:
        release(session, webhook_id, token)
        return None
    webhook = delivery.webhook
    return Claim(
        delivery_id=delivery.id,
        webhook_id=webhook_id,
        token=token,
        url=webhook.url,
        message_id=delivery.event_id,
        body=json.dumps(events.payload(delivery.event), separators=(",", ":")),
        sealed_secrets=_signing(webhook),
    )


def lease_seconds(settings: Settings) -> float:
    """The length of a sender's lease: longer than the longest request."""
    return 2 * settings.webhook_timeout_seconds + 1


def release(session: Session, webhook_id: str, token: str) -> None:
    """Give an endpoint back. `lease_until` becomes the time at which it was last served."""
    session.execute(
        update(Webhook)
        .where(Webhook.id == webhook_id, Webhook.lease_token == token)
        .values(lease_token=None, lease_until=clock())
    )


def headers(claim: Claim, vault: Vault) -> dict[str, str]:
    """The headers of Standard Webhooks 1.0.0, for an attempt at this moment."""
    now = utcnow()  # must be in UTC: the library replaces the time zone instead of converting
    signatures = [
        standardwebhooks.Webhook(vault.open(sealed)).sign(claim.message_id, now, claim.body)
        for sealed in claim.sealed_secrets
    ]
    return {
        "webhook-id": claim.message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def delivered(session: Session, claim: Claim, result: TryResult) -> bool:
    """Record that a delivery succeeded. Returns False, and writes nothing, if this sender has lost the endpoint."""
    webhook = _held(session, claim)
    delivery = session.get(Delivery, claim.delivery_id, populate_existing=True)
    if webhook is None or delivery is None:
        return False
    _log(delivery, result)
    delivery.state = "delivered"
    delivery.delivered_at = utcnow()
    _forget_failures(webhook)
    session.flush()
    return True


def failed_try(session: Session, claim: Claim, result: TryResult, settings: Settings) -> bool:
    """Record a failed try: schedule the next one, pause the endpoint or disable it. Returns False as in `delivered`."""
    webhook = _held(session, claim)
    delivery = session.get(Delivery, claim.delivery_id, populate_existing=True)
    if webhook is None or delivery is None:
        return False
    _log(delivery, result)
    delay = _delay(delivery.tries, result, settings)
    session.flush()
    values: dict[str, Any] = {"state": "failed"} if delay is None else {"due_at": clock(delay)}
    session.execute(update(Delivery).where(Delivery.id == delivery.id).values(**values))
    if webhook.url != claim.url:
        return True  # the old URL failed, which says nothing about the new one
    session.execute(
        update(Webhook)
        .where(Webhook.id == webhook.id)
        .values(
            failures=Webhook.failures + 1,
            failing_since=func.coalesce(Webhook.failing_since, clock()),
            paused_until=clock(_pause(webhook.failures + 1, result, settings)),
        )
    )
    log.info(
        "webhook.try_failed",
        webhook_id=webhook.id,
        delivery_id=delivery.id,
        tries=delivery.tries,
        status=result.status,
        error=result.error,
    )
    session.refresh(webhook)
    if result.status == 410:
        _disable(session, webhook, "the endpoint answered 410 Gone")
    elif _failing_for(session, webhook, settings.webhook_disable_seconds):
        since = webhook.failing_since.isoformat(timespec="seconds") if webhook.failing_since else ""
        _disable(session, webhook, f"every attempt since {since} has failed")
    return True


# --- details --------------------------------------------------------------------------------------------------

_AGAIN: dict[str, Any] = {"state": "pending", "tries": 0, "delivered_at": None}


def next_try_at(delivery: Delivery) -> datetime | None:
    """When a delivery may be tried next: when it is due, and its endpoint is not paused."""
    if delivery.state != "pending":
        return None
    return max(delivery.due_at, delivery.webhook.paused_until or delivery.due_at)


def _check_types(types: Sequence[str]) -> None:
    unknown = sorted(set(types) - set(events.TYPES))
    if unknown:
        raise Invalid(
            f"there is no event type {unknown[0]!r}; there are: {', '.join(events.TYPES)}",
            code="unknown_event_type",
            errors=[{"pointer": f"/event_types/{types.index(each)}", "detail": "unknown"} for each in unknown],
        )


def _check_enabled(webhook: Webhook) -> None:
    if webhook.disabled_at:
        raise Conflict(f"the webhook is disabled ({webhook.disabled_reason}); enable it first", code="webhook_disabled")


def _forget_failures(webhook: Webhook) -> None:
    webhook.failing_since = webhook.paused_until = None
    webhook.failures = 0


def _disable(session: Session, webhook: Webhook, reason: str) -> None:
    """Disable an endpoint. Its waiting deliveries become failed ones, so that `recover` finds them."""
    session.execute(update(Webhook).where(Webhook.id == webhook.id).values(disabled_at=clock(), disabled_reason=reason))
    session.execute(
        update(Delivery).where(Delivery.webhook_id == webhook.id, Delivery.state == "pending").values(state="failed")
    )
    session.refresh(webhook)
    log.warning("webhook.disabled", webhook_id=webhook.id, reason=reason)


def _signing(webhook: Webhook) -> tuple[str, ...]:
    """The sealed secrets that sign now: the new one, and the old one while they overlap."""
    if webhook.sealed_old_secret and webhook.old_secret_until and webhook.old_secret_until > utcnow():
        return webhook.sealed_secret, webhook.sealed_old_secret
    return (webhook.sealed_secret,)


def _held(session: Session, claim: Claim) -> Webhook | None:
    """The endpoint, if this sender still has it. No other sender can take it before the transaction ends."""
    held = session.execute(
        update(Webhook)
        .where(Webhook.id == claim.webhook_id, Webhook.lease_token == claim.token)
        .values(lease_until=clock(1))
    )
    return session.get(Webhook, claim.webhook_id, populate_existing=True) if _one(held) else None


def _log(delivery: Delivery, result: TryResult) -> None:
    entry = {
        "at": result.at.isoformat(),
        "status": result.status,
        "seconds": round(result.seconds, 3),
        "answer": _readable(result.text),
        "error": _readable(result.error),
    }
    delivery.tries += 1
    delivery.attempts = [*delivery.attempts, entry][-MAX_ATTEMPTS_KEPT:]


def _readable(text: str | None) -> str | None:
    """The first kB without control characters, which could affect a terminal; Postgres refuses NUL."""
    if text is None:
        return None
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text[:MAX_KEPT])


def _delay(tries: int, result: TryResult, settings: Settings) -> float | None:
    """Seconds until the next try, or None after the last one."""
    if tries > len(settings.webhook_retry_seconds):
        return None
    delay = settings.webhook_retry_seconds[tries - 1] * random.uniform(1 - JITTER, 1 + JITTER)
    return max(delay, _retry_after(result))


def _pause(failures: int, result: TryResult, settings: Settings) -> float:
    """Seconds for which a failing endpoint gets no requests, however many deliveries are due."""
    longest = max(settings.webhook_retry_seconds, default=MAX_PAUSE_SECONDS)
    return max(min(2.0 ** min(failures, 10), MAX_PAUSE_SECONDS, longest), _retry_after(result))


def _retry_after(result: TryResult) -> float:
    return min(result.retry_after or 0.0, MAX_RETRY_AFTER_SECONDS)


def _failing_for(session: Session, webhook: Webhook, seconds: float) -> bool:
    query = select(Webhook.id).where(Webhook.id == webhook.id, Webhook.failing_since <= clock(-seconds))
    return session.scalar(query) is not None


def _unpaused() -> Any:
    return or_(Webhook.paused_until.is_(None), Webhook.paused_until <= clock())


def _free() -> tuple[Any, ...]:
    no_lease = or_(Webhook.lease_until.is_(None), Webhook.lease_until <= clock())
    return (Webhook.disabled_at.is_(None), _unpaused(), no_lease)


def _one(result: Any) -> bool:
    return bool(result.rowcount == 1)
