"""How much of a text a text encoder reads, estimated without its tokenizer. Stdlib only."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

# CLIP's tokenizer splits a text at least into these pieces, and may split each piece further.
CLIP_PIECES = re.compile(r"'(?:s|t|re|ve|m|ll|d)|[^\W\d_]+|\d|(?:[^\w\s]|_)+", re.IGNORECASE)


@dataclass(frozen=True)
class TextLimit:
    """A text encoder reads `max_tokens` tokens. `least_tokens` gives a lower bound for the tokens of a text."""

    max_tokens: int
    least_tokens: Callable[[str], int]


def least_clip_tokens(text: str) -> int:
    """A lower bound for CLIP's tokens of a text. Words that are not in its vocabulary take more than one."""
    return len(CLIP_PIECES.findall(unicodedata.normalize("NFC", text)))


# Of its 77 tokens, two mark beginning and end. For a family that can't read longer texts in chunks.
CLIP = TextLimit(max_tokens=75, least_tokens=least_clip_tokens)
