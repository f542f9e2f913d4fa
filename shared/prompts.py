"""Prompts with attention weights, in the syntax of AUTOMATIC1111's web UI (wiki: Features, attention/emphasis).

`(x:1.2)` weighs x by 1.2, `(x)` by 1.1, `[x]` by 1/1.1; brackets multiply. A bracket after a backslash is an ordinary
character, and one that is not closed reaches to the end. `BREAK` begins a new chunk of tokens. Stdlib only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

MORE, LESS = 1.1, 1 / 1.1  # what round and square brackets multiply by
MAX_DEPTH = 16  # of brackets, one inside the other
MAX_WEIGHT = 10.0
MAX_LENGTH = 10_000  # letters

TOKEN = re.compile(
    r"(?P<escaped>\\[()\[\]\\])"
    r"|(?P<open>[(\[])"
    r"|:\s*(?P<weight>[+-]?(?:\d+(?:\.\d*)?|\.\d+))\s*\)"
    r"|(?P<close>[)\]])"
    r"|(?P<text>[^\\()\[\]:]+|.)",
    re.DOTALL,
)
BREAK = re.compile(r"\bBREAK\b")
NETWORK = re.compile(r"<\s*(?:lora|lyco|hypernet)\s*:[^<>]*>?", re.IGNORECASE)
BRACKETS = re.compile(r"[\\()\[\]]")


class BadPrompt(ValueError):
    """A prompt that can't be read."""


@dataclass(frozen=True)
class Piece:
    """A stretch of text of one weight."""

    text: str
    weight: float = 1.0
    breaks: bool = False  # whether a new chunk begins before it


@dataclass
class Bracket:
    """An open bracket. Its factor is known once it is closed."""

    factor: float
    opened: int  # number of the first text inside it
    closed: int | None = None  # number of the first text behind it


@dataclass
class Reading:
    """A prompt as far as it has been read: its texts, and the brackets around them."""

    texts: list[str] = field(default_factory=list)
    brackets: list[Bracket] = field(default_factory=list)
    open: dict[str, list[Bracket]] = field(default_factory=lambda: {")": [], "]": []})  # by what closes them

    def begin(self, kind: str) -> None:
        """Open a bracket."""
        if sum(map(len, self.open.values())) == MAX_DEPTH:
            raise BadPrompt(f"more than {MAX_DEPTH} brackets are open at once; close some, or write \\{kind}")
        bracket = Bracket(MORE if kind == "(" else LESS, len(self.texts))
        self.brackets.append(bracket)
        self.open[")" if kind == "(" else "]"].append(bracket)

    def end(self, kind: str, weight: str = "") -> bool:
        """Close the innermost bracket of this kind, with its weight if one is given. Returns False if none is open."""
        opened = self.open[kind]
        if not opened:
            return False
        bracket = opened.pop()
        bracket.closed = len(self.texts)
        bracket.factor = weight_of(weight) if weight else bracket.factor
        return True


def parse(prompt: str) -> list[Piece]:
    """The texts of a weighted prompt with their weights, in their order. Neighbours of one weight are one piece.

    Raises:
        BadPrompt: too long, nested too deep, or a weight that is not between 0 and `MAX_WEIGHT`.
    """
    if len(prompt) > MAX_LENGTH:
        raise BadPrompt(f"the prompt is longer than {MAX_LENGTH} letters; shorten it")
    reading = Reading()
    for found in TOKEN.finditer(prompt):
        kind, matched = str(found.lastgroup), found[0]
        if kind == "open":
            reading.begin(matched)
            continue
        closes = (kind == "weight" and reading.end(")", found["weight"])) or (kind == "close" and reading.end(matched))
        if not closes:
            reading.texts.append(matched[1:] if kind == "escaped" else matched)
    return list(_pieces(reading))


def weight_of(written: str) -> float:
    """The number behind a colon."""
    weight = float(written)
    if not 0 <= weight <= MAX_WEIGHT:
        raise BadPrompt(f"the weight {written[:20]} is not between 0 and {MAX_WEIGHT:g}")
    return weight


def unweighted(prompt: str) -> str:
    """The words of a weighted prompt; a comma stands where a new chunk begins."""
    return "".join((", " if piece.breaks else "") + piece.text for piece in parse(prompt))


def escape(text: str) -> str:
    """Escape the brackets of a text, so that a weighted prompt reads it unchanged."""
    return BRACKETS.sub(r"\\\g<0>", text)


def named_network(prompt: str) -> str | None:
    """The first tag by which other tools load a LoRA, such as `<lora:her:0.8>`; None if there is none."""
    found = NETWORK.search(prompt)
    return found[0] if found else None


def _pieces(reading: Reading) -> Iterator[Piece]:
    text, weight, breaks = "", 1.0, False
    for said, its_weight in zip(reading.texts, _weights(reading), strict=True):
        for number, part in enumerate(_chunks(said)):
            if number > 0 or its_weight != weight:
                if text:
                    yield Piece(text, weight, breaks)
                    breaks = False
                text, weight = "", its_weight
            breaks = breaks or number > 0
            text += part
    if text:
        yield Piece(text, weight, breaks)


def _weights(reading: Reading) -> Iterator[float]:
    """The product of the brackets around each text."""
    around: list[Bracket] = []
    waiting = iter(reading.brackets)  # in the order in which they were opened
    coming = next(waiting, None)
    for number in range(len(reading.texts)):
        while coming and coming.opened <= number:
            around.append(coming)
            coming = next(waiting, None)
        around = [each for each in around if each.closed is None or each.closed > number]
        yield math.prod(each.factor for each in around)


def _chunks(text: str) -> list[str]:
    """The parts of a text between its BREAKs, without the blanks beside those."""
    first, *rest = BREAK.split(text)
    parts = [first, *(part.lstrip() for part in rest)]
    return [*(part.rstrip() for part in parts[:-1]), parts[-1]]
