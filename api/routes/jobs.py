"""Jobs: their state, results and cancellation."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

from flask import request
from sqlalchemy import select

from api import filters, owned
from api.blueprint import Blueprint
from api.context import begin_transaction, reading
from api.pagination import PageQuery, list_of, page, page_of
from api.schemas.images import ImageSchema
from api.schemas.jobs import ImportedFileSchema, JobQuery, JobSchema
from api.waits import JobWait
from shared import rounds
from shared.catalog import kinds
from shared.errors import TooMany
from shared.lifecycle import TERMINAL_JOB_STATES, JobState
from shared.models import Image, Job

blp = Blueprint("jobs", __name__, url_prefix="/v1", description="Work that is queued, running or done")

MAX_WAIT_SECONDS = 60

PREFER = {
    "name": "Prefer",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "example": "wait=30"},
    "description": "`wait=N`: hold the answer back until the job has ended, for N seconds at most (up to 60).",
}


@blp.get("/jobs")
@blp.needs("projects:read")
@blp.arguments(JobQuery, location="query")
@blp.response(200, page_of(JobSchema))
def list_jobs(query: dict[str, Any]) -> Any:
    """List your jobs, newest first

    `metadata.KEY=VALUE` filters by your own ids. It may be repeated with other keys.
    """
    found = filters.narrowed(owned.jobs(), Job, query, "project_id", "state", "kind")
    return page(reading(), found, Job, query)


@blp.get("/jobs/<id:job_id>")
@blp.needs("projects:read")
@blp.fails(404)
@blp.with_etag
@blp.header(PREFER)
@blp.response(200, JobSchema)
def get_job(job_id: str) -> Any:
    """Show a job: its state, progress, place in the queue or error

    With `Prefer: wait=N` the answer comes when the job has ended, or after N seconds. If you already have the allowed
    number of streams and waiting requests open (`max_held_per_user`), it comes at once.
    """
    job = owned.shown_job(job_id)
    seconds = _wanted_wait(request.headers.get("Prefer", ""))
    if seconds and job.state not in TERMINAL_JOB_STATES:
        with suppress(TooMany):
            return JobWait(job_id, seconds)
    return job


@blp.post("/jobs/<id:job_id>/cancel")
@blp.needs("projects:write")
@blp.fails(404)
@blp.idempotent
@blp.response(202, JobSchema)
@blp.alt_response(200, schema=JobSchema, description="It was queued, and is cancelled now", success=True)
def cancel_job(job_id: str) -> Any:
    """Cancel a job

    A queued job ends at once (200). A running job stops at its next step (202). Cancelling twice changes nothing.
    """
    session = begin_transaction()
    job = rounds.cancel_job(session, owned.locked_job(job_id))
    return job, 200 if job.state == JobState.CANCELLED else 202


@blp.get("/jobs/<id:job_id>/images")
@blp.needs("projects:read")
@blp.fails(404)
@blp.arguments(PageQuery, location="query")
@blp.response(200, page_of(ImageSchema))
def list_job_images(query: dict[str, Any], job_id: str) -> Any:
    """List the pictures that a job has drawn, cropped or imported"""
    job = owned.job(job_id)
    drawn = select(Image).where(Image.project_id == job.project_id, Image.job_id == job.id)  # by the project's index
    return page(reading(), drawn, Image, query, newest_first=False)


@blp.get("/jobs/<id:job_id>/files")
@blp.needs("projects:read")
@blp.fails(404)
@blp.response(200, list_of(ImportedFileSchema))
def list_job_files(job_id: str) -> Any:
    """List the outcome of each file of an imported zip

    The list is empty until the import has succeeded.
    """
    job = owned.job(job_id)
    is_done = job.kind == kinds.IMPORT.name and job.state == JobState.SUCCEEDED
    return {"items": kinds.IMPORT.result_of(job).files if is_done else []}


def _wanted_wait(prefer: str) -> int:
    found = re.search(r"(?:^|[,;\s])wait=(\d{1,6})(?:$|[,;\s])", prefer)
    return min(int(found[1]), MAX_WAIT_SECONDS) if found else 0
