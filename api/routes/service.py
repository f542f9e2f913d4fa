"""The installation's base models and limits, and the caller."""

from __future__ import annotations

from typing import Any

from api.blueprint import Blueprint
from api.context import api_key, base_models, reading, runtime
from api.pagination import list_of
from api.schemas.service import BaseModelSchema, LimitsSchema, MeSchema
from shared import inventory, usage

blp = Blueprint("service", __name__, url_prefix="/v1", description="Base models, limits, and your user")


@blp.get("/base-models")
@blp.needs("")
@blp.response(200, list_of(BaseModelSchema))
def list_base_models() -> Any:
    """List the base models

    They are those that ship and those in the folders of the workers. One with a `problem` can't be used.
    """
    at_hand = inventory.at_hand(reading(), runtime().settings)
    return {
        "items": [
            {"model": model, "available": not model.problem and (at_hand is None or model.name in at_hand)}
            for model in base_models().values()
        ]
    }


@blp.get("/limits")
@blp.needs("")
@blp.response(200, LimitsSchema)
def show_limits() -> Any:
    """Show the limits of this installation"""
    return runtime().settings


@blp.get("/me")
@blp.needs("")
@blp.response(200, MeSchema)
def show_me() -> Any:
    """Show the key's user, its scopes and the user's usage"""
    key = api_key()
    return {"user": key.user, "key": key, "scopes": key.scopes, "usage": usage.of_user(reading(), key.user)}
