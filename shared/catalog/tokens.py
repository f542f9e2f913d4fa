"""How much of a text a base model's text encoder reads, counted without its tokenizer. Stdlib only."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

# CLIP's tokenizer starts a new piece here at the latest, and may cut each piece further.
CLIP_PIECES = re.compile(r"'(?:s|t|re|ve|m|ll|d)|[^\W\d_]+|\d|(?:[^\w\s]|_)+", re.IGNORECASE)


@dataclass(frozen=True)
class TextLimit:
    """What a text encoder reads: `max_tokens` at most; `least_tokens` says how many a text has at least."""

    max_tokens: int
    least_tokens: Callable[[str], int]


def least_clip_tokens(text: str) -> int:
    """How many tokens a text has at least for CLIP; words that a base model doesn't know have more than one."""
    return len(CLIP_PIECES.findall(unicodedata.normalize("NFC", text)))


CLIP = TextLimit(max_tokens=75, least_tokens=least_clip_tokens)  # of its 77, two mark beginning and end
