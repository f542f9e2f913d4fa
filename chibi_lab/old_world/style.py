"""Art styles: how a seen surface becomes a drawing."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .camera import Surface
from .solid import Array

LIGHT = np.array((-0.45, 0.62, 0.64), np.float32) / np.float32(np.linalg.norm((-0.45, 0.62, 0.64)))
GREY = np.array((0.30, 0.59, 0.11), np.float32)
DEPTH_STEP = 0.12  # a jump in depth that deserves a line


@dataclass
class Sheet:
    """What a style works on."""

    surface: Surface
    backdrop: Array
    light: Array  # (s, s, 1), cosine to the light
    unit: int  # pixels of the sheet in 1/128 of the picture: the width of a line
    rng: np.random.Generator


def cel_shading(sheet: Sheet) -> Array:
    color = sheet.surface.color
    color = np.where(sheet.light < 0.12, color * np.array((0.74, 0.68, 0.80), np.float32), color)
    color = np.where(sheet.light > 0.93, np.minimum(1, color * 1.06 + 0.05), color)
    return inked(sheet, color, sheet.surface.color * 0.28, (0.20, 0.14, 0.16))


def flat_color(sheet: Sheet) -> Array:
    return np.where(sheet.surface.covered[..., None], sheet.surface.color, sheet.backdrop)


def pastel_colors(sheet: Sheet) -> Array:
    soft = np.clip(0.5 + 0.5 * sheet.light, 0, 1)
    color = (sheet.surface.color * 0.52 + 0.48) * (0.84 + 0.16 * soft)
    sheet.backdrop = sheet.backdrop * 0.5 + 0.5 * np.array((1, 0.98, 0.97), np.float32)
    return inked(sheet, color, sheet.surface.color * 0.45 + 0.20, (0.50, 0.42, 0.45))


def sketch(sheet: Sheet) -> Array:
    """Pencil: grey tones, hatched shadows, dark lines on white paper."""
    grey = (sheet.surface.color @ GREY)[..., None]
    tone = np.clip(0.55 + 0.45 * grey, 0, 1)
    x, y = np.meshgrid(np.arange(len(grey)), np.arange(len(grey)))
    hatched = (((x + y) % (4 * sheet.unit)) < sheet.unit)[..., None]
    tone = np.where((sheet.light < 0.15) & hatched, tone * 0.7, tone)
    tone = np.where(grey < 0.35, tone * 0.78, tone)
    sheet.backdrop = np.full_like(sheet.backdrop, 0.98)
    return inked(sheet, np.repeat(tone, 3, 2), np.full_like(sheet.surface.color, 0.13), (0.13, 0.13, 0.13))


def pixel_art(sheet: Sheet) -> Array:
    """Drawn at half size (see render), in few tones."""
    return np.round(cel_shading(sheet) * 7) / 7


def watercolor(sheet: Sheet) -> Array:
    """Washes of uneven strength that pool at their edges, on white paper."""
    size = len(sheet.light)
    wash = cloud(sheet.rng, size, 6)
    shade = 0.80 + 0.20 * np.clip(0.6 + 0.6 * sheet.light, 0, 1)
    color = 1 - (1 - sheet.surface.color * shade) * (0.62 + 0.42 * wash)
    x, y = np.meshgrid(np.linspace(-1, 1, size, dtype=np.float32), np.linspace(-1, 1, size, dtype=np.float32))
    fade = np.clip(2.6 - 2.4 * np.maximum(np.abs(x), np.abs(y)) - cloud(sheet.rng, size, 5)[..., 0], 0, 1)[..., None]
    sheet.backdrop = 1 - (1 - sheet.backdrop) * fade * (0.45 + 0.45 * wash)
    pool = blur(edges(sheet.surface, sheet.unit)[..., None].astype(np.float32), sheet.unit)
    picture = np.where(sheet.surface.covered[..., None], color, sheet.backdrop)
    return picture * (1 - 0.50 * pool)


STYLES = {
    "cel shading": cel_shading,
    "flat color": flat_color,
    "pastel colors": pastel_colors,
    "sketch": sketch,
    "pixel art": pixel_art,
    "watercolor": watercolor,
}


def inked(sheet: Sheet, color: Array, ink: Array, outline: Sequence[float]) -> Array:
    """Figure over backdrop, with lines: `ink` on the figure, `outline` around it."""
    covered = sheet.surface.covered[..., None]
    picture = np.where(covered, color, sheet.backdrop)
    lines = np.where(covered, ink, np.asarray(outline, np.float32))
    return np.where(edges(sheet.surface, sheet.unit)[..., None], lines, picture)


def edges(surface: Surface, width: int) -> Array:
    """Where the part changes or the depth jumps."""
    part, depth = surface.part, surface.depth
    found = np.zeros(part.shape, bool)
    down = (part[1:] != part[:-1]) | (np.abs(depth[1:] - depth[:-1]) > DEPTH_STEP)
    across = (part[:, 1:] != part[:, :-1]) | (np.abs(depth[:, 1:] - depth[:, :-1]) > DEPTH_STEP)
    found[1:] |= down
    found[:, 1:] |= across
    for _ in range(width - 1):
        found = grown(found)
    return found


def grown(mask: Array) -> Array:
    out = mask.copy()
    out[1:] |= mask[:-1]
    out[:, 1:] |= out[:, :-1]
    return out


def cloud(rng: np.random.Generator, size: int, cells: int) -> Array:
    """Smooth noise in 0..1, (size, size, 1)."""
    knots = rng.random((cells + 1, cells + 1), np.float32)
    at = np.linspace(0, cells - 1e-3, size, dtype=np.float32)
    i, f = at.astype(int), at % 1
    f = f * f * (3 - 2 * f)
    rows = knots[i] * (1 - f)[:, None] + knots[i + 1] * f[:, None]
    return (rows[:, i] * (1 - f) + rows[:, i + 1] * f)[..., None]


def blur(image: Array, radius: int) -> Array:
    """Box blur by shifts; the radius is a few pixels."""
    for axis in (0, 1):
        image = np.stack([np.roll(image, k, axis) for k in range(-radius, radius + 1)]).mean(0)
    return image
