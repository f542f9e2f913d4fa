"""Datasets in and out, as zips that kohya's scripts can read."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from api import owned, uploads
from api.blueprint import Blueprint
from api.context import begin_transaction, reading, release, runtime, user
from api.pagination import list_of
from api.schemas.datasets import ExportedSchema, ExportSchema, ImportSchema
from api.schemas.images import ImageSchema
from shared import archives, images, rounds, usage
from shared.catalog.kinds import DatasetEntry
from shared.errors import Conflict
from shared.ids import new_id
from shared.models import Project

blp = Blueprint("datasets", __name__, url_prefix="/v1", description="Datasets in and out, as zips")


@blp.post("/projects/<id:project_id>/imports")
@blp.needs("uploads:write")
@blp.fails(404, 413, 415, 503)
@blp.idempotent
@blp.arguments(ImportSchema, location="multipart")
@blp.response(201, list_of(ImageSchema))
def import_dataset(body: dict[str, Any], project_id: str) -> Any:
    """Add the pictures of a zip to a draft, all or none

    The tags of a picture are what the `.txt` beside it says, parted by commas; views and framings are known by theirs.
    """
    owned.project(project_id)
    limits = runtime().settings
    usage.check_stored_bytes(reading(), user().id, limits)
    entries = archives.unpack(body["file"].stream, limits.max_pictures_per_import, limits.max_upload_bytes)
    stored = uploads.store_all([entry.content for entry in entries], project_id)
    session = begin_transaction()
    project = owned.locked_project(project_id)
    added = [
        images.add_captioned(session, project, each, entry.caption, max_images=limits.max_images_per_project)
        for entry, each in zip(entries, stored, strict=True)
    ]
    return {"items": added}


@blp.post("/projects/<id:project_id>/exports")
@blp.needs("artifacts:read")
@blp.fails(404, 409)
@blp.idempotent
@blp.arguments(ExportSchema)
@blp.response(201, ExportedSchema)
def export_dataset(body: dict[str, Any], project_id: str) -> Any:
    """Make a zip of the dataset, with a caption beside each picture

    Of a round it is what that was trained on; otherwise what is accepted by now, every feature named.
    """
    project = owned.project(project_id)
    if body["round"]:
        dataset = owned.round_(project_id, body["round"]).dataset
    else:
        dataset = rounds.present_dataset(reading(), project)
    release()
    if not dataset:
        raise Conflict("there is no picture in that dataset yet", code="empty_dataset")
    with uploads.admitted():
        exported = _exported(project, dataset)
    begin_transaction()  # so that the audit log says who took it
    return exported


def _exported(project: Project, dataset: list[DatasetEntry]) -> dict[str, Any]:
    storage = runtime().storage
    key = f"projects/{project.id}/exports/{new_id('exp')}.zip"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dataset.zip"
        count = archives.pack(path, project.trigger_word, _entries(dataset))
        stored = storage.put_file(key, path, "application/zip")
    filename = f"{project.trigger_word}-dataset.zip"
    return {"key": key, "filename": filename, "sha256": stored.sha256, "size_bytes": stored.size_bytes, "images": count}


def _entries(dataset: list[DatasetEntry]) -> Iterator[archives.Entry]:
    for each in dataset:
        content = runtime().storage.get_bytes(each.key)
        yield archives.Entry(name=each.image_id, content=content, caption=each.captions[0])
