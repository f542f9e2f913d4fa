"""Pages of lists. A cursor is a position in the order of (created_at, id), not a number of rows to skip."""

from __future__ import annotations

import base64
import json
from datetime import datetime
from functools import cache
from typing import Any
from urllib.parse import urlencode

from flask import g, request
from marshmallow import Schema, fields
from marshmallow.validate import Length
from sqlalchemy import Select, tuple_
from sqlalchemy.orm import Session

from api.context import runtime
from api.schemas.fields import Answer, QueryInteger
from api.schemas.fields import Schema as Request
from shared.errors import Invalid


@cache
def page_of(schema: type[Schema]) -> type[Schema]:
    """The schema of a page of these items."""
    name = schema.__name__.removesuffix("Schema") + "PageSchema"
    return Answer.from_dict(
        {
            "items": fields.List(fields.Nested(schema), required=True),
            "has_more": fields.Boolean(required=True, metadata={"description": "Whether another page follows."}),
            "next_cursor": fields.String(
                required=True, allow_none=True, metadata={"description": "The `cursor` of the next page."}
            ),
        },
        name=name,
    )


@cache
def list_of(schema: type[Schema]) -> type[Schema]:
    """The schema of a short list, which is never paged."""
    name = schema.__name__.removesuffix("Schema") + "ListSchema"
    return Answer.from_dict({"items": fields.List(fields.Nested(schema), required=True)}, name=name)


class PageQuery(Request):
    """The position in a list, and the size of the page."""

    limit = QueryInteger(1, 100, load_default=20)
    cursor = fields.String(
        validate=Length(1, 500),
        metadata={"description": "`next_cursor` of the previous page. By default the first page."},
    )


def page(
    session: Session, query: Select[Any], model: Any, given: dict[str, Any], *, newest_first: bool = True
) -> dict[str, Any]:
    """The rows of a query after the cursor, up to the limit. The body and `Link` name the next page."""
    place = tuple_(model.created_at, model.id)
    if given.get("cursor"):
        after = tuple_(*_opened(given["cursor"]))
        query = query.where(place < after if newest_first else place > after)
    order = (model.created_at.desc(), model.id.desc()) if newest_first else (model.created_at, model.id)
    found = list(session.scalars(query.order_by(*order).limit(given["limit"] + 1)))
    items, has_more = found[: given["limit"]], len(found) > given["limit"]
    next_cursor = _sealed(items[-1]) if has_more else None
    if next_cursor:
        following = [*((name, value) for name, value in request.args.items(multi=True) if name != "cursor")]
        following.append(("cursor", next_cursor))
        g.link = f'<{runtime().settings.public_url.rstrip("/")}{request.path}?{urlencode(following)}>; rel="next"'
    return {"items": items, "has_more": has_more, "next_cursor": next_cursor}


def _sealed(row: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps([row.created_at.isoformat(), row.id]).encode()).decode().rstrip("=")


def _opened(cursor: str) -> tuple[datetime, str]:
    try:
        at, id_ = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        moment = datetime.fromisoformat(at)
        if moment.tzinfo is None or not isinstance(id_, str) or "\0" in id_:
            raise ValueError(cursor)
        id_.encode()  # raises for lone surrogates
        return moment, id_
    except (ValueError, TypeError) as error:
        raise Invalid(
            "the cursor is not valid; take `next_cursor` of the previous page, or leave it out", code="bad_cursor"
        ) from error
