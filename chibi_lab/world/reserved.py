"""Six styles that are reserved: no base, reader or judge may ever see them or their words.

Later work on style LoRAs needs styles that the base does not know. Nothing that trains or tunes imports this module.
"""

import numpy as np

from .solid import Array
from .style import GREY, Sheet, Style, blur, cloud, diagonal, edges, vec


def comic(sheet: Sheet) -> Array:
    """Saturated colours, dots for shadows, heavy lines."""
    grey = (sheet.color @ GREY)[:, None]
    bold = np.clip(grey + 1.35 * (sheet.color - grey), 0, 1)
    step = 4 * sheet.unit
    line = np.arange(sheet.size)
    x, y = (line[None, :] % step - step / 2) / step, (line[:, None] % step - step / 2) / step
    dots = (x * x + y * y < 0.10)[sheet.covered][:, None]
    bold = np.where((sheet.light < 0.25) & dots, bold * 0.35, bold)
    return sheet.inked(
        bold, vec(0.04, 0.04, 0.06), (0.04, 0.04, 0.06), sheet.backdrop * vec(1.0, 0.97, 0.86), 2 * sheet.unit
    )


def blueprint(sheet: Sheet) -> Array:
    """White lines and a grid on blue paper."""
    paper = np.broadcast_to(vec(0.10, 0.26, 0.56), sheet.backdrop.shape).copy()
    step = 12 * sheet.unit
    paper[::step] = paper[:, ::step] = vec(0.20, 0.37, 0.66)
    fill = 0.80 * paper[sheet.covered] + 0.16 * (sheet.light > 0.5)
    return sheet.inked(fill, vec(0.92, 0.96, 1.0), (0.92, 0.96, 1.0), paper)


def neon(sheet: Sheet) -> Array:
    """Edges that glow in their own colour, on near black."""
    lines = edges(sheet.surface, sheet.unit)
    glow = np.zeros_like(sheet.backdrop)
    glow[sheet.covered] = 0.35 + 0.65 * sheet.color / (sheet.color.max(1, keepdims=True) + 1e-3)
    lit = np.where(lines[..., None], glow, 0)
    halo = blur(blur(lit, 2 * sheet.unit), 2 * sheet.unit)
    night = 0.08 * sheet.backdrop + vec(0.02, 0.01, 0.05)
    return np.clip(night + lit + 1.6 * halo, 0, 1)


def stained_glass(sheet: Sheet) -> Array:
    """Panes of bright glass between leads, cut across as well."""
    cells = (cloud(sheet.rng, sheet.size, 9)[..., 0] * 7).astype(int)
    leads = np.zeros(cells.shape, bool)
    leads[1:] = cells[1:] != cells[:-1]
    leads[:, 1:] |= cells[:, 1:] != cells[:, :-1]
    shine = 0.75 + 0.45 * cloud(sheet.rng, sheet.size, 14)
    grey = (sheet.color @ GREY)[:, None]
    picture = sheet.picture(grey + 1.3 * (sheet.color - grey)) * shine
    leads |= edges(sheet.surface, 2 * sheet.unit)
    picture[leads] = vec(0.06, 0.06, 0.08)
    return picture


def paper_cutout(sheet: Sheet) -> Array:
    """Layers of plain paper, each with its shadow on the one below."""
    step = 2 * sheet.unit
    depth = sheet.surface.depth
    shadow = np.zeros(depth.shape, np.float32)
    shadow[step:, step:] = (depth[:-step, :-step] > depth[step:, step:] + 0.02) | (
        sheet.surface.part[:-step, :-step] != sheet.surface.part[step:, step:]
    ) & (depth[:-step, :-step] > depth[step:, step:])
    grain = 0.95 + 0.08 * sheet.rng.random((sheet.size, sheet.size, 1), np.float32)
    paper = np.round(sheet.color * 5) / 5 * 0.86 + 0.12
    return sheet.picture(paper) * grain * (1 - 0.38 * blur(shadow, sheet.unit)[..., None])


def embroidery(sheet: Sheet) -> Array:
    """Slanting stitches on linen."""
    weave = diagonal(sheet.size) + np.arange(sheet.size)[:, None] // (3 * sheet.unit) * 2
    stitch = 0.72 + 0.34 * ((weave % (4 * sheet.unit)) / (4 * sheet.unit))[..., None].astype(np.float32)
    linen = np.broadcast_to(vec(0.90, 0.85, 0.74), sheet.backdrop.shape) * (
        0.90
        + 0.10
        * ((np.arange(sheet.size)[:, None] // sheet.unit + np.arange(sheet.size)[None, :] // sheet.unit) % 2)[..., None]
    )
    picture = sheet.picture(sheet.color, linen.astype(np.float32))
    return np.where(sheet.covered[..., None], picture * stitch, picture)


RESERVED_STYLES: dict[str, Style] = {
    "comic": comic,
    "blueprint": blueprint,
    "neon": neon,
    "stained glass": stained_glass,
    "paper cutout": paper_cutout,
    "embroidery": embroidery,
}
