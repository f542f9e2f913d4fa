"""A scorer of colours and where they lie. It needs no model, and tells a blonde in blue from a redhead in green."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from PIL import Image

from workers import pictures
from workers.scorers.base import Score

SIDE = 64  # pixels: colours need no more
BINS = (5, 10, 10)  # lightness, red against green, yellow against blue
SMOOTHING = np.array([0.25, 0.5, 0.25])  # a shade more or less is no other colour
BANDS = 3  # of her height; left and right change with the view, above and below hardly do
LAYOUT_SHARE = 0.4  # of the distance that is taken between bands, the rest between whole figures
NEAREST_SCALE = 0.2  # references from one picture are nearer to one another than any drawing can be


class PlainScorer:
    """Nearness to the nearest reference: 0.5 is as near as the references are to one another."""

    def score(
        self, references: Sequence[Image.Image], candidates: Sequence[Image.Image], views: Sequence[str | None]
    ) -> list[Score]:
        del views  # colours don't tell
        if not references:
            raise ValueError("there is nothing to score against: no references")
        known = np.stack([embed(image) for image in references])
        scale = own_distance(known)
        scores = []
        for image in candidates:
            distance = float(np.linalg.norm(known - embed(image), axis=1).min())
            identity = 1 / (1 + (distance / scale) ** 2)
            scores.append(Score(identity, details={"distance": distance, "scale": scale}))
        return scores


def embed(image: Image.Image) -> np.ndarray:
    """Colours of the figure, and of its upper, middle and lower part; Euclidean distances lie between 0 and 1."""
    image = _shrink(image)
    mask = pictures.silhouette(image)
    if not mask.any():
        mask[:] = True
    colours = _opponent(np.asarray(pictures.flatten(image), dtype=float) / 255)
    rows = np.flatnonzero(mask.any(axis=1))
    edges = np.linspace(rows[0], rows[-1] + 1, BANDS + 1).round().astype(int)
    whole = _histogram(colours[mask])
    bands = [_histogram(colours[a:b][mask[a:b]]) for a, b in pairwise(edges)]
    # the roots of histograms are unit vectors, half of whose squared distance is Hellinger's
    layout = np.concatenate(bands) / np.sqrt(BANDS)
    return np.concatenate([np.sqrt(1 - LAYOUT_SHARE) * whole, np.sqrt(LAYOUT_SHARE) * layout]) / np.sqrt(2)


def own_distance(known: np.ndarray) -> float:
    """How far the references are from one another, each from its nearest."""
    if len(known) < 2:
        return NEAREST_SCALE
    distances = np.linalg.norm(known[:, None] - known[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    return max(NEAREST_SCALE, float(np.median(distances.min(axis=1))))


def _shrink(image: Image.Image) -> Image.Image:
    if max(image.size) <= SIDE:
        return image
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    image.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    return image


def _opponent(rgb: np.ndarray) -> np.ndarray:
    """Lightness, red against green, yellow against blue: each 0..1. (..., 3)"""
    r, g, b = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    return np.stack([(r + g + b) / 3, (r - g + 1) / 2, ((r + g) / 2 - b + 1) / 2], axis=-1)


def _histogram(colours: np.ndarray) -> np.ndarray:
    """Root of the smoothed share of each colour. (bins,)"""
    bins = np.array(BINS)
    if not len(colours):
        return np.full(bins.prod(), 1 / np.sqrt(bins.prod()))
    index = np.minimum((colours * bins).astype(int), bins - 1)
    counts = np.bincount(np.ravel_multi_index(tuple(index.T), BINS), minlength=int(bins.prod()))
    shares = counts.reshape(BINS) / len(colours)
    for axis in range(3):
        padded = np.pad(shares, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
        shares = sum(w * np.take(padded, range(k, k + BINS[axis]), axis) for k, w in enumerate(SMOOTHING))
    return np.sqrt(shares / shares.sum()).flatten()
