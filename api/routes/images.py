"""Images: uploads, crops, edits and decisions."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from api import etags, filters, owned, uploads
from api.blueprint import Blueprint
from api.context import begin_transaction, reading, runtime, user
from api.pagination import page, page_of
from api.schemas.fields import address
from api.schemas.images import (
    CropsSchema,
    ImageChangeSchema,
    ImageQuery,
    ImageSchema,
    SlipSchema,
    UploadFormSchema,
    UploadOfferSchema,
    UploadSchema,
    VersionSchema,
)
from api.schemas.jobs import JobSchema
from shared import images, projects, records, usage
from shared.catalog.kinds import CropParams, UploadParams
from shared.models import Image, Round

blp = Blueprint("images", __name__, url_prefix="/v1", description="Pictures: references, candidates and outputs")


@blp.post("/projects/<id:project_id>/images")
@blp.needs("uploads:write")
@blp.fails(404, 413, 415, 503)
@blp.idempotent
@blp.with_etag
@blp.arguments(UploadSchema, location="multipart")
@blp.response(201, ImageSchema)
def upload_image(body: dict[str, Any], project_id: str) -> Any:
    """Add a reference picture to a draft

    The service decodes it, turns it upright, removes all metadata and stores it as PNG. It counts as accepted.
    """
    owned.project(project_id)
    usage.check_stored_bytes(reading(), user().id, runtime().settings)
    stored = uploads.store(body.pop("file").read(), project_id)
    session = begin_transaction()
    project = owned.locked_project(project_id)
    image = images.add_upload(session, project, stored, **body, max_images=runtime().settings.max_images_per_project)
    return image, {"Location": address(f"/v1/images/{image.id}")}


@blp.post("/projects/<id:project_id>/uploads")
@blp.needs("uploads:write")
@blp.fails(404, 503)
@blp.idempotent
@blp.arguments(UploadOfferSchema)
@blp.response(201, UploadFormSchema)
def offer_upload(body: dict[str, Any], project_id: str) -> Any:
    """Get a signed form to post a file directly to the store

    Within 15 minutes, send `fields` and then the file, as `file`, to `url` as multipart/form-data. Then send the `slip`
    to complete the upload.
    """
    project = owned.project(project_id)
    return uploads.offer(project.id, body.pop("content_type"), body)


@blp.post("/projects/<id:project_id>/uploads/complete")
@blp.needs("uploads:write")
@blp.fails(404, 413, 503)
@blp.idempotent
@blp.arguments(SlipSchema)
@blp.response(202, JobSchema)
def complete_upload(body: dict[str, Any], project_id: str) -> Any:
    """Complete an upload after the file has been posted to the store

    A job decodes the file, turns it upright, removes all metadata and stores it as PNG. The picture then counts as
    accepted. The same slip returns the same job.
    """
    project = owned.project(project_id)
    key, shows = uploads.redeem(body["slip"], project_id)
    if projects.upload_of(reading(), project, key) is None:
        uploads.check_size(key)
    params = records.given(UploadParams, shows)
    session = begin_transaction()
    job = projects.take_in(session, owned.locked_project(project_id), key, params, runtime().settings)
    return job, {"Location": address(f"/v1/jobs/{job.id}")}


@blp.get("/projects/<id:project_id>/images")
@blp.needs("projects:read")
@blp.fails(404)
@blp.arguments(ImageQuery, location="query")
@blp.response(200, page_of(ImageSchema))
def list_images(query: dict[str, Any], project_id: str) -> Any:
    """List the pictures of a project, oldest first"""
    project = owned.project(project_id)
    found = select(Image).where(Image.project_id == project.id)
    if "round" in query:
        of_round = select(Round.id).where(Round.project_id == project.id, Round.number == query["round"])
        found = found.where(Image.round_id.in_(of_round))
    found = filters.narrowed(found, Image, query, "role", "source", "decision")
    return page(reading(), found, Image, query, newest_first=False)


@blp.get("/images/<id:image_id>")
@blp.needs("projects:read")
@blp.fails(404)
@blp.with_etag
@blp.response(200, ImageSchema)
def get_image(image_id: str) -> Any:
    """Show a picture, with a link to download it"""
    return owned.image(image_id)


@blp.patch("/images/<id:image_id>")
@blp.needs("curation:write")
@blp.fails(404, 409)
@blp.if_match
@blp.with_etag
@blp.arguments(ImageChangeSchema)
@blp.response(200, ImageSchema)
def change_image(body: dict[str, Any], image_id: str) -> Any:
    """Accept, reject or retag a picture, or change its view or framing

    You can decide on references before the start, and on candidates while their round is being curated.
    """
    session = begin_transaction()
    image = owned.locked_image(image_id)
    etags.check(ImageSchema, image)
    return images.change(session, image, body)


@blp.post("/images/<id:image_id>/versions")
@blp.needs("curation:write")
@blp.fails(404, 413, 415, 503)
@blp.if_match
@blp.idempotent
@blp.with_etag
@blp.arguments(VersionSchema, location="multipart")
@blp.response(201, ImageSchema)
def put_back_image(body: dict[str, Any], image_id: str) -> Any:
    """Replace a picture with an edited one

    The original is kept and counts as rejected. The edited picture is accepted and gets its tags. `If-Match` takes the
    ETag of the original, so that only one of two simultaneous edits succeeds.
    """
    original = owned.image(image_id)
    usage.check_stored_bytes(reading(), user().id, runtime().settings)
    stored = uploads.store(body["file"].read(), original.project_id)
    session = begin_transaction()
    original = owned.locked_image(image_id)
    etags.check(ImageSchema, original)
    project = owned.locked_project(original.project_id)
    limit = runtime().settings.max_images_per_project
    image = images.add_edit(session, project, original, stored, max_images=limit)
    return image, {"Location": address(f"/v1/images/{image.id}")}


@blp.post("/images/<id:image_id>/crops")
@blp.needs("uploads:write")
@blp.fails(404)
@blp.idempotent
@blp.arguments(CropsSchema)
@blp.response(202, JobSchema)
def crop_image(body: dict[str, Any], image_id: str) -> Any:
    """Crop one picture into several references

    The crops keep the tags of what they still show. They replace the picture, unless `keep_source` is set.
    """
    session = begin_transaction()
    image = owned.locked_image(image_id)
    project, params = owned.locked_project(image.project_id), records.given(CropParams, body)
    job = projects.crop(session, project, image, params, runtime().settings)
    return job, {"Location": address(f"/v1/jobs/{job.id}")}
