"""The installation, and the caller."""

from __future__ import annotations

from marshmallow import fields

from api.schemas.fields import Answer
from api.schemas.users import KeySchema, UserSchema


class BaseModelSchema(Answer):
    name = fields.String(required=True)
    family = fields.String(required=True)
    resolution = fields.Integer(
        required=True, metadata={"description": "Side in pixels of the pictures that it draws best."}
    )
    prediction_type = fields.String(required=True)
    license = fields.String(required=True)
    description = fields.String(required=True)


class LimitsSchema(Answer):
    """The limits of this installation: sizes in bytes, times in seconds."""

    max_upload_bytes = fields.Integer(required=True)
    max_image_pixels = fields.Integer(required=True)
    min_image_side = fields.Integer(required=True)
    max_body_bytes = fields.Integer(required=True)
    max_images_per_project = fields.Integer(required=True)
    max_pictures_per_import = fields.Integer(required=True)
    max_import_bytes = fields.Integer(required=True)
    max_pixels_per_import = fields.Integer(required=True)
    max_pictures_per_job = fields.Integer(required=True)
    max_running_jobs = fields.Integer(required=True)
    max_queued_jobs = fields.Integer(required=True)
    max_queued_imports = fields.Integer(required=True)
    max_webhooks_per_user = fields.Integer(required=True)
    max_keys_per_user = fields.Integer(required=True)
    max_projects_per_user = fields.Integer(required=True)
    max_stored_bytes_per_user = fields.Integer(required=True)
    requests_per_minute = fields.Integer(required=True)
    submits_per_minute = fields.Integer(required=True)
    download_seconds = fields.Integer(required=True)
    max_held_per_user = fields.Integer(required=True)


class UsageSchema(Answer):
    projects = fields.Integer(required=True)
    images = fields.Integer(required=True)
    image_bytes = fields.Integer(required=True)
    stored_bytes = fields.Integer(required=True, metadata={"description": "Of pictures and LoRAs."})
    queued_jobs = fields.Integer(required=True)
    running_jobs = fields.Integer(required=True)
    gpu_seconds = fields.Float(required=True)


class MeSchema(Answer):
    user = fields.Nested(UserSchema, required=True)
    key = fields.Nested(KeySchema, required=True)
    scopes = fields.List(fields.String(), required=True)
    usage = fields.Nested(UsageSchema, required=True)
