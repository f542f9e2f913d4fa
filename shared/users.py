"""Users and their API keys."""

from __future__ import annotations

import hmac
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from shared.errors import Conflict, Forbidden, Invalid, NotFound, Unauthorized
from shared.models import ApiKey, User
from shared.outside import secrets
from shared.outside.db import utcnow

SCOPES = {
    "projects:read": "see projects, rounds, images, jobs, events and LoRAs",
    "projects:write": "make, change, start, cancel and delete projects; generate pictures",
    "uploads:write": "add pictures",
    "curation:write": "decide about candidates",
    "artifacts:read": "download images and LoRAs",
    "webhooks:write": "manage webhooks and see their deliveries",
    "keys:write": "manage one's own API keys",
    "admin": "manage users and everybody's keys",
}
BY_REQUEST = "keys:write"  # never given by default, because such a key can create others


def scopes_of(role: str) -> list[str]:
    """All scopes that keys of a user with this role may have."""
    return [scope for scope in SCOPES if role == "admin" or scope != "admin"]


def default_scopes(allowed: list[str]) -> list[str]:
    """The scopes of a new key for which none were given, out of those that it may have."""
    return [scope for scope in allowed if scope != BY_REQUEST]


def create(session: Session, name: str, role: str = "member") -> User:
    if session.scalar(select(User).where(User.name == name)):
        raise Conflict(f"there is already a user {name!r}; choose another name", code="user_exists")
    user = User(name=name, role=role)
    session.add(user)
    try:
        session.flush()
    except IntegrityError:  # another request was faster
        raise Conflict(f"there is already a user {name!r}; choose another name", code="user_exists") from None
    return user


def by_name(session: Session, name: str) -> User:
    user = session.scalar(select(User).where(User.name == name))
    if user is None:
        raise NotFound(f"there is no user {name!r}")
    return user


def get(session: Session, user_id: str) -> User:
    user = session.get(User, user_id)
    if user is None:
        raise NotFound(f"there is no user {user_id}")
    return user


def get_locked(session: Session, user_id: str) -> User:
    """Lock a user and all admins for a change, so that two admins can't demote each other at the same time."""
    rows = select(User).where(or_(User.id == user_id, User.role == "admin")).order_by(User.id)
    locked = session.scalars(rows.with_for_update(key_share=True), execution_options={"populate_existing": True})
    user = {each.id: each for each in locked}.get(user_id)
    if user is None:
        raise NotFound(f"there is no user {user_id}")
    return user


def change(session: Session, user: User, changes: dict[str, Any]) -> User:
    """Change role and caps, disable or enable. Refuses to leave the installation without an enabled admin."""
    stays_admin = changes.get("role", "admin") == "admin" and changes.get("enabled", True)
    if user.role == "admin" and not stays_admin:
        others = select(func.count()).where(User.role == "admin", User.id != user.id, User.disabled_at.is_(None))
        if not session.scalar(others):
            raise Conflict(f"{user.name} is the only admin; make another one first", code="last_admin")
    if "enabled" in changes:
        user.disabled_at = None if changes["enabled"] else user.disabled_at or utcnow()
    for name in ("role", "max_running_jobs", "max_queued_jobs"):
        if name in changes:
            setattr(user, name, changes[name])
    session.flush()
    return user


def within(scopes: list[str] | None, allowed: list[str], role: str) -> list[str]:
    """The scopes of a new key, which can't have more than the key that creates it.

    By default it has all of them that the user's role allows. A demoted admin's key keeps the scope `admin`, but can't
    give it to a new key.
    """
    beyond = sorted(set(scopes or []) - set(allowed))
    if beyond:
        raise Forbidden(
            f"your key lacks {', '.join(beyond)}, so it can't give these scopes to another key", code="missing_scope"
        )
    return default_scopes([each for each in scopes_of(role) if each in allowed]) if scopes is None else scopes


def no_longer(expires_at: datetime | None, allowed: datetime | None) -> datetime | None:
    """When a new key expires. It can't outlive the key that creates it."""
    return min((each for each in (expires_at, allowed) if each is not None), default=None)


def lock_keys(session: Session, user_id: str) -> None:
    """Lock the user, so that no other transaction creates or revokes a key of this user."""
    session.execute(select(User.id).where(User.id == user_id).with_for_update(key_share=True))


def check_key_count(session: Session, user_id: str, allowed: int) -> None:
    """Raise `Conflict` (`too_many_keys`) when a user has as many valid keys as allowed."""
    lock_keys(session, user_id)
    unexpired = or_(ApiKey.expires_at.is_(None), ApiKey.expires_at >= utcnow())
    good = select(func.count()).where(ApiKey.user_id == user_id, ApiKey.revoked_at.is_(None), unexpired)
    count = session.scalar(good) or 0
    if count >= allowed:
        raise Conflict(f"{count} keys are in use, and {allowed} are allowed; revoke one", code="too_many_keys")


