"""Users and all keys, for admins."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from api import auth, etags
from api.blueprint import Blueprint
from api.context import after, api_key, begin_transaction, reading, runtime
from api.pagination import PageQuery, page, page_of
from api.schemas.fields import address
from api.schemas.users import FreshKeySchema, KeySchema, NewKeySchema, NewUserSchema, UserChangeSchema, UserSchema
from shared import users
from shared.models import ApiKey, User

blp = Blueprint("users", __name__, url_prefix="/v1", description="For admins: the users of this installation")


@blp.get("/users")
@blp.needs("admin")
@blp.arguments(PageQuery, location="query")
@blp.response(200, page_of(UserSchema))
def list_users(query: dict[str, Any]) -> Any:
    """List the users"""
    return page(reading(), select(User), User, query)


@blp.post("/users")
@blp.needs("admin")
@blp.idempotent
@blp.with_etag
@blp.arguments(NewUserSchema)
@blp.response(201, UserSchema)
def create_user(body: dict[str, Any]) -> Any:
    """Create a user"""
    session = begin_transaction()
    user = users.create(session, body.pop("name"), body.pop("role"))
    return users.change(session, user, body), {"Location": address(f"/v1/users/{user.id}")}


@blp.get("/users/<id:user_id>")
@blp.needs("admin")
@blp.fails(404)
@blp.with_etag
@blp.response(200, UserSchema)
def get_user(user_id: str) -> Any:
    """Show a user"""
    return users.get(reading(), user_id)


@blp.patch("/users/<id:user_id>")
@blp.needs("admin")
@blp.fails(404, 409)
@blp.if_match
@blp.with_etag
@blp.arguments(UserChangeSchema)
@blp.response(200, UserSchema)
def change_user(body: dict[str, Any], user_id: str) -> Any:
    """Change the role or the caps of a user, or disable or enable the user

    Within two seconds, requests with keys of a disabled user get 401 `user_disabled`, and worker-io cancels the user's
    jobs. The data is kept. When the user is enabled again, the same keys work, and the projects can be retried.
    """
    session = begin_transaction()
    user = users.get_locked(session, user_id)
    etags.check(UserSchema, user)
    after(auth.forget)
    return users.change(session, user, body)


@blp.get("/users/<id:user_id>/keys")
@blp.needs("admin")
@blp.fails(404)
@blp.arguments(PageQuery, location="query")
@blp.response(200, page_of(KeySchema))
def list_user_keys(query: dict[str, Any], user_id: str) -> Any:
    """List the keys of a user, newest first"""
    user = users.get(reading(), user_id)
    return page(reading(), select(ApiKey).where(ApiKey.user_id == user.id), ApiKey, query)


@blp.post("/users/<id:user_id>/keys")
@blp.needs("admin")
@blp.fails(404)
@blp.idempotent
@blp.arguments(NewKeySchema)
@blp.response(201, FreshKeySchema)
def create_user_key(body: dict[str, Any], user_id: str) -> Any:
    """Create a key for a user. It is shown only once"""
    session = begin_transaction()
    user, settings = users.get(session, user_id), runtime().settings
    users.check_key_count(session, user_id, settings.max_keys_per_user)
    if user_id == api_key().user_id:  # like a key from POST /v1/keys, it ends with the key that created it
        body["expires_at"] = users.no_longer(body.get("expires_at"), api_key().expires_at)
        body["parent_id"] = api_key().id
    row, text = users.create_key(session, user, settings.secret_key, **body)
    return FreshKeySchema.shown(row, text), {"Location": address(f"/v1/users/{user_id}/keys/{row.id}")}


@blp.get("/users/<id:user_id>/keys/<id:key_id>")
@blp.needs("admin")
@blp.fails(404)
@blp.response(200, KeySchema)
def get_user_key(user_id: str, key_id: str) -> Any:
    """Show a key of a user"""
    return users.key_of(reading(), user_id, key_id)


@blp.delete("/users/<id:user_id>/keys/<id:key_id>")
@blp.needs("admin")
@blp.fails(404)
@blp.response(204)
def revoke_user_key(user_id: str, key_id: str) -> Any:
    """Revoke a key of a user, and all keys that were created with it. This can't be undone

    Within two seconds every process refuses them.
    """
    session = begin_transaction()
    users.revoke(session, users.key_of(session, user_id, key_id))
    after(auth.forget)
