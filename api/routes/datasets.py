"""Import and export of datasets, as zips that kohya's scripts can read."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

from api import owned, uploads
from api.blueprint import Blueprint
from api.context import base_models, begin_transaction, reading, release, runtime, user
from api.schemas.datasets import ExportedSchema, ExportSchema, ImportSchema
from api.schemas.fields import address
from api.schemas.jobs import JobSchema
from shared import archives, projects, rounds, terms, usage
from shared.catalog.kinds import DatasetEntry
from shared.errors import Conflict
from shared.ids import new_id
from shared.models import Project

blp = Blueprint("datasets", __name__, url_prefix="/v1", description="Import and export of datasets as zips")


@blp.post("/projects/<id:project_id>/imports")
@blp.needs("uploads:write")
@blp.fails(404, 413, 415, 503)
@blp.idempotent
@blp.arguments(ImportSchema, location="multipart")
@blp.response(202, JobSchema)
def import_dataset(body: dict[str, Any], project_id: str) -> Any:
    """Add the pictures of a zip to a draft

    A job imports the valid pictures; `/v1/jobs/ID/files` shows the outcome of each file. The `.txt` or `.caption`
    beside a picture holds its tags, separated by commas. Tags of views and framings set its view and framing. A picture
    without a text gets all features of the project.
    """
    owned.project(project_id)
    usage.check_stored_bytes(reading(), user().id, runtime().settings)
    projects.check_imports(reading(), user().id, runtime().settings)
    key, count = uploads.store_zip(body["file"].stream, project_id)
    session = begin_transaction()
    job = projects.import_zip(session, owned.locked_project(project_id), key, count, runtime().settings)
    return job, {"Location": address(f"/v1/jobs/{job.id}")}


@blp.post("/projects/<id:project_id>/exports")
@blp.needs("artifacts:read")
@blp.fails(404, 409)
@blp.idempotent
@blp.arguments(ExportSchema)
@blp.response(201, ExportedSchema)
def export_dataset(body: dict[str, Any], project_id: str) -> Any:
    """Make a zip of the dataset, with a caption beside each picture

    With `round`, it is the dataset that this round was trained on. Otherwise it is all accepted pictures, with captions
    that name every feature.
    """
    project = owned.project(project_id)
    if body["round"]:
        dataset = owned.round_(project_id, body["round"]).dataset
    else:
        dataset = rounds.present_dataset(reading(), project)
    release()
    if not dataset:
        raise Conflict("the dataset has no pictures yet; accept some first", code="empty_dataset")
    with uploads.admitted():
        exported = _exported(project, dataset)
    begin_transaction()  # so that the audit log notes the export
    return exported


def _exported(project: Project, dataset: list[DatasetEntry]) -> dict[str, Any]:
    storage = runtime().storage
    key = f"projects/{project.id}/exports/{new_id('exp')}.zip"
    with tempfile.TemporaryFile() as file:
        count = archives.pack(file, project.trigger_word, _entries(dataset))
        stored = storage.put_from(key, file, "application/zip")
    filename = f"{project.trigger_word}-dataset.zip"
    base = base_models().get(project.base_model)
    return {
        "key": key,
        "filename": filename,
        "sha256": stored.sha256,
        "size_bytes": stored.size_bytes,
        "images": count,
        "terms": terms.of(base) if base else None,
    }


def _entries(dataset: list[DatasetEntry]) -> Iterator[archives.Entry]:
    for each in dataset:
        content = runtime().storage.get_bytes(each.key)
        yield archives.Entry(content=content, captions=each.captions, repeats=each.repeats)
