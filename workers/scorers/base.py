"""The scorer protocol, and the score of a candidate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from PIL import Image


@dataclass(frozen=True)
class Score:
    """The score of one candidate."""

    identity: float  # 0..1: whether it shows the same character; 1: no difference from the references
    shows_view: float = 1.0  # 0..1: whether it shows the requested view; also 1 if the scorer can't tell
    details: dict[str, float] = field(default_factory=dict)

    @property
    def worth(self) -> float:
        """Identity times view. So a perfect front is worth nothing if a back was requested."""
        return self.identity * self.shows_view


class Scorer(Protocol):
    """A function that scores candidates against reference pictures of the character."""

    def __call__(
        self, references: Sequence[Image.Image], candidates: Sequence[Image.Image], views: Sequence[str | None]
    ) -> list[Score]:
        """One score per candidate, in order.

        Args:
            references: pictures of any size and mode, at least one.
            candidates: likewise, or none.
            views: the requested view of each candidate, a name from catalog.VIEWS.

        Raises:
            ValueError: there are no references.
        """
