"""A user's own API keys."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from api import auth, owned
from api.blueprint import Blueprint
from api.context import after, api_key, begin_transaction, reading, runtime, user
from api.pagination import PageQuery, page, page_of
from api.schemas.fields import address
from api.schemas.users import FreshKeySchema, KeySchema, NewKeySchema
from shared import users
from shared.models import ApiKey

blp = Blueprint("keys", __name__, url_prefix="/v1", description="Your API keys")


@blp.get("/keys")
@blp.needs("keys:write")
@blp.arguments(PageQuery, location="query")
@blp.response(200, page_of(KeySchema))
def list_keys(query: dict[str, Any]) -> Any:
    """List your keys, newest first"""
    return page(reading(), select(ApiKey).where(ApiKey.user_id == user().id), ApiKey, query)


@blp.post("/keys")
@blp.needs("keys:write")
@blp.idempotent
@blp.arguments(NewKeySchema)
@blp.response(201, FreshKeySchema)
def create_key(body: dict[str, Any]) -> Any:
    """Create another key for yourself. It is shown only once

    It has no more scopes than the key that creates it, expires no later, and is revoked with it.
    """
    body["scopes"] = users.within(body.get("scopes"), api_key().scopes, user().role)
    body["expires_at"] = users.no_longer(body.get("expires_at"), api_key().expires_at)
    session = begin_transaction()
    users.check_key_count(session, user().id, runtime().settings.max_keys_per_user)
    mine = users.get(session, user().id)
    row, text = users.create_key(session, mine, runtime().settings.secret_key, parent_id=api_key().id, **body)
    return FreshKeySchema.shown(row, text), {"Location": address(f"/v1/keys/{row.id}")}


@blp.get("/keys/<id:key_id>")
@blp.needs("keys:write")
@blp.fails(404)
@blp.response(200, KeySchema)
def get_key(key_id: str) -> Any:
    """Show a key of yours"""
    return owned.key(key_id)


@blp.delete("/keys/<id:key_id>")
@blp.needs("keys:write")
@blp.fails(404)
@blp.response(204)
def revoke_key(key_id: str) -> Any:
    """Revoke a key of yours, and all keys that were created with it. This can't be undone

    Within two seconds every process refuses them.
    """
    users.revoke(begin_transaction(), owned.locked_key(key_id))
    after(auth.forget)
