"""Animal ears and tails."""

from collections.abc import Callable

import numpy as np

from . import palette
from .body import SIDES, Body
from .character import Character
from .solid import Array, Paint, Solid, Vector, cone, ellipsoid, rotate_x, rotate_z, tube

PINK = (1.0, 0.72, 0.72)
CREAM = (0.99, 0.96, 0.90)


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


def pointed(body: Body, fur: Array, length: float, width: float, paint: Paint) -> list[Solid]:
    solids = []
    for name, side in SIDES:
        root = body.on_head(side * 0.62, 0.74, 0.0)
        tip = root + length * np.array([side * 0.34, 0.94, 0.05])
        solids.append(cone(f"ears:{name}", root, tip, width, 0.012, paint, 0.5, capped=False))
    return solids


def fox_ears(body: Body, fur: Array) -> list[Solid]:
    return pointed(body, fur, 0.44, 0.19, pointed_paint(fur, CREAM, fur * 0.3))


def cat_ears(body: Body, fur: Array) -> list[Solid]:
    return pointed(body, fur, 0.28, 0.18, pointed_paint(fur, PINK, None))


def rabbit_ears(body: Body, fur: Array) -> list[Solid]:
    return [
        ellipsoid(
            f"ears:{n}",
            body.on_head(s * 0.46, 1.0, -0.05) + (0, 0.24, 0),
            (0.12, 0.32, 0.075),
            round_paint(fur),
            rotate_z(-s * 9),
        )
        for n, s in SIDES
    ]


def rounded(radius: float, out: float) -> Callable[[Body, Array], list[Solid]]:
    def make(body: Body, fur: Array) -> list[Solid]:
        return [
            ellipsoid(f"ears:{n}", body.on_head(s * out, 0.82, -0.05), (radius, radius, 0.07), round_paint(fur))
            for n, s in SIDES
        ]

    return make


def dog_ears(body: Body, fur: Array) -> list[Solid]:
    """Hanging."""
    return [
        ellipsoid(f"ears:{n}", body.on_head(s * 1.02, 0.10, 0.0), (0.085, 0.27, 0.14), fur * 0.8, rotate_z(s * 14))
        for n, s in SIDES
    ]


EARS: dict[str, Callable[[Body, Array], list[Solid]]] = {
    "fox ears": fox_ears,
    "cat ears": cat_ears,
    "rabbit ears": rabbit_ears,
    "bear ears": rounded(0.16, 0.66),
    "mouse ears": rounded(0.25, 0.84),
    "dog ears": dog_ears,
}


def animal_ears(body: Body, character: Character) -> list[Solid]:
    make = EARS.get(character.ears)
    return make(body, character.dyed(character.fur, palette.FUR)) if make else []


def fox_tail_paint(fur: Array, tip: Vector) -> Paint:
    def paint(p: Array) -> Array:
        colors = np.broadcast_to(fur, p.shape).copy()
        colors[p[..., 1] > 0.45 + 0.12 * np.sin(p[..., 0] * 9)] = tip
        return colors

    return paint


def fox_tail(root: Array, fur: Array) -> list[Solid]:
    tip = (0.45, 0.42, 0.45) if fur.min() > 0.85 else CREAM
    turn = rotate_z(-29) @ rotate_x(-9)
    brush = ellipsoid("tail", root + (0.42, 0.1, -0.22), (0.18, 0.40, 0.18), fox_tail_paint(fur, tip), turn)
    return [brush, cone("tail", root, root + (0.27, -0.1, -0.18), 0.06, 0.11, fur)]


def cat_tail(root: Array, fur: Array) -> list[Solid]:
    bends = (
        (0, 0, 0),
        (0.20, -0.08, -0.18),
        (0.40, -0.04, -0.26),
        (0.48, 0.14, -0.28),
        (0.44, 0.34, -0.28),
        (0.54, 0.46, -0.28),
    )
    return tube("tail", [root + b for b in bends], 0.052, fur)


def short_tail(root: Array, fur: Array) -> list[Solid]:
    return [ellipsoid("tail", root + (0, 0.02, -0.08), (0.12, 0.11, 0.11), fur)]


def reptile_tail(root: Array, fur: Array) -> list[Solid]:
    return [
        cone("tail", root + (0.16, -0.10, -0.30), root, 0.08, 0.13, fur),
        cone("tail", root + (0.46, -0.06, -0.46), root + (0.16, -0.10, -0.30), 0.012, 0.085, fur),
    ]


TAILS: dict[str, Callable[[Array, Array], list[Solid]]] = {
    "fox tail": fox_tail,
    "cat tail": cat_tail,
    "rabbit tail": short_tail,
    "dragon tail": reptile_tail,
}


def tail(body: Body, character: Character) -> list[Solid]:
    """At her left, so that it is seen from the front."""
    make = TAILS.get(character.tail)
    root = np.array([0.0, max(0.18, body.hip - 0.04), -0.75 * body.depth])
    return make(root, character.dyed(character.fur, palette.FUR)) if make else []
