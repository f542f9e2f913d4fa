"""Errors."""

from __future__ import annotations

from marshmallow import fields

from api.schemas.fields import Answer


class ProblemDetailSchema(Answer):
    pointer = fields.String(metadata={"description": "The place in the body, as a JSON pointer (RFC 6901)."})
    parameter = fields.String(metadata={"description": "The name of the query parameter or header."})
    detail = fields.String(required=True)


class ProblemSchema(Answer):
    """An error (RFC 9457)."""

    type = fields.String(required=True, metadata={"description": "A URI that names the kind of problem."})
    title = fields.String(required=True)
    status = fields.Integer(required=True)
    detail = fields.String(required=True, metadata={"description": "What is wrong, and what to do."})
    code = fields.String(required=True, metadata={"description": "The last part of `type`: stable, for programs."})
    instance = fields.String(
        required=True, metadata={"description": "The id of this request, which is also in the log."}
    )
    errors = fields.List(fields.Nested(ProblemDetailSchema))
