"""LoRAs."""

from __future__ import annotations

from marshmallow import fields

from api.schemas.choices import RoundKindChoice
from api.schemas.fields import Answer, Download, DownloadExpiry, Links
from shared.catalog.bases import COMMERCIAL_USES, HOSTINGS


class LoraFileSchema(Answer):
    filename = fields.String(required=True)
    sha256 = fields.String(required=True)
    size_bytes = fields.Integer(required=True)
    url = Download()
    expires_at = DownloadExpiry()


class LoraFilesSchema(Answer):
    kohya = fields.Nested(LoraFileSchema, required=True, metadata={"description": "For ComfyUI, A1111 and Forge."})
    diffusers = fields.Nested(LoraFileSchema, required=True, metadata={"description": "For diffusers and peft."})
    sidecar = fields.Nested(
        LoraFileSchema, metadata={"description": "For A1111 and Forge, beside the kohya file: its activation text."}
    )
    preview = fields.Nested(LoraFileSchema, metadata={"description": "A picture, for the same place."})


class TermsSchema(Answer):
    """What the licence of the base model allows. LoRAs and datasets inherit it. No legal advice."""

    license = fields.String(required=True, metadata={"description": "Empty: unknown."})
    commercial_use = fields.String(required=True, metadata={"enum": list(COMMERCIAL_USES)})
    hosting = fields.String(required=True, metadata={"enum": list(HOSTINGS)})
    base_sha256 = fields.String(required=True, metadata={"description": "Of the base model; empty: unknown."})


class LoraSchema(Answer):
    id = fields.String(required=True)
    project_id = fields.String(required=True)
    round_id = fields.String(required=True)
    job_id = fields.String(required=True)
    kind = RoundKindChoice(required=True)
    trigger_word = fields.String(required=True)
    base_model = fields.String(required=True)
    rank = fields.Integer(required=True)
    alpha = fields.Float(required=True)
    train_steps = fields.Integer(required=True)
    metrics = fields.Dict(keys=fields.String(), required=True)
    terms = fields.Nested(
        TermsSchema,
        required=True,
        allow_none=True,
        metadata={"description": "What the licence of its base model allows. Null: an earlier version trained it."},
    )
    files = fields.Nested(LoraFilesSchema, required=True)
    created_at = fields.AwareDateTime(required=True)
    links = Links(self="/v1/loras/{it.id}", project="/v1/projects/{it.project_id}", job="/v1/jobs/{it.job_id}")
