"""Parse what people type: comma-separated tags, numbers and ranges."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence


def tags(text: str) -> list[str]:
    return [tag for tag in (" ".join(part.split()) for part in text.split(",")) if tag]


def numbers(text: str, allowed: Container[int], rest: Sequence[int]) -> list[int]:
    """Parse `1,4,7-9`. The words `rest` and `all` stand for the given `rest`; `none` is empty.

    Raises:
        ValueError: the text is none of these, or a number is not in `allowed`.
    """
    chosen: list[int] = []
    for part in text.replace(" ", "").split(","):
        if part in ("all", "rest"):
            chosen += rest
        elif match := re.fullmatch(r"(\d+)(?:-(\d+))?", part):
            first, last = int(match[1]), int(match[2] or match[1])
            outside = next((each for each in (first, last) if each not in allowed), None)
            if outside is not None:
                raise ValueError(f"there is no candidate {outside}; choose a number from the sheet")
            chosen += range(first, last + 1)
        elif part not in ("", "none"):
            raise ValueError(f"{part!r} is not a number; write for example 1,4,7-9, or all, rest or none")
    return list(dict.fromkeys(chosen))
