"""Pictures that others are drawn from: what is kept of them, and where.

The drawing begins with the original's latents and the noise of a later step in them (SDEdit, arXiv 2108.01073). Where a
mask is black, the original's latents replace the drawn ones before every step (blended latent diffusion, arXiv
2206.02779), and its pixels replace the drawn ones at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torch.nn import functional

from shared.catalog.params import Original, StoredPicture
from workers import pictures
from workers.diffusion.families.base import Family

OpenPicture = Callable[[StoredPicture], Image.Image]

FEATHER = 1 / 128  # of the shorter side: how soft the edge of a mask becomes


@dataclass(frozen=True)
class Canvas:
    """An original, read."""

    image: Image.Image  # RGB
    mask: Image.Image | None  # L, of the same size

    def finished(self, drawn: Image.Image) -> Image.Image:
        """The drawn picture; with a mask, the original with the drawn pixels where the mask is not black."""
        if self.mask is None:
            return drawn
        drawn = drawn.resize(self.image.size, Image.Resampling.LANCZOS)
        return Image.composite(drawn, self.image, feathered(self.mask))


@dataclass(frozen=True)
class Kept:
    """The latents of a batch of originals."""

    latents: Tensor  # (batch, channels, ..., height, width)
    free: Tensor  # (batch, 1, ..., height, width): where they may change

    def restored(self, drawn: Tensor, original: Tensor) -> Tensor:
        """Drawn latents with those of the original where they may not change."""
        return torch.where(self.free, drawn, original)


def read(original: Original, open_picture: OpenPicture) -> Canvas:
    """Original and mask. What is transparent is white, as in training."""
    mask = open_picture(original.mask).convert("L") if original.mask else None
    return Canvas(pictures.flatten(open_picture(original.image)), mask)


def encode(base: Family, canvases: Sequence[Canvas], size: tuple[int, int]) -> Kept:
    """The latents of originals, brought to one size (width, height)."""
    resized = [canvas.image.resize(size, Image.Resampling.LANCZOS) for canvas in canvases]
    latents = torch.cat([base.encode_images([image])[0] for image in resized])  # one by one, so that no batch matters
    free = torch.stack([_free(canvas.mask, latents.shape[1:]) for canvas in canvases])
    return Kept(latents, free.to(latents.device))


def feathered(mask: Image.Image) -> Image.Image:
    """The mask with edges that fade inwards: what is black stays black."""
    radius = max(1, round(min(mask.size) * FEATHER))
    soft = mask.filter(ImageFilter.GaussianBlur(radius))
    given, soft_ = (np.array(each, dtype=np.float32) for each in (mask, soft))
    full = _largest_near(_largest_near(soft_, 3 * radius).T, 3 * radius).T  # so that the blur loses no thin line
    return Image.fromarray(np.rint(given * soft_ / np.maximum(full, 1)).astype(np.uint8))


def _largest_near(values: np.ndarray, reach: int) -> np.ndarray:
    """The largest value of a column, at most `reach` rows away from each place; no value is less than 0."""
    found, rows, all_rows = np.pad(values, ((reach, reach), (0, 0))), 1, 2 * reach + 1
    while rows < all_rows:  # `found` has the largest of so many rows
        step = min(rows, all_rows - rows)
        found = np.maximum(found[:-step], found[step:])
        rows += step
    return found


def _free(mask: Image.Image | None, shape: Sequence[int]) -> Tensor:
    """(1, ..., height, width): latents of which at least one pixel may change."""
    height, width = shape[-2:]
    broadcast = [1] * (len(shape) - 2)
    if mask is None:
        return torch.ones(*broadcast, height, width, dtype=torch.bool)
    pixels = torch.from_numpy(np.asarray(mask) > 0).float()[None]
    return (functional.adaptive_max_pool2d(pixels, (height, width)) > 0).view(*broadcast, height, width)
