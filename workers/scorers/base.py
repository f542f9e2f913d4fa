"""What a scorer says of a candidate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from PIL import Image


@dataclass(frozen=True)
class Score:
    """One candidate, judged."""

    identity: float  # 0..1: 0.5 is as near to the references as they are to one another, 1 is no difference
    hash: int  # 64 bits; few differ between near duplicates
    details: dict[str, float] = field(default_factory=dict)


class Scorer(Protocol):
    """Judges candidates by pictures that are known to show her."""

    def score(self, references: Sequence[Image.Image], candidates: Sequence[Image.Image]) -> list[Score]:
        """One score for each candidate, in order."""