def key_of(session: Session, user_id: str, key_id: str) -> ApiKey:
    """A user's key."""
    row = session.scalar(select(ApiKey).where(ApiKey.id == key_id, ApiKey.user_id == user_id))
    if row is None:
        raise NotFound(f"the user has no key {key_id}")
    return row


def find_key(session: Session, text: str) -> ApiKey:
    """Any user's key, by its id, by its prefix or by the key itself, for example one found in a log or a repository."""
    named = or_(ApiKey.id == text, ApiKey.prefix == (secrets.api_key_prefix(text) or text))
    row = session.scalar(select(ApiKey).where(named))
    if row is None:
        raise NotFound("there is no such key; `bootlora-admin list-keys` shows ids and prefixes")
    return row


def revoke(session: Session, key: ApiKey) -> None:
    """Revoke a key and all keys that were created with it. Revoking twice changes nothing."""
    lock_keys(session, key.user_id)
    family = select(ApiKey.id).where(ApiKey.id == key.id).cte("family", recursive=True)
    family = family.union(select(ApiKey.id).where(ApiKey.parent_id == family.c.id))
    live = update(ApiKey).where(ApiKey.id.in_(select(family.c.id)), ApiKey.revoked_at.is_(None))
    session.execute(live.values(revoked_at=utcnow()), execution_options={"synchronize_session": False})
    session.refresh(key)


def create_key(
    session: Session,
    user: User,
    secret_key: str,
    *,
    name: str,
    scopes: list[str] | None = None,
    expires_at: datetime | None = None,
    parent_id: str | None = None,
) -> tuple[ApiKey, str]:
    """Create a key. Returns its row and its text, which is not stored. `parent_id` is the key that creates it.

    Raises:
        Unauthorized: the parent has been revoked meanwhile, or has expired.
    """
    lock_keys(session, user.id)
    if parent_id is not None and not is_good(session, parent_id):
        raise Unauthorized("this API key has been revoked or has expired; ask an admin for a new one")
    if expires_at is not None and expires_at <= utcnow():
        raise Invalid("a key can't expire in the past", code="expired_already")
    if scopes is not None and "admin" in scopes and user.role != "admin":
        raise Invalid(f"{user.name} isn't an admin; leave the scope `admin` out", code="not_an_admin")
    text = secrets.new_api_key()
    prefix = secrets.api_key_prefix(text)
    assert prefix is not None
    if scopes is None:
        scopes = default_scopes(scopes_of(user.role))
    row = ApiKey(
        user=user,
        user_id=user.id,
        parent_id=parent_id,
        name=name,
        prefix=prefix,
        digest=secrets.digest(secret_key, text),
        scopes=scopes,
        expires_at=expires_at,
    )
    session.add(row)
    session.flush()
    return row, text


def authenticate(session: Session, text: str, secret_key: str) -> ApiKey:
    """The row of a valid key.

    Raises:
        Unauthorized: the key is unknown or revoked (the error doesn't say which), it has expired (`key_expired`), or
            its user is disabled (`user_disabled`).
    """
    prefix = secrets.api_key_prefix(text)
    row = session.scalar(select(ApiKey).where(ApiKey.prefix == prefix)) if prefix else None
    if row is None or not hmac.compare_digest(row.digest, secrets.digest(secret_key, text)) or row.revoked_at:
        raise Unauthorized("this API key is not known here; check it, or ask an admin for a new one")
    check_fresh(row)
    return row


def check_fresh(row: ApiKey) -> None:
    """Raise `Unauthorized` when the key has expired or its user is disabled."""
    if row.user.disabled_at:
        raise Unauthorized("this user is disabled; ask an admin", code="user_disabled")
    if row.expires_at and row.expires_at < utcnow():
        raise Unauthorized("this API key has expired; make a new one", code="key_expired")


def is_good(session: Session, key_id: str) -> bool:
    """Whether a key is still valid."""
    row = session.get(ApiKey, key_id, populate_existing=True)
    return row is not None and is_good_row(row)


def is_good_row(row: ApiKey) -> bool:
    """Whether a key that has just been read is valid."""
    if row.revoked_at or row.user.disabled_at:
        return False
    return row.expires_at is None or row.expires_at >= utcnow()


def is_stale(row: ApiKey) -> bool:
    """Whether the recorded last use is older than a minute. It is not updated at every request, to save writes."""
    return row.last_used_at is None or row.last_used_at < utcnow() - timedelta(minutes=1)


def touch(session: Session, row: ApiKey) -> None:
    """Record that the key is in use."""
    session.execute(update(ApiKey).where(ApiKey.id == row.id).values(last_used_at=utcnow()))
