"""Jobs, and what they may be asked for."""

from __future__ import annotations

from typing import Any

from marshmallow import fields, post_dump

from api.context import reading, runtime
from api.pagination import PageQuery
from api.schemas.choices import FramingChoice, ImportOutcomeChoice, JobKindChoice, JobStateChoice, ViewChoice
from api.schemas.estimates import bounds, middle
from api.schemas.estimates import shown as shown_seconds
from api.schemas.fields import (
    Answer,
    Base64Picture,
    IdField,
    Links,
    List,
    Metadata,
    Query,
    Schema,
    StrictFloat,
    StrictInteger,
    Text,
    Timestamp,
)
from api.schemas.plans import GenerateParamsSchema
from shared import inventory
from shared.catalog.kinds import KINDS
from shared.catalog.params import DEFAULT_STRENGTH, MAX_SEED, MIN_STRENGTH
from shared.lifecycle import TERMINAL_JOB_STATES
from shared.models import Job
from shared.queue import estimates, turns


class FailureSchema(Answer):
    code = fields.String(required=True)
    message = fields.String(required=True)
    retryable = fields.Boolean(required=True)


class JobSchema(Answer):
    id = fields.String(required=True)
    project_id = fields.String(required=True)
    round_id = fields.String(required=True, allow_none=True)
    kind = JobKindChoice(required=True)
    verb = fields.Function(
        lambda job: KINDS[job.kind].verb,
        required=True,
        metadata={"type": "string", "description": "What such a job does, such as `training`."},
    )
    state = JobStateChoice(required=True)
    priority = fields.Integer(required=True)
    attempt = fields.Integer(required=True)
    params = fields.Dict(keys=fields.String(), required=True)
    progress = fields.Dict(keys=fields.String(), required=True, allow_none=True)
    place = fields.Integer(
        required=True,
        allow_none=True,
        metadata={"description": "How many jobs stand before it, if nobody else comes. Null when it doesn't wait."},
    )
    seconds_to_start = middle()
    seconds_to_start_range = bounds()
    seconds_to_finish = middle("Of all stages together, as `seconds_to_start`.")
    seconds_to_finish_range = bounds()
    waits_for = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "What it lacks: no worker that is alive can load its base model. Null: nothing."},
    )
    error = fields.Nested(FailureSchema, required=True, allow_none=True)
    metadata = fields.Dict(keys=fields.String(), values=fields.String(), attribute="labels", required=True)
    cancel_requested_at = fields.AwareDateTime(required=True, allow_none=True)
    queued_at = fields.AwareDateTime(required=True)
    started_at = fields.AwareDateTime(required=True, allow_none=True)
    finished_at = fields.AwareDateTime(required=True, allow_none=True)
    created_at = fields.AwareDateTime(required=True)
    links = Links(
        self="/v1/jobs/{it.id}",
        project="/v1/projects/{it.project_id}",
        images="/v1/jobs/{it.id}/images",
        files="/v1/jobs/{it.id}/files",
        cancel="/v1/jobs/{it.id}/cancel",
        events="/v1/projects/{it.project_id}/events",
        stream="/v1/jobs/{it.id}/events/stream",
    )

    @post_dump(pass_original=True)
    def _foresee(self, shown: dict[str, Any], job: Job, **_: Any) -> dict[str, Any]:
        """Beside the row, what is to be expected of it: of one that has ended, nothing."""
        place, wait, waits_for = None, estimates.Wait(), None
        if job.state not in TERMINAL_JOB_STATES:
            waits_for = inventory.lack(reading(), job, runtime().settings)
            place = turns.place(reading(), job)
            wait = estimates.Wait() if waits_for else estimates.of_job(reading(), job, runtime().settings)
        start = shown_seconds("seconds_to_start", wait.to_start)
        finish = shown_seconds("seconds_to_finish", wait.to_finish)
        return shown | {"place": place, "waits_for": waits_for} | start | finish


class ImportedFileSchema(Answer):
    name = fields.String(required=True)
    outcome = ImportOutcomeChoice(required=True)
    reason = fields.String(
        required=True, allow_none=True, metadata={"description": "Why. Of a file that was taken, a remark."}
    )
    code = fields.String(required=True, allow_none=True, metadata={"description": "Of one that was refused."})
    image_id = fields.String(required=True, allow_none=True, metadata={"description": "Of one that was taken."})


class JobQuery(PageQuery, Query):
    """`metadata.KEY=VALUE` filters by your own ids, as often as you like."""

    metadata_filter = True
    project_id = IdField()
    state = JobStateChoice()
    kind = JobKindChoice()
    created_after = Timestamp()
    created_before = Timestamp()


class WantedPictureSchema(Schema):
    prompt = Text(2_000, required=True)
    seed = StrictInteger(
        0, MAX_SEED, load_default=0, metadata={"description": "Of the first; the others count up from it."}
    )
    count = StrictInteger(1, 1_000, load_default=1)
    view = ViewChoice(allow_none=True, load_default=None)
    framing = FramingChoice(allow_none=True, load_default=None)
    image = IdField(
        allow_none=True,
        load_default=None,
        metadata={
            "description": "A picture of the project to draw from. It is drawn at its own size, or as near as the "
            "family can, or at the `width` and `height` of `params` if they are given."
        },
    )
    strength = StrictFloat(
        MIN_STRENGTH,
        1,
        allow_none=True,
        load_default=None,
        metadata={
            "description": f"Share of the steps that are drawn anew: less keeps more of `image`. {DEFAULT_STRENGTH} if "
            "left out; 1 starts from noise alone."
        },
    )
    mask = Base64Picture(
        allow_none=True,
        load_default=None,
        metadata={
            "description": "A grey picture as base64 or as a data URL, as large as `image`: white is drawn anew, black "
            "stays as it is, pixel for pixel."
        },
    )


class WantedLoraSchema(Schema):
    lora_id = IdField(required=True)
    weight = StrictFloat(-4, 4, load_default=1.0)


class GenerationSchema(Schema):
    pictures = List(fields.Nested(WantedPictureSchema), 1, 200, required=True)
    loras = List(fields.Nested(WantedLoraSchema), 0, 8, load_default=list)
    params = fields.Nested(GenerateParamsSchema)
    priority = StrictInteger(
        -100, 100, load_default=0, metadata={"description": "Among your own jobs: higher goes first."}
    )
    metadata = Metadata()
