"""Projects."""

from __future__ import annotations

from functools import partial
from typing import Any

import structlog
from flask import jsonify

from api import dry_runs, etags, filters, owned, uploads
from api.blueprint import Blueprint
from api.context import after, base_models, begin_transaction, reading, release, runtime, user
from api.pagination import page, page_of
from api.schemas.fields import address
from api.schemas.jobs import GenerationSchema, JobSchema
from api.schemas.projects import (
    DrawingDryRunSchema,
    DryRunQuery,
    DryRunSchema,
    NewProjectSchema,
    ProjectChangeSchema,
    ProjectQuery,
    ProjectSchema,
)
from shared import projects, rounds
from shared.errors import Unavailable
from shared.models import Project
from shared.queue import jobs

log = structlog.get_logger()
blp = Blueprint("projects", __name__, url_prefix="/v1", description="Characters, from a picture to a LoRA")


@blp.post("/projects")
@blp.needs("projects:write")
@blp.idempotent
@blp.with_etag
@blp.arguments(DryRunQuery, location="query")
@blp.arguments(NewProjectSchema)
@blp.response(201, ProjectSchema)
@blp.alt_response(200, schema=DryRunSchema, description="What would be done", success=True)
def create_project(query: dict[str, Any], body: dict[str, Any]) -> Any:
    """Create a project

    It is a draft at first: add pictures, then start it. Values that the plan leaves out get the defaults of the base
    model's family.
    """
    if query["dry_run"]:
        projects.check_count(reading(), user(), runtime().settings)
        return _dry_run(projects.draft(user(), body, base_models()))
    session = begin_transaction()
    projects.one_count_at_a_time(session, user().id)
    projects.check_count(session, user(), runtime().settings)
    project = projects.create(session, user(), body, base_models())
    return project, {"Location": address(f"/v1/projects/{project.id}")}


@blp.get("/projects")
@blp.needs("projects:read")
@blp.arguments(ProjectQuery, location="query")
@blp.response(200, page_of(ProjectSchema))
def list_projects(query: dict[str, Any]) -> Any:
    """List your projects, newest first

    `metadata.KEY=VALUE` filters by your own ids. It may be repeated with other keys.
    """
    found = filters.narrowed(owned.projects(), Project, query, "state")
    return page(reading(), found, Project, query)


@blp.get("/projects/<id:project_id>")
@blp.needs("projects:read")
@blp.fails(404)
@blp.with_etag
@blp.response(200, ProjectSchema)
def get_project(project_id: str) -> Any:
    """Show a project"""
    return owned.project(project_id)


@blp.patch("/projects/<id:project_id>")
@blp.needs("projects:write")
@blp.fails(404, 409)
@blp.if_match
@blp.with_etag
@blp.arguments(ProjectChangeSchema)
@blp.response(200, ProjectSchema)
def change_project(body: dict[str, Any], project_id: str) -> Any:
    """Change a project

    Name, metadata and curation can be changed at any time, everything else only in a draft.
    """
    session = begin_transaction()
    project = owned.locked_project(project_id)
    etags.check(ProjectSchema, project)
    return projects.change(session, project, body, base_models())


@blp.delete("/projects/<id:project_id>")
@blp.needs("projects:write")
@blp.fails(404, 409)
@blp.response(204)
def delete_project(project_id: str) -> Any:
    """Delete a project with its pictures and LoRAs

    Cancel a running project first.
    """
    session = begin_transaction()
    projects.delete(session, owned.locked_project(project_id))
    after(partial(_delete_objects, project_id))


@blp.post("/projects/<id:project_id>/start")
@blp.needs("projects:write")
@blp.fails(404)
@blp.idempotent
@blp.arguments(DryRunQuery, location="query")
@blp.response(202, ProjectSchema)
@blp.alt_response(200, schema=DryRunSchema, description="What would be done", success=True)
def start_project(query: dict[str, Any], project_id: str) -> Any:
    """Start the rounds

    The project needs four accepted pictures and at least one feature tag. The rounds then run one after the other. With
    manual curation, each style round waits for you.
    """
    if query["dry_run"]:
        project = owned.project(project_id)
        projects.base_of(project, base_models())
        projects.check_startable(reading(), project)
        return _dry_run(project)
    session = begin_transaction()
    project = owned.locked_project(project_id)
    projects.base_of(project, base_models())
    jobs.check_cap(session, user(), runtime().settings)
    projects.start(session, project)
    return project, {"Location": address(f"/v1/projects/{project.id}")}


@blp.post("/projects/<id:project_id>/cancel")
@blp.needs("projects:write")
@blp.fails(404)
@blp.idempotent
@blp.response(200, ProjectSchema)
def cancel_project(project_id: str) -> Any:
    """Cancel a project

    Its jobs stop at their next step. Its pictures and LoRAs are kept. Cancelling twice changes nothing.
    """
    session = begin_transaction()
    return projects.cancel(session, owned.locked_project(project_id))


@blp.post("/projects/<id:project_id>/retry")
@blp.needs("projects:write")
@blp.fails(404)
@blp.idempotent
@blp.response(202, ProjectSchema)
def retry_project(project_id: str) -> Any:
    """Run the failed stage again, from its last checkpoint"""
    session = begin_transaction()
    project = owned.locked_project(project_id)
    projects.base_of(project, base_models())
    jobs.check_cap(session, user(), runtime().settings)
    rounds.retry(session, project)
    return project, {"Location": address(f"/v1/projects/{project.id}")}


@blp.post("/projects/<id:project_id>/generations")
@blp.needs("projects:write")
@blp.fails(404, 413, 503)
@blp.idempotent
@blp.arguments(DryRunQuery, location="query")
@blp.arguments(GenerationSchema)
@blp.response(202, JobSchema)
@blp.alt_response(200, schema=DrawingDryRunSchema, description="What would be drawn", success=True)
def generate_pictures(query: dict[str, Any], body: dict[str, Any], project_id: str) -> Any:
    """Draw pictures with your LoRAs

    The base model is the project's. Without LoRAs, it draws alone. The pictures appear at `links.images` of the job.
    One with an `image` is drawn from that picture, and with a `mask` it changes only where the mask is not black.
    """
    if any(each["mask"] is not None for each in body["pictures"]):
        owned.project(project_id)
        uploads.store_masks(body["pictures"], project_id, keep=not query["dry_run"])
    if query["dry_run"]:
        project = owned.project(project_id)
        params, inputs = projects.drawing(reading(), project, body, base_models(), runtime().settings)
        count = len(inputs.pictures)
        shown = dry_runs.of_drawing(reading(), project, params, count, user(), runtime().settings, inputs.originals)
        return jsonify(DrawingDryRunSchema().dump(shown))
    session = begin_transaction()
    project = owned.locked_project(project_id)
    job = projects.draw(session, project, user(), body, base_models(), runtime().settings)
    return job, {"Location": address(f"/v1/jobs/{job.id}")}


def _delete_objects(project_id: str) -> None:
    """Delete the objects of a deleted project. If that fails, the collection of orphans deletes them later."""
    try:
        for prefix in (f"projects/{project_id}/", f"incoming/{project_id}/"):
            runtime().storage.delete_prefix(prefix)
    except Unavailable as error:
        log.warning("project.objects_left", project_id=project_id, error=str(error))


def _dry_run(project: Project) -> Any:
    shown = dry_runs.of_plan(reading(), project, project.plan, user(), runtime().settings)
    release()
    return jsonify(DryRunSchema().dump(shown))
