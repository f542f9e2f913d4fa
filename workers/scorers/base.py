"""What a scorer says of a candidate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from PIL import Image


@dataclass(frozen=True)
class Score:
    """One candidate, judged."""

    identity: float  # 0..1: is it she? 1 is no difference to the references
    shows_view: float = 1.0  # 0..1: is she seen as asked? 1 also when a scorer can't tell
    details: dict[str, float] = field(default_factory=dict)

    @property
    def worth(self) -> float:
        """A perfect front, when her back was asked for, is worth nothing."""
        return self.identity * self.shows_view


class Scorer(Protocol):
    """Judges candidates by pictures that are known to show her."""

    def score(
        self, references: Sequence[Image.Image], candidates: Sequence[Image.Image], views: Sequence[str | None]
    ) -> list[Score]:
        """One score for each candidate, in order; `views` are those asked for, names from catalog.VIEWS."""
