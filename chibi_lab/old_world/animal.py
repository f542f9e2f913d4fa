"""Animal ears and tails."""

import numpy as np

from . import palette
from .body import SIDES, Body
from .character import Character
from .solid import Array, Paint, Solid, Vector, cone, ellipsoid, rotate_x, rotate_z, tube

PINK = (1.0, 0.72, 0.72)
CREAM = (0.99, 0.96, 0.90)
EAR_HEIGHT = {"none": 0.10, "fox ears": 0.46, "cat ears": 0.32, "rabbit ears": 0.54}


def pointed_paint(fur: Array, inner: Vector, tip: Vector | None) -> Paint:
    def paint(p: Array) -> Array:
        colors = np.broadcast_to(fur, p.shape).copy()
        x, y, z = p[..., 0], p[..., 1], p[..., 2]
        colors[(z > 0) & (np.abs(x) < 0.31 * (1 - y)) & (y < 0.55)] = inner
        if tip is not None:
            colors[y > 0.42] = tip
        return colors

    return paint


def round_paint(fur: Array) -> Paint:
    def paint(p: Array) -> Array:
        colors = np.broadcast_to(fur, p.shape).copy()
        colors[(p[..., 2] > 0.1) & ((p[..., 0] / 0.55) ** 2 + (p[..., 1] / 0.8) ** 2 < 1)] = PINK
        return colors

    return paint


def ears(body: Body, character: Character) -> list[Solid]:
    if character.ears == "none":
        return []
    fur = np.array(palette.FUR[character.fur], np.float32)
    if character.ears == "rabbit ears":
        at = [(n, s, body.on_head(s * 0.46, 1.0, -0.05) + (0, 0.24, 0)) for n, s in SIDES]
        return [ellipsoid(f"ears:{n}", c, (0.12, 0.32, 0.075), round_paint(fur), rotate_z(-s * 9)) for n, s, c in at]
    is_fox = character.ears == "fox ears"
    length, width = (0.46, 0.19) if is_fox else (0.29, 0.18)
    paint = pointed_paint(fur, CREAM if is_fox else PINK, fur * 0.3 if is_fox else None)
    solids = []
    for name, side in SIDES:
        root = body.on_head(side * 0.62, 0.74, 0.0)
        tip = root + length * np.array([side * 0.34, 0.94, 0.05])
        solids.append(cone(f"ears:{name}", root, tip, width, 0.012, paint, flat=0.5, capped=False))
    return solids


def fox_tail_paint(fur: Array, tip: Vector) -> Paint:
    def paint(p: Array) -> Array:
        colors = np.broadcast_to(fur, p.shape).copy()
        colors[p[..., 1] > 0.45 + 0.12 * np.sin(p[..., 0] * 9)] = tip
        return colors

    return paint


def tail(body: Body, character: Character) -> list[Solid]:
    if character.tail == "none":
        return []
    fur = np.array(palette.FUR[character.fur], np.float32)
    root = np.array([0.0, body.hip - 0.06, -0.12])
    if character.tail == "cat tail":
        bends = (
            (0, 0, 0),
            (0.20, -0.12, -0.18),
            (0.40, -0.06, -0.26),
            (0.48, 0.14, -0.28),
            (0.44, 0.34, -0.28),
            (0.54, 0.46, -0.28),
        )
        return tube("tail", [root + b for b in bends], 0.052, fur)
    tip = (0.45, 0.42, 0.45) if character.fur == "white" else CREAM
    brush_turn = rotate_z(-29) @ rotate_x(-9)
    brush = ellipsoid("tail", root + (0.42, 0.1, -0.22), (0.18, 0.40, 0.18), fox_tail_paint(fur, tip), brush_turn)
    return [brush, cone("tail", root, root + (0.27, -0.1, -0.18), 0.06, 0.11, fur)]
