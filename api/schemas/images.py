"""Images, and crops of them."""

from __future__ import annotations

from marshmallow import fields
from marshmallow.validate import Length

from api.pagination import PageQuery
from api.schemas.choices import (
    DecisionChoice,
    FramingChoice,
    ImageRoleChoice,
    ImageSourceChoice,
    ImageStateChoice,
    ImageTypeChoice,
    ViewChoice,
)
from api.schemas.fields import (
    Answer,
    CommaTags,
    Download,
    DownloadExpiry,
    File,
    Links,
    QueryInteger,
    Schema,
    Tags,
)
from api.schemas.records import schema_of
from shared.catalog.kinds import CropParams
from shared.outside.pictures import READABLE


class ImageSchema(Answer):
    id = fields.String(required=True)
    project_id = fields.String(required=True)
    round_id = fields.String(required=True, allow_none=True)
    job_id = fields.String(required=True, allow_none=True)
    parent_id = fields.String(
        required=True, allow_none=True, metadata={"description": "The picture that it was cropped or edited from."}
    )
    role = ImageRoleChoice(required=True)
    source = ImageSourceChoice(required=True)
    state = ImageStateChoice(required=True, metadata={"description": "`missing`: the store has lost the file."})
    decision = DecisionChoice(required=True)
    view = fields.String(required=True, allow_none=True)
    framing = fields.String(required=True, allow_none=True)
    tags = fields.List(
        fields.String(), required=True, metadata={"description": "What it shows, including her features."}
    )
    variants = fields.List(
        fields.List(fields.String()),
        required=True,
        allow_none=True,
        metadata={"description": "Tags of its other captions, if it was imported with several. New tags replace them."},
    )
    repeats = fields.Integer(
        required=True,
        metadata={"description": "How often it is used in each epoch of a training; from the folder names of a zip."},
    )
    box = fields.List(
        fields.Integer(),
        required=True,
        allow_none=True,
        metadata={"description": "Of a crop: left, top, right, bottom."},
    )
    prompt = fields.String(required=True, allow_none=True)
    seed = fields.Integer(required=True, allow_none=True)
    scores = fields.Dict(keys=fields.String(), required=True, allow_none=True)
    sha256 = fields.String(required=True)
    size_bytes = fields.Integer(required=True)
    width = fields.Integer(required=True)
    height = fields.Integer(required=True)
    created_at = fields.AwareDateTime(required=True)
    url = Download()
    url_expires_at = DownloadExpiry()
    links = Links(
        self="/v1/images/{it.id}",
        project="/v1/projects/{it.project_id}",
        crops="/v1/images/{it.id}/crops",
        versions="/v1/images/{it.id}/versions",
    )


class UploadSchema(Schema):
    file = File(required=True, metadata={"description": f"{READABLE}."})
    view = ViewChoice(metadata={"description": "The side from which she is seen."})
    framing = FramingChoice(metadata={"description": "How much of her is visible."})
    tags = CommaTags(load_default=list, metadata={"description": "What else it shows, separated by commas."})


class UploadOfferSchema(Schema):
    content_type = ImageTypeChoice(required=True)
    view = ViewChoice(allow_none=True, load_default=None)
    framing = FramingChoice(allow_none=True, load_default=None)
    tags = Tags(load_default=list)


class UploadFormSchema(Answer):
    url = fields.String(required=True, metadata={"description": "The URL to post the form to."})
    fields_ = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        required=True,
        data_key="fields",
        attribute="fields",
        metadata={"description": "Form fields to send unchanged, before the file."},
    )
    expires_at = fields.AwareDateTime(required=True)
    slip = fields.String(
        required=True, metadata={"description": "Send it to `links.complete` when the file has been posted."}
    )
    links = Links(complete="/v1/projects/{it.project_id}/uploads/complete")


class SlipSchema(Schema):
    slip = fields.String(required=True, validate=Length(1, 20_000))


class VersionSchema(Schema):
    file = File(required=True, metadata={"description": f"The edited picture: {READABLE}."})


class ImageChangeSchema(Schema):
    decision = DecisionChoice()
    tags = Tags()
    view = ViewChoice(allow_none=True)
    framing = FramingChoice(allow_none=True)


class ImageQuery(PageQuery):
    role = ImageRoleChoice()
    source = ImageSourceChoice()
    decision = DecisionChoice()
    round = QueryInteger(1, 1_000, metadata={"description": "The number of a round."})


CropsSchema = schema_of(CropParams, "Crops")
