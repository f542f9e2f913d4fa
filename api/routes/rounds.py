"""Rounds, and the curation of their candidates."""

from __future__ import annotations

from typing import Any

from flask import jsonify
from sqlalchemy import select
from sqlalchemy.orm import Session

from api import dry_runs, etags, owned
from api.blueprint import Blueprint
from api.context import base_models, begin_transaction, reading, runtime, user
from api.pagination import PageQuery, list_of, page, page_of
from api.schemas.fields import address
from api.schemas.images import ImageSchema
from api.schemas.jobs import JobSchema
from api.schemas.plans import RoundPlanSchema
from api.schemas.projects import DrawingDryRunSchema, DryRunQuery, DryRunSchema
from api.schemas.rounds import DecisionsSchema, FinishSchema, MoreCandidatesSchema, RoundSchema
from shared import loras, projects, rounds
from shared.catalog.params import Plan
from shared.lifecycle import Decision, ImageRole
from shared.models import Image, Project, Round
from shared.queue import jobs

blp = Blueprint("rounds", __name__, url_prefix="/v1", description="Rounds of training, drawing and curation")

ROUND = "/projects/<id:project_id>/rounds/<int(min=1, max=1000):number>"


@blp.get("/projects/<id:project_id>/rounds")
@blp.needs("projects:read")
@blp.fails(404)
@blp.response(200, list_of(RoundSchema))
def list_rounds(project_id: str) -> Any:
    """List the rounds of a project, in order

    The list is empty before the start.
    """
    project, session = owned.project(project_id), reading()
    return {"items": [_shown(session, each) for each in rounds.of_project(session, project.id)]}


@blp.post("/projects/<id:project_id>/rounds")
@blp.needs("projects:write")
@blp.fails(404)
@blp.idempotent
@blp.arguments(DryRunQuery, location="query")
@blp.arguments(RoundPlanSchema)
@blp.response(202, RoundSchema)
@blp.alt_response(200, schema=DryRunSchema, description="What would be done", success=True)
def add_round(query: dict[str, Any], body: dict[str, Any], project_id: str) -> Any:
    """Reopen a completed project with another round

    It starts at once, with all pictures that have been accepted so far.
    """
    if query["dry_run"]:
        return _dry_run(owned.project(project_id), body)
    session = begin_transaction()
    project = owned.locked_project(project_id)
    jobs.check_cap(session, user(), runtime().settings)
    round_ = projects.add_round(session, project, body, base_models())
    return _shown(session, round_), {"Location": address(f"/v1/projects/{project.id}/rounds/{round_.number}")}


@blp.get(ROUND)
@blp.needs("projects:read")
@blp.fails(404)
@blp.with_etag
@blp.response(200, RoundSchema)
def get_round(project_id: str, number: int) -> Any:
    """Show a round, its decisions and the dataset with the exact captions"""
    return _shown(reading(), owned.round_(project_id, number))


@blp.get(f"{ROUND}/candidates")
@blp.needs("projects:read")
@blp.fails(404)
@blp.arguments(PageQuery, location="query")
@blp.response(200, page_of(ImageSchema))
def list_candidates(query: dict[str, Any], project_id: str, number: int) -> Any:
    """List the candidates of a round, oldest first"""
    round_ = owned.round_(project_id, number)
    found = select(Image).where(Image.round_id == round_.id, Image.role == ImageRole.CANDIDATE)
    return page(reading(), found, Image, query, newest_first=False)


@blp.post(f"{ROUND}/candidates")
@blp.needs("curation:write")
@blp.fails(404)
@blp.idempotent
@blp.arguments(DryRunQuery, location="query")
@blp.arguments(MoreCandidatesSchema)
@blp.response(202, JobSchema)
@blp.alt_response(200, schema=DrawingDryRunSchema, description="What would be drawn", success=True)
def ask_for_candidates(query: dict[str, Any], body: dict[str, Any], project_id: str, number: int) -> Any:
    """Request more candidates

    Decisions are kept. With manual curation you can go on curating while they are drawn.
    """
    if query["dry_run"]:
        round_ = owned.round_(project_id, number)
        rounds.check_curating(round_)
        projects.base_of(round_.project, base_models())
        loras.of_project(reading(), round_.project, body["loras"], base_models())
        drawing = round_.plan.generate
        shown = dry_runs.of_drawing(reading(), round_.project, drawing, body["count"], user(), runtime().settings)
        return jsonify(DrawingDryRunSchema().dump(shown))
    session = begin_transaction()
    round_ = owned.locked_round(project_id, number)
    projects.base_of(round_.project, base_models())
    jobs.check_cap(session, user(), runtime().settings)
    more = loras.of_project(session, round_.project, body["loras"], base_models())
    job = rounds.ask_for_more(session, round_, body["count"], body.get("views"), more)
    return job, {"Location": address(f"/v1/jobs/{job.id}")}


@blp.put(f"{ROUND}/decisions")
@blp.needs("curation:write")
@blp.fails(404, 409)
@blp.if_match
@blp.with_etag
@blp.arguments(DecisionsSchema)
@blp.response(200, RoundSchema)
def decide_candidates(body: dict[str, Any], project_id: str, number: int) -> Any:
    """Accept and reject candidates, in one step

    If one of them can't be decided on, none is. Candidates that are not named keep their decision. `If-Match` takes the
    ETag of the round.
    """
    session = begin_transaction()
    round_ = owned.locked_round(project_id, number)
    etags.check(RoundSchema, _shown(session, round_))
    decisions = dict.fromkeys(body["accepted"], Decision.ACCEPTED) | dict.fromkeys(body["rejected"], Decision.REJECTED)
    rounds.decide_all(session, round_, decisions)
    return _shown(session, round_)


@blp.post(f"{ROUND}/finish")
@blp.needs("curation:write")
@blp.fails(404)
@blp.if_match
@blp.idempotent
@blp.arguments(FinishSchema, required=False)
@blp.response(202, RoundSchema)
def finish_round(body: dict[str, Any], project_id: str, number: int) -> Any:
    """End the curation and start the next round

    Undecided candidates are rejected. `If-Match` takes the ETag of the round, so that you can't end a round that
    somebody else has just changed.
    """
    session = begin_transaction()
    round_ = owned.locked_round(project_id, number)
    etags.check(RoundSchema, _shown(session, round_))
    rounds.finish(session, round_, accept_fewer=body["accept_fewer"])
    return _shown(session, round_), {"Location": address(f"/v1/projects/{project_id}/rounds/{number}")}


def _dry_run(project: Project, given: dict[str, Any]) -> Any:
    """What another round would do."""
    session = reading()
    plan = Plan(rounds=[projects.another_round(session, project, given, base_models())])
    number = len(rounds.of_project(session, project.id)) + 1
    shown = dry_runs.of_plan(session, project, plan, user(), runtime().settings, first=number)
    return jsonify(DryRunSchema().dump(shown))


def _shown(session: Session, round_: Round) -> dict[str, Any]:
    """A round with its counts and decisions."""
    columns = {column.key: getattr(round_, column.key) for column in Round.__table__.columns}
    return columns | rounds.standing(session, round_)
