"""Text that people write: its normal form, and its invisible characters. Stdlib only."""

from __future__ import annotations

import re
import unicodedata

# Invisible characters, as character sets of a regular expression: the categories Cc, Cf, Zl and Zp of Unicode 14.
UNSEEN = (
    "\\u0000-\\u001f\\u007f-\\u009f\\u00ad\\u0600-\\u0605\\u061c\\u06dd\\u070f\\u0890\\u0891\\u08e2\\u180e"
    "\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u2064\\u2066-\\u206f\\ufeff\\ufff9-\\ufffb"
)
UNSEEN_BEYOND = (  # beyond the first plane; not in openapi.yaml: JavaScript has no common way to write them
    "\U000110bd\U000110cd\U00013430-\U00013438\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f"
)
COMMAS = ",\uff0c\u3001\uff64\ufe50\ufe51"  # full-width, ideographic, its half-width form, and the two small ones
BLANKS = "\u115f\u1160\u3164\uffa0\u2800"  # letters and signs that look like a space


def normal(text: str) -> str:
    """Unicode normal form C: an accented letter is one character, however it was typed."""
    return unicodedata.normalize("NFC", text)


def name_of(letter: str) -> str:
    """The Unicode name of a character, for messages, such as U+200B ZERO WIDTH SPACE."""
    return f"U+{ord(letter):04X} {unicodedata.name(letter, 'a control character')}"


def slug(title: str) -> str:
    """A title as a file name, without the slashes and dots that could lead to other folders."""
    return re.sub(r"[^\w-]+", "-", title).strip("-")


def is_blank(text: str) -> bool:
    """Whether a text has only blank characters."""
    return not text.translate(dict.fromkeys(map(ord, BLANKS), " ")).strip()
