"""Events: what has happened, in order."""

from __future__ import annotations

from typing import Any

from api import owned
from api.blueprint import Blueprint
from api.context import reading
from api.schemas.events import EventListSchema, EventQuery
from shared import events

blp = Blueprint("events", __name__, url_prefix="/v1", description="What has happened, in order")


@blp.get("/projects/<id:project_id>/events")
@blp.needs("projects:read")
@blp.fails(404)
@blp.arguments(EventQuery, location="query")
@blp.response(200, EventListSchema)
def list_events(query: dict[str, Any], project_id: str) -> Any:
    """List the events of a project after a `seq`, the oldest first

    Webhooks and streams tell the same events. `seq` has no gaps, so nothing can be missed.
    """
    project = owned.project(reading(), project_id)
    found = events.after(reading(), project.id, query["after"], query["limit"] + 1)
    shown = [events.payload(event) for event in found[: query["limit"]]]
    return {"items": shown, "has_more": len(found) > query["limit"]}
