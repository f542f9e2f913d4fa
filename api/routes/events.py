"""Events of projects and jobs: as lists and as streams."""

from __future__ import annotations

from typing import Any

from api import owned, streams
from api.blueprint import Blueprint
from api.context import reading
from api.schemas.events import EventListSchema, EventQuery, StreamQuery
from shared import events

blp = Blueprint("events", __name__, url_prefix="/v1", description="The history of projects and jobs, in order")


@blp.get("/projects/<id:project_id>/events")
@blp.needs("projects:read")
@blp.fails(404)
@blp.arguments(EventQuery, location="query")
@blp.response(200, EventListSchema)
def list_events(query: dict[str, Any], project_id: str) -> Any:
    """List the events of a project after a `seq`, oldest first

    Webhooks and streams send the same events. `seq` has no gaps, so a client can tell that it has missed none.
    """
    project = owned.project(project_id)
    found = events.after(reading(), project.id, query["after"], query["limit"] + 1)
    shown = [events.payload(event) for event in found[: query["limit"]]]
    return {"items": shown, "has_more": len(found) > query["limit"]}


@blp.get("/projects/<id:project_id>/events/stream")
@blp.needs("projects:read")
@blp.fails(404, 422)
@blp.arguments(StreamQuery, location="query")
@blp.response(200, streams.EVENTS, content_type="text/event-stream")
def stream_project_events(query: dict[str, Any], project_id: str) -> Any:
    """Follow the events of a project as they happen (server-sent events)

    `id` is the `seq`; with `Last-Event-ID` the stream continues after it. Between the events, `progress` reports the
    progress of running jobs. The stream ends when the project has ended, or after ten minutes; then reconnect.
    """
    return streams.of_project(owned.project(project_id), query.get("after"))


@blp.get("/jobs/<id:job_id>/events/stream")
@blp.needs("projects:read")
@blp.fails(404, 422)
@blp.arguments(StreamQuery, location="query")
@blp.response(200, streams.EVENTS, content_type="text/event-stream")
def stream_job_events(query: dict[str, Any], job_id: str) -> Any:
    """Follow the events and progress of a job (server-sent events)

    The stream is like that of the job's project, but has only this job's events. It ends with the job.
    """
    return streams.of_job(owned.job(job_id), query.get("after"))
