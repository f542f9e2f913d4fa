"""One thing that she wears on top."""

import numpy as np

from . import palette
from .body import Body
from .character import Character
from .solid import Array, Paint, Solid, ball, cone, ellipsoid, rotate_x


def accessory(body: Body, character: Character) -> list[Solid]:
    if character.accessory == "none":
        return []
    color = np.array(palette.TRINKET[character.accessory_color], np.float32)
    make = {"ribbon": ribbon, "hairband": hairband, "hat": hat, "scarf": scarf}[character.accessory]
    return make(body, character.look.volume, color)


def ribbon(body: Body, volume: float, color: Array) -> list[Solid]:
    """A bow on the side of the head."""
    knot = body.on_head(0.80, 0.78, 0.45)
    loops = [cone("accessory", knot, knot + (s * 0.2, 0.07, 0.02), 0.02, 0.14, color, flat=0.5) for s in (-1, 1)]
    return [*loops, ball("accessory:knot", knot, 0.06, color * 0.8)]


def hairband(body: Body, volume: float, color: Array) -> list[Solid]:
    """A broad band over the head, from ear to ear."""
    radii = body.radii * (volume * 1.03)
    return [
        ellipsoid(
            "accessory", body.on_head(0, 0.03, -0.035), radii, color,
            keep=lambda p: (np.abs(p[..., 2] - 0.42 + 0.25 * p[..., 1]) < 0.13) & (p[..., 1] > 0.0),
        )
    ]  # fmt: skip


def hat_paint(color: Array) -> Paint:
    band = np.array((0.25, 0.20, 0.25), np.float32) if color.min() < 0.9 else np.array((0.30, 0.40, 0.80), np.float32)

    def paint(p: Array) -> Array:
        colors = np.broadcast_to(color, p.shape).copy()
        colors[p[..., 1] < 0.2] = band
        return colors

    return paint


def hat(body: Body, volume: float, color: Array) -> list[Solid]:
    seat, w = body.on_head(0, 0.76, -0.05), body.radii[0] * volume
    brim = ellipsoid("accessory", seat, (1.32 * w, 0.045, 1.24 * w), color, rotate_x(-4))
    crown = ellipsoid(
        "accessory:crown", seat, (0.76 * w, 0.32, 0.76 * w), hat_paint(color), keep=lambda p: p[..., 1] > 0
    )
    return [brim, crown]


def scarf(body: Body, volume: float, color: Array) -> list[Solid]:
    wrap = ellipsoid("accessory", (0, body.neck - 0.02, 0), (body.width + 0.05, 0.10, body.width + 0.04), color)
    start = np.array([0.11, body.neck - 0.04, body.width - 0.01])
    return [wrap, cone("accessory:end", start, start + (0.04, -0.31, 0.06), 0.065, 0.085, color, flat=0.5)]
