"""Her hair: a cap with a fringe cut out of it, and what hangs from it."""

import numpy as np

from . import palette
from .body import SIDES, Body
from .character import Character
from .solid import Array, Keep, Solid, ball, cone, ellipsoid, rotate_x, rotate_z

BAND = (0.85, 0.20, 0.30)


def fringe_height(kind: str, azimuth: Array) -> Array:
    """The lower edge of the hair over the forehead."""
    if kind == "zigzag":
        return 0.12 + 0.26 * np.abs(((azimuth * 1.55 + 0.25) % 1.0) - 0.5) * 2
    if kind == "straight":
        return np.full_like(azimuth, 0.26)
    if kind == "swept":
        return 0.36 + 0.30 * azimuth
    return 0.62 - 0.55 * np.abs(azimuth)  # parted


def cap_keep(kind: str, low: float) -> Keep:
    def keep(p: Array) -> Array:
        azimuth = np.arctan2(p[..., 0], p[..., 2])
        edge = np.where(np.abs(azimuth) < 0.98, fringe_height(kind, azimuth), low)
        return p[..., 1] > edge

    return keep


def hair(body: Body, character: Character) -> list[Solid]:
    look = character.look
    color = np.array(palette.HAIR[character.hair])
    low = -0.62 if character.hair_style != "short hair" else -0.45
    shell = ellipsoid(
        "hair", body.on_head(0, 0.03, -0.035), body.radii * look.volume, color, keep=cap_keep(look.bangs, low)
    )
    tresses = {
        "short hair": lambda *_: [],
        "medium hair": bob,
        "long hair": long_hair,
        "twintails": twintails,
        "ponytail": ponytail,
    }[character.hair_style]
    return [shell, *tresses(body, look.hair_length, look.volume, color)]


def bob(body: Body, length: float, volume: float, color: Array) -> list[Solid]:
    """Hair to the shoulders, wide at the ends."""
    w = body.radii[0] * volume
    back = cone(
        "hair", (0, body.neck - 0.02 * length, -0.14), body.on_head(0, 0, -0.35), 0.98 * w, 0.86 * w, color, flat=0.62
    )
    locks = [ellipsoid(f"hair:{n}", body.on_head(s * 0.96, -0.42, 0.16), (0.085, 0.24, 0.13), color) for n, s in SIDES]
    return [back, *locks]


def long_hair(body: Body, length: float, volume: float, color: Array) -> list[Solid]:
    """Hair down to the hips."""
    w = body.radii[0] * volume
    end = max(0.16, body.neck - 0.58 * length)
    back = cone("tresses", (0, end, -0.25), body.on_head(0, 0, -0.42), 0.80 * w, 0.92 * w, color * 0.94, flat=0.52)
    locks = [
        ellipsoid(
            f"tresses:{n}", body.on_head(s * 0.95, -0.72, 0.14), (0.08, 0.38 * length, 0.11), color, rotate_z(s * 3)
        )
        for n, s in SIDES
    ]
    return [back, *locks]


def twintails(body: Body, length: float, volume: float, color: Array) -> list[Solid]:
    solids = []
    for name, side in SIDES:
        knot = body.on_head(side * 1.08, 0.34, -0.15)
        hang = knot + (side * 0.16, -0.38 * length, 0)
        solids.append(
            ellipsoid(f"tresses:{name}", hang, (0.15, 0.46 * length, 0.15), color * 0.94, rotate_z(side * 13))
        )
        solids.append(ball(f"band:{name}", knot, 0.085, BAND))
    return solids


def ponytail(body: Body, length: float, volume: float, color: Array) -> list[Solid]:
    """High enough to be seen from the front, over the head."""
    knot = body.on_head(0, 0.92, -0.62)
    rise = ellipsoid("tresses", knot + (0, 0.1, -0.1), (0.17, 0.15, 0.15), color * 0.94)
    hang = ellipsoid(
        "tresses", knot + (0.1, -0.3 * length, -0.26), (0.17, 0.48 * length, 0.16), color * 0.94, rotate_x(14)
    )
    return [rise, hang, ball("band", knot, 0.10, BAND)]
