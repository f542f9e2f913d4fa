"""Choose among scored candidates: best first, a quota per view, no near duplicates, nothing below a minimum score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from shared.catalog.params import ScoreParams
from workers import pictures
from workers.scorers.base import Score


@dataclass(frozen=True)
class Candidate:
    """A candidate's requested view and framing, and its perceptual hash."""

    view: str | None = None
    framing: str | None = None
    hash: int = 0  # of `dhash`: near duplicates differ in few bits


def dhash(image: Image.Image) -> int:
    """A 64-bit difference hash: whether each of 8x8 cells is lighter than its right neighbour."""
    grey = pictures.flatten(image).convert("L").resize((9, 8), Image.Resampling.LANCZOS)
    pixels = np.asarray(grey, dtype=int)
    bits = (pixels[:, :-1] > pixels[:, 1:]).flatten()
    return int("".join("1" if bit else "0" for bit in bits), 2)


def choose(
    candidates: Sequence[Candidate],
    scores: Sequence[Score],
    quota: Mapping[str, int],
    params: ScoreParams,
    *,
    taken: Iterable[int] = (),
) -> list[int]:
    """Indices of the accepted candidates, best first. `taken`: hashes of pictures already in the dataset.

    A view without enough good candidates stays below its quota, because the next LoRA would learn from bad pictures.
    """
    hashes = list(taken)
    accepted: list[int] = []
    for view, places in quota.items():
        ranked = sorted(
            (i for i, candidate in enumerate(candidates) if candidate.view == view), key=lambda i: -scores[i].worth
        )
        best = [scores[i].worth for i in ranked[:places]]
        if not best or sum(best) / len(best) < params.min_view_score:
            continue
        good = [i for i in ranked if scores[i].worth >= params.min_score]
        accepted += _fill(places, good, candidates, scores, hashes, params.near_duplicate_bits)
    return sorted(accepted, key=lambda i: -scores[i].worth)


def _fill(
    places: int,
    ranked: list[int],
    candidates: Sequence[Candidate],
    scores: Sequence[Score],
    hashes: list[int],
    near_duplicate_bits: int,
) -> list[int]:
    """The best candidates of one view, balanced over the framings. Adds their hashes to `hashes`."""
    taken: list[int] = []
    framings: Counter[str | None] = Counter()
    left = list(ranked)
    while left and len(taken) < places:
        index = min(left, key=lambda i: (framings[candidates[i].framing], -scores[i].worth))
        left.remove(index)
        if any((candidates[index].hash ^ other).bit_count() <= near_duplicate_bits for other in hashes):
            continue
        taken.append(index)
        hashes.append(candidates[index].hash)
        framings[candidates[index].framing] += 1
    return taken
