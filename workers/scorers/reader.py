"""A scorer that reads attributes and the view. It is trained on the world of the chibi base model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image

from models.chibi.reader import FOLDER, Reader, identity
from workers import pictures
from workers.scorers.base import Score

SIDE = 128  # pixels; the reader's training resolution


def score(
    references: Sequence[Image.Image], candidates: Sequence[Image.Image], views: Sequence[str | None]
) -> list[Score]:
    """Compares a picture with the references attribute by attribute."""
    if not references:
        raise ValueError("no references to score against; pass at least one")
    if not candidates:
        return []
    reader = trained()
    known, read = (reader.read(pixels(images)) for images in (references, candidates))
    found, seen = identity(known, read, reader.card["hers"]), read["view"].numpy()
    return [
        Score(float(found[i]), float(seen[i][reader.answers["view"].index(view)]) if view else 1.0)
        for i, view in enumerate(views)
    ]


@cache
def trained() -> Reader:
    return Reader.load(FOLDER)


def pixels(images: Sequence[Image.Image]) -> np.ndarray:
    """Pictures as uint8 (n, SIDE, SIDE, 3), scaled to fit, each padded with its own background."""
    return np.stack([np.asarray(pictures.fit(image, (SIDE, SIDE))) for image in images])
