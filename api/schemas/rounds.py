"""Rounds and their curation."""

from __future__ import annotations

from marshmallow import ValidationError, fields, validates_schema

from api.schemas.choices import RoundKindChoice, RoundStateChoice, Several, ViewChoice
from api.schemas.fields import Answer, IdField, Links, List, Schema, StrictBoolean, StrictInteger
from api.schemas.jobs import FailureSchema, WantedLoraSchema
from api.schemas.plans import ResolvedRoundSchema
from api.schemas.records import RecordField
from shared.catalog import VIEWS
from shared.catalog.params import MAX_CANDIDATES


class DatasetEntrySchema(Answer):
    image_id = fields.String(required=True)
    sha256 = fields.String(required=True)
    captions = fields.List(
        fields.String(), required=True, metadata={"description": "The exact captions of the training."}
    )
    repeats = fields.Integer(required=True, metadata={"description": "How often it is used in each epoch."})


class CountsSchema(Answer):
    accepted = fields.Integer(required=True, metadata={"description": "Accepted candidates of this round."})
    pending = fields.Integer(required=True)
    rejected = fields.Integer(required=True)
    dataset = fields.Integer(required=True, metadata={"description": "Accepted pictures of the project so far."})
    missing = fields.Integer(required=True, metadata={"description": "Pictures that the target still lacks."})


class DecisionsShownSchema(Answer):
    accepted = fields.List(fields.String(), required=True)
    pending = fields.List(fields.String(), required=True)
    rejected = fields.List(fields.String(), required=True)


class RoundSchema(Answer):
    id = fields.String(required=True)
    project_id = fields.String(required=True)
    number = fields.Integer(required=True)
    kind = RoundKindChoice(required=True)
    state = RoundStateChoice(required=True)
    target = fields.Integer(required=True)
    plan = RecordField(ResolvedRoundSchema, required=True)
    counts = fields.Nested(CountsSchema, required=True)
    decisions = fields.Nested(
        DecisionsShownSchema, required=True, metadata={"description": "Ids of the candidates. PUT changes them."}
    )
    dataset = fields.List(
        fields.Nested(DatasetEntrySchema),
        required=True,
        metadata={"description": "Set when the training starts; it doesn't change afterwards."},
    )
    lora_id = fields.String(required=True, allow_none=True)
    generations = fields.Integer(required=True, metadata={"description": "How often candidates were drawn."})
    needs_attention = fields.String(
        required=True, allow_none=True, metadata={"description": "Why the round waits for a person, if it does."}
    )
    error = fields.Nested(FailureSchema, required=True, allow_none=True)
    started_at = fields.AwareDateTime(required=True, allow_none=True)
    finished_at = fields.AwareDateTime(required=True, allow_none=True)
    created_at = fields.AwareDateTime(required=True)
    links = Links(
        self="/v1/projects/{it.project_id}/rounds/{it.number}",
        project="/v1/projects/{it.project_id}",
        candidates="/v1/projects/{it.project_id}/rounds/{it.number}/candidates",
        decisions="/v1/projects/{it.project_id}/rounds/{it.number}/decisions",
        finish="/v1/projects/{it.project_id}/rounds/{it.number}/finish",
    )


class MoreCandidatesSchema(Schema):
    count = StrictInteger(1, MAX_CANDIDATES, required=True)
    views = Several(
        ViewChoice(),
        1,
        len(VIEWS),
        metadata={"description": "By default those that the dataset lacks, or all of them if it lacks none."},
    )
    loras = List(
        fields.Nested(WantedLoraSchema),
        0,
        7,
        load_default=list,
        metadata={"description": "LoRAs beside the round's own: trained ones, or ones that you have brought."},
    )


class DecisionsSchema(Schema):
    """Candidates that are not named keep their decision."""

    accepted = List(IdField(), 0, 1_000, load_default=list)
    rejected = List(IdField(), 0, 1_000, load_default=list)

    @validates_schema
    def _not_both(self, data: dict[str, list[str]], **_: object) -> None:
        both = set(data.get("accepted", [])) & set(data.get("rejected", []))
        if both:
            raise ValidationError(f"{min(both)} can't be both accepted and rejected")


class FinishSchema(Schema):
    may_be_left_out = True  # the body: see Parser.load_json
    accept_fewer = StrictBoolean(
        load_default=False, metadata={"description": "Continue although pictures are missing."}
    )
