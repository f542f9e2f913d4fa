"""A scorer that compares colours and their layout. It needs no model."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from PIL import Image

from workers import pictures
from workers.scorers.base import Score

SIDE = 64  # pixels; enough for colours
BINS = (5, 10, 10)  # lightness, red against green, yellow against blue
SMOOTHING = np.array([0.25, 0.5, 0.25])  # so that a slightly different shade counts as nearly the same colour
BANDS = 3  # horizontal bands of the figure; the view changes left and right, but hardly top and bottom
LAYOUT_SHARE = 0.4  # the bands' share of the distance; the rest compares whole figures
NEAREST_SCALE = 0.2  # minimum scale: crops of one picture are closer to each other than any drawing can be


def score(
    references: Sequence[Image.Image], candidates: Sequence[Image.Image], views: Sequence[str | None]
) -> list[Score]:
    """Closeness to the nearest reference; 0.5 is the distance between the references themselves."""
    del views  # colours don't show the view
    if not references:
        raise ValueError("no references to score against; pass at least one")
    known = np.stack([embed(image) for image in references])
    scale = own_distance(known)
    scores = []
    for image in candidates:
        distance = float(np.linalg.norm(known - embed(image), axis=1).min())
        identity = 1 / (1 + (distance / scale) ** 2)
        scores.append(Score(identity, details={"distance": distance, "scale": scale}))
    return scores


def embed(image: Image.Image) -> np.ndarray:
    """Colour histograms of the figure and of its three bands. Euclidean distances are between 0 and 1."""
    image = _shrink(image)
    mask = pictures.silhouette(image)
    if not mask.any():
        mask[:] = True
    colours = _opponent(np.asarray(pictures.flatten(image), dtype=float) / 255)
    rows = np.flatnonzero(mask.any(axis=1))
    edges = np.linspace(rows[0], rows[-1] + 1, BANDS + 1).round().astype(int)
    whole = _histogram(colours[mask])
    bands = [_histogram(colours[a:b][mask[a:b]]) for a, b in pairwise(edges)]
    # Roots of histograms are unit vectors; their distance over sqrt(2) is the Hellinger distance.
    layout = np.concatenate(bands) / np.sqrt(BANDS)
    return np.concatenate([np.sqrt(1 - LAYOUT_SHARE) * whole, np.sqrt(LAYOUT_SHARE) * layout]) / np.sqrt(2)


def own_distance(known: np.ndarray) -> float:
    """Median distance of each reference to its nearest neighbour, at least `NEAREST_SCALE`."""
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
    """Opponent colours (lightness, red-green, yellow-blue), each 0..1. Shape (..., 3)."""
    r, g, b = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    return np.stack([(r + g + b) / 3, (r - g + 1) / 2, ((r + g) / 2 - b + 1) / 2], axis=-1)


def _histogram(colours: np.ndarray) -> np.ndarray:
    """Square root of the smoothed histogram. Shape (bins,)."""
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
