"""LoRAs."""

from __future__ import annotations

from marshmallow import fields

from api.schemas.choices import LoraFamilyChoice, LoraSourceChoice, RoundKindChoice
from api.schemas.fields import Answer, Download, DownloadExpiry, File, Links, Name, Schema, Text
from shared.catalog.bases import COMMERCIAL_USES, HOSTINGS


class LoraFileSchema(Answer):
    filename = fields.String(required=True)
    sha256 = fields.String(required=True)
    size_bytes = fields.Integer(required=True)
    url = Download()
    expires_at = DownloadExpiry()


class LoraFilesSchema(Answer):
    """Of a LoRA that was trained here: `kohya` and `diffusers`; of one that you have brought: `original`."""

    kohya = fields.Nested(LoraFileSchema, metadata={"description": "For ComfyUI, A1111 and Forge."})
    diffusers = fields.Nested(LoraFileSchema, metadata={"description": "For diffusers."})
    sidecar = fields.Nested(
        LoraFileSchema, metadata={"description": "For A1111 and Forge, beside the kohya file: its activation text."}
    )
    preview = fields.Nested(LoraFileSchema, metadata={"description": "A picture, for the same place."})
    original = fields.Nested(LoraFileSchema, metadata={"description": "The file that you have brought."})


class TermsSchema(Answer):
    """What the licence of the base model allows. LoRAs and datasets inherit it. No legal advice."""

    license = fields.String(required=True, metadata={"description": "Empty: unknown."})
    commercial_use = fields.String(required=True, metadata={"enum": list(COMMERCIAL_USES)})
    hosting = fields.String(required=True, metadata={"enum": list(HOSTINGS)})
    base_sha256 = fields.String(required=True, metadata={"description": "Of the base model; empty: unknown."})


class LoraSchema(Answer):
    id = fields.String(required=True)
    source = LoraSourceChoice(required=True, metadata={"description": "What is `imported` has no project and no job."})
    project_id = fields.String(required=True, allow_none=True)
    round_id = fields.String(required=True, allow_none=True)
    job_id = fields.String(required=True, allow_none=True)
    kind = RoundKindChoice(required=True, allow_none=True)
    trigger_word = fields.String(required=True)
    base_model = fields.String(
        required=True, metadata={"description": "Of one that is `imported`: as its file names it, if it does."}
    )
    rank = fields.Integer(required=True, metadata={"description": "The largest of its modules; 0 if it has none."})
    alpha = fields.Float(required=True, allow_none=True)
    train_steps = fields.Integer(required=True, allow_none=True)
    metrics = fields.Dict(keys=fields.String(), required=True, allow_none=True)
    name = fields.String(metadata={"description": "This and what follows: of one that is `imported`."})
    family = fields.String(metadata={"description": "The family of the base models that it fits."})
    kinds = fields.List(
        fields.String(),
        metadata={"description": "How it changes weights: lora, locon, loha, lokr, and tucker and dora with these."},
    )
    parts = fields.Dict(
        keys=fields.String(),
        values=fields.Integer(),
        metadata={"description": "How many modules it changes of each part."},
    )
    license = fields.String(metadata={"description": "As its file or its owner names it; empty if neither does."})
    terms = fields.Nested(
        TermsSchema,
        required=True,
        allow_none=True,
        metadata={"description": "What the licence of its base model allows. Null: imported, or an older training."},
    )
    files = fields.Nested(LoraFilesSchema, required=True)
    created_at = fields.AwareDateTime(required=True)
    links = Links(self="/v1/loras/{it.id}", project="/v1/projects/{it.project_id}", job="/v1/jobs/{it.job_id}")


class NewLoraSchema(Schema):
    """A LoRA of another tool. What is left out is taken from the file's metadata."""

    largest_file = "max_lora_bytes"
    file = File(required=True, metadata={"description": "A `.safetensors` file."})
    name = Name(200)
    trigger_word = Text(200)
    license = Text(200)
    family = LoraFamilyChoice(
        load_default=None,
        metadata={"description": "For a file that fits base models of several families: which it is for."},
    )
