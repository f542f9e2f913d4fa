"""Datasets as zips."""

from __future__ import annotations

from marshmallow import fields

from api.schemas.fields import File, Schema, StrictInteger
from api.schemas.loras import LoraFileSchema, TermsSchema


class ExportSchema(Schema):
    round = StrictInteger(
        1,
        1_000,
        allow_none=True,
        load_default=None,
        metadata={"description": "The round whose dataset is exported. By default all accepted pictures."},
    )


class ExportedSchema(LoraFileSchema):
    images = fields.Integer(required=True)
    terms = fields.Nested(
        TermsSchema, required=True, allow_none=True, metadata={"description": "Of the project's base model."}
    )


class ImportSchema(Schema):
    largest_file = "max_import_bytes"
    file = File(
        required=True, metadata={"description": "A zip of pictures. A `.txt` beside a picture may hold its tags."}
    )
