"""The installation, and the caller."""

from __future__ import annotations

from typing import Any

from marshmallow import fields

from api.schemas.fields import Answer
from api.schemas.users import KeySchema, UserSchema
from shared.catalog.bases import COMMERCIAL_USES, HOSTINGS


def _model(type_: type[fields.Field[Any]], name: str, description: str = "", **more: Any) -> Any:
    about = {"description": description} if description else {}
    return type_(required=True, attribute=f"model.{name}", metadata=about | more.pop("metadata", {}), **more)


class BaseModelSchema(Answer):
    name = _model(fields.String, "name")
    family = _model(fields.String, "family", "Empty if its problem hides it.")
    lineage = _model(fields.String, "lineage", "The finetune that it descends from, such as `pony`; empty: none known.")
    resolution = _model(fields.Integer, "resolution", "Side in pixels of the pictures that it draws best.")
    prediction_type = _model(fields.String, "prediction_type")
    zero_terminal_snr = _model(fields.Boolean, "zero_terminal_snr", "Whether the last time is pure noise.")
    license = _model(fields.String, "license")
    commercial_use = _model(fields.String, "commercial_use", metadata={"enum": list(COMMERCIAL_USES)})
    hosting = _model(
        fields.String, "hosting", "Whether others may be served with it for money.", metadata={"enum": list(HOSTINGS)}
    )
    description = _model(fields.String, "description")
    size_bytes = _model(fields.Integer, "size_bytes")
    sha256 = _model(fields.String, "sha256", "Of its file, or of what its folder holds; empty until it is computed.")
    notes = fields.List(
        fields.String(),
        required=True,
        attribute="model.notes",
        metadata={"description": "What was filled in or ignored."},
    )
    problem = fields.Function(
        lambda row: row["model"].problem or None,
        required=True,
        metadata={"type": ["string", "null"], "description": "Why it can't be used, and what to do. Null: it can."},
    )
    available = fields.Boolean(
        required=True, metadata={"description": "Whether a worker that is alive can load it. If not, its jobs wait."}
    )


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
    max_lora_bytes = fields.Integer(required=True)
    max_lora_header_bytes = fields.Integer(required=True)
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
