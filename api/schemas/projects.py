"""Projects."""

from __future__ import annotations

from typing import Any

from marshmallow import fields

from api.context import base_models
from api.pagination import PageQuery
from api.schemas.choices import CurationChoice, IntendedUseChoice, ProjectStateChoice
from api.schemas.estimates import bounds, middle
from api.schemas.fields import Answer, Links, Metadata, Name, Query, Schema, Tags, Text, Timestamp
from api.schemas.jobs import FailureSchema
from api.schemas.plans import PlanSchema, ResolvedPlanSchema
from api.schemas.records import RecordField
from shared import projects
from shared.catalog import BASE_MODELS

TRIGGER = {"description": "The word that the LoRA learns as her name. Choose one without a meaning."}
SUBJECT = {"description": "What kind of figure she is. They are in every caption."}
FEATURES = {"description": "Her features. The captions of style rounds name them, those of the character round don't."}


class NewProjectSchema(Schema):
    name = Name(200, required=True)
    trigger_word = Name(64, required=True, metadata=TRIGGER)
    subject_tags = Tags(
        20,
        min_length=1,
        load_default=lambda: ["1girl", "solo"],
        metadata=SUBJECT | {"default": ["1girl", "solo"]},
    )
    feature_tags = Tags(60, load_default=list, metadata=FEATURES | {"default": []})
    base_model = Text(
        100, load_default=next(iter(BASE_MODELS)), metadata={"description": "A name from GET /v1/base-models."}
    )
    intended_use = IntendedUseChoice(
        allow_none=True,
        load_default=None,
        metadata={"description": "`commercial` is refused on a base model whose licence forbids it. Null: not said."},
    )
    curation = CurationChoice(load_default="manual")
    plan = fields.Nested(PlanSchema)
    metadata = Metadata()


class ProjectChangeSchema(Schema):
    """The changes. Name, metadata and curation can be changed at any time, everything else only in a draft."""

    name = Name(200)
    trigger_word = Name(64, metadata=TRIGGER)
    subject_tags = Tags(20, min_length=1, metadata=SUBJECT)
    feature_tags = Tags(60, metadata=FEATURES)
    base_model = Text(100)
    intended_use = IntendedUseChoice(allow_none=True)
    curation = CurationChoice()
    plan = fields.Nested(PlanSchema)
    metadata = Metadata()


WARNINGS = ("trigger_is_ordinary", "trigger_is_quality", "license_asks", "license_unknown", "license_forbids")


class WarningSchema(Answer):
    """A value that was accepted but may give poor results."""

    code = fields.String(required=True, metadata={"description": f"One of `{'`, `'.join(WARNINGS)}`."})
    pointer = fields.String(required=True, metadata={"description": "The field, as a JSON pointer."})
    detail = fields.String(required=True)


class Warnings(fields.List):
    """Warnings about a project's trigger word and tags, and about its base model's licence."""

    def __init__(self) -> None:
        super().__init__(fields.Nested(WarningSchema), required=True)

    def get_value(self, obj: Any, attr: str, accessor: Any = None, default: Any = None) -> Any:
        return projects.warnings(obj, base_models)


class ProjectSchema(Answer):
    id = fields.String(required=True)
    name = fields.String(required=True)
    trigger_word = fields.String(required=True)
    subject_tags = fields.List(fields.String(), required=True)
    feature_tags = fields.List(fields.String(), required=True)
    base_model = fields.String(required=True)
    intended_use = IntendedUseChoice(required=True, allow_none=True)
    curation = CurationChoice(required=True)
    plan = RecordField(ResolvedPlanSchema, required=True)
    state = ProjectStateChoice(required=True)
    error = fields.Nested(FailureSchema, required=True, allow_none=True)
    warnings = Warnings()
    metadata = fields.Dict(keys=fields.String(), values=fields.String(), attribute="labels", required=True)
    gpu_seconds = fields.Float(required=True)
    created_at = fields.AwareDateTime(required=True)
    updated_at = fields.AwareDateTime(required=True)
    links = Links(
        self="/v1/projects/{it.id}",
        images="/v1/projects/{it.id}/images",
        uploads="/v1/projects/{it.id}/uploads",
        imports="/v1/projects/{it.id}/imports",
        exports="/v1/projects/{it.id}/exports",
        rounds="/v1/projects/{it.id}/rounds",
        loras="/v1/projects/{it.id}/loras",
        events="/v1/projects/{it.id}/events",
        stream="/v1/projects/{it.id}/events/stream",
        start="/v1/projects/{it.id}/start",
        cancel="/v1/projects/{it.id}/cancel",
        retry="/v1/projects/{it.id}/retry",
        generations="/v1/projects/{it.id}/generations",
    )


class RoundExtentSchema(Answer):
    """How much work a round is, if its candidates are drawn once."""

    number = fields.Integer(required=True)
    kind = fields.String(required=True)
    train_images = fields.Integer(required=True, metadata={"description": "Pictures in its dataset."})
    train_steps = fields.Integer(required=True)
    pictures = fields.Integer(required=True, metadata={"description": "Pictures that it draws."})
    seconds = middle()
    seconds_range = bounds()


class QuotaEffectSchema(Answer):
    queued_jobs = fields.Integer(required=True, metadata={"description": "Your queued jobs now."})
    max_queued_jobs = fields.Integer(required=True)
    new_jobs = fields.Integer(required=True, metadata={"description": "Jobs in total; they run one after the other."})


class DryRunSchema(Answer):
    """What a start would do. A dry run changes nothing."""

    plan = RecordField(ResolvedPlanSchema, required=True)
    rounds = fields.List(fields.Nested(RoundExtentSchema), required=True)
    train_steps = fields.Integer(required=True)
    pictures = fields.Integer(required=True)
    seconds = middle()
    seconds_range = bounds()
    warnings = fields.List(fields.Nested(WarningSchema), required=True)
    quota = fields.Nested(QuotaEffectSchema, required=True)


class DrawingDryRunSchema(Answer):
    """What would be drawn. A dry run changes nothing."""

    pictures = fields.Integer(required=True)
    seconds = middle()
    seconds_range = bounds()
    quota = fields.Nested(QuotaEffectSchema, required=True)


class DryRunQuery(Schema):
    dry_run = fields.Boolean(
        truthy={"true", "1"},
        falsy={"false", "0"},
        load_default=False,
        metadata={"description": "Only show what would be done."},
    )


class ProjectQuery(PageQuery, Query):
    """`metadata.KEY=VALUE` filters by your own ids. It may be repeated with other keys."""

    metadata_filter = True
    state = ProjectStateChoice()
    created_after = Timestamp()
    created_before = Timestamp()
