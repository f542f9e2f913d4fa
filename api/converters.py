"""Ids in addresses. What doesn't look like an id is not found before anybody looks for it."""

from __future__ import annotations

from typing import Any

from werkzeug.routing import BaseConverter

ID_PATTERN = "[a-z]{3}_[0-9a-hjkmnp-tv-z]{26}"


class Id(BaseConverter):
    """`prj_` and 26 characters of Crockford's base 32."""

    regex = ID_PATTERN
    part_isolating = True


def id_schema(converter: Any) -> dict[str, Any]:
    return {"type": "string", "pattern": f"^{ID_PATTERN}$"}
