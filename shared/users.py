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
MEMBER_SCOPES = [scope for scope in SCOPES if scope != "admin"]


def create(session: Session, name: str, role: str = "member") -> User:
    if session.scalar(select(User).where(User.name == name)):
        raise Conflict(f"there is a user {name!r} already", code="user_exists")
    user = User(name=name, role=role)
    session.add(user)
    try:
        session.flush()
    except IntegrityError:  # another request was sooner
        raise Conflict(f"there is a user {name!r} already", code="user_exists") from None
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
    """A user to be changed, locked with all admins: of two who demote each other, one comes second."""
    rows = select(User).where(or_(User.id == user_id, User.role == "admin")).order_by(User.id)
    locked = session.scalars(rows.with_for_update(key_share=True), execution_options={"populate_existing": True})
    user = {each.id: each for each in locked}.get(user_id)
    if user is None:
        raise NotFound(f"there is no user {user_id}")
    return user


def change(session: Session, user: User, changes: dict[str, Any]) -> User:
    """Change role and caps. There is always an admin."""
    if user.role == "admin" and changes.get("role", "admin") != "admin":
        others = select(func.count()).where(User.role == "admin", User.id != user.id)
        if not session.scalar(others):
            raise Conflict(f"{user.name} is the only admin; make another one first", code="last_admin")
    for name in ("role", "max_running_jobs", "max_queued_jobs"):
        if name in changes:
            setattr(user, name, changes[name])
    session.flush()
    return user


def within(scopes: list[str] | None, allowed: list[str]) -> list[str]:
    """The scopes of a new key, which can't reach further than the key that makes it."""
    beyond = sorted(set(scopes or []) - set(allowed))
    if beyond:
        raise Forbidden(f"your key lacks {', '.join(beyond)}, so it can't give that on", code="missing_scope")
    return allowed if scopes is None else scopes


def no_longer(expires_at: datetime | None, allowed: datetime | None) -> datetime | None:
    """When a new key expires: it can't outlive the key that makes it."""
    return min((each for each in (expires_at, allowed) if each is not None), default=None)


def revoke(row: ApiKey) -> None:
    """Make a key useless. Twice changes nothing."""
    row.revoked_at = row.revoked_at or utcnow()


def create_key(
    session: Session,
    user: User,
    secret_key: str,
    *,
    name: str,
    scopes: list[str] | None = None,
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """A new key and its text, which is shown this once."""
    if expires_at is not None and expires_at <= utcnow():
        raise Invalid("a key can't expire in the past", code="expired_already")
    if scopes is not None and "admin" in scopes and user.role != "admin":
        raise Invalid(f"{user.name} is no admin; leave the scope `admin` out", code="not_an_admin")
    text = secrets.new_api_key()
    prefix = secrets.api_key_prefix(text)
    assert prefix is not None
    if scopes is None:
        scopes = list(SCOPES) if user.role == "admin" else MEMBER_SCOPES
    row = ApiKey(
        user=user,
        user_id=user.id,
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
    """The key's row, if the key is good now.

    Raises:
        Unauthorized: not a key of this installation, revoked or expired. It doesn't say which of the first two.
    """
    prefix = secrets.api_key_prefix(text)
    row = session.scalar(select(ApiKey).where(ApiKey.prefix == prefix)) if prefix else None
    if row is None or not hmac.compare_digest(row.digest, secrets.digest(secret_key, text)) or row.revoked_at:
        raise Unauthorized("this API key is not known here; check it, or ask an admin for a new one")
    check_fresh(row)
    return row


def check_fresh(row: ApiKey) -> None:
    """Raises `Unauthorized` when the time of a key is over."""
    if row.expires_at and row.expires_at < utcnow():
        raise Unauthorized("this API key has expired; make a new one", code="key_expired")


def is_good(session: Session, key_id: str) -> bool:
    """Whether a key that was good once still is."""
    row = session.get(ApiKey, key_id)
    return row is not None and row.revoked_at is None and (row.expires_at is None or row.expires_at >= utcnow())


def is_stale(row: ApiKey) -> bool:
    """Whether the last use on record is old. Once a minute is enough: a read should not become a write."""
    return row.last_used_at is None or row.last_used_at < utcnow() - timedelta(minutes=1)


def touch(session: Session, row: ApiKey) -> None:
    """Remember that the key is in use."""
    session.execute(update(ApiKey).where(ApiKey.id == row.id).values(last_used_at=utcnow()))
