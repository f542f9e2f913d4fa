"""Ids in paths. A malformed id gives 404 without a query."""

from __future__ import annotations

import re
from typing import Any

from werkzeug.exceptions import NotFound
from werkzeug.routing import BaseConverter

ID_PATTERN = "[a-z]{3}_[0-9a-hjkmnp-tv-z]{26}"


class IdConverter(BaseConverter):
    """`prj_` and 26 characters of Crockford's base 32."""

    part_isolating = True

    def to_python(self, value: str) -> str:
        if not re.fullmatch(ID_PATTERN, value):
            raise NotFound(
                f"{value[:100]!r} is not an id: ids are three letters, `_` and 26 letters or digits in lower case; "
                "take them from `id` of an answer"
            )
        return value


def id_schema(converter: Any) -> dict[str, Any]:
    return {"type": "string", "pattern": f"^{ID_PATTERN}$"}
