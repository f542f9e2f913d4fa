"""What is worn on the head: one row for each thing, one small function that makes it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import palette
from .body import SIDES, Body
from .character import Character
from .face import earring
from .solid import Array, Keep, Paint, Solid, ball, box, cone, ellipsoid, rotate_x, rotate_z, tube

Make = Callable[[Body, Character, Array], list[Solid]]


@dataclass(frozen=True)
class Headwear:
    make: Make
    covers_top: bool = True  # nothing stands up under it
    covers_ears: bool = False  # nor do animal ears, horns and what hangs at the side show
    height: float = 0.0  # above the skull, in head radii


def width(body: Body, character: Character) -> float:
    """Half of what a hat must go over."""
    bare = character.hair_style in ("bald", "buzz cut", "mohawk")
    return float(body.radii[0]) * (1.03 if bare else character.look.volume)


def grown(body: Body, character: Character, more: float) -> float:
    return width(body, character) / float(body.radii[0]) * more


def banded(color: Array, band: Array, below: float) -> Paint:
    def paint(p: Array) -> Array:
        colors = np.broadcast_to(color, p.shape).copy()
        colors[p[..., 1] < below] = band
        return colors

    return paint


def above(height: float) -> Keep:
    return lambda p: p[..., 1] > height


def brimmed(body: Body, character: Character, color: Array, brim: float, crown: Solid) -> list[Solid]:
    w = width(body, character)
    return [
        ellipsoid("headwear", body.on_head(0, 0.66, -0.05), (brim * w, 0.045, 0.94 * brim * w), color, rotate_x(-4)),
        crown,
    ]


def hat(body: Body, character: Character, color: Array) -> list[Solid]:
    w, seat = width(body, character), body.on_head(0, 0.66, -0.05)
    paint = banded(color, character.dyed(character.look.accent) * 0.8, 0.28)
    return brimmed(
        body,
        character,
        color,
        1.36,
        ellipsoid("headwear:crown", seat, (0.80 * w, 0.36, 0.80 * w), paint, keep=above(0)),
    )


def straw_hat(body: Body, character: Character, color: Array) -> list[Solid]:
    w, seat = width(body, character), body.on_head(0, 0.66, -0.05)
    crown = cone(
        "headwear:crown",
        seat,
        seat + (0, 0.26, 0),
        0.80 * w,
        0.70 * w,
        banded(color, character.dyed(character.look.accent), -0.3),
    )
    return brimmed(body, character, color * 0.97, 1.62, crown)


def witch_hat(body: Body, character: Character, color: Array) -> list[Solid]:
    w, seat = width(body, character), body.on_head(0, 0.66, -0.05)
    paint = banded(color, character.dyed(character.look.accent), -0.68)
    bend = seat + (0.02, 0.42, -0.10)
    tip = cone("headwear:crown", bend, bend + (0.10, 0.16, -0.14), 0.26 * w, 0.02, color)
    crown = cone("headwear:crown", seat, bend, 0.84 * w, 0.27 * w, paint)
    return [*brimmed(body, character, color, 1.55, crown), tip]


def top_hat(body: Body, character: Character, color: Array) -> list[Solid]:
    w, seat = width(body, character), body.on_head(0, 0.70, -0.05)
    paint = banded(color, character.dyed(character.look.accent), -0.55)
    return brimmed(
        body, character, color, 1.14, cone("headwear:crown", seat, seat + (0, 0.44, 0), 0.70 * w, 0.76 * w, paint)
    )


def cap(body: Body, character: Character, color: Array) -> list[Solid]:
    """With a peak in front."""
    grow = grown(body, character, 1.05)
    dome = ellipsoid("headwear", body.on_head(0, 0.06, -0.02), body.radii * grow, color, keep=above(0.34))
    peak = ellipsoid(
        "headwear:peak", body.on_head(0, 0.36, 0.95), body.radii * (0.66, 0.075, 0.62), color * 0.85, rotate_x(10)
    )
    return [dome, peak, ball("headwear:peak", body.on_head(0, 0.06 + grow, -0.02), 0.05, color * 0.85)]


def beanie(body: Body, character: Character, color: Array) -> list[Solid]:
    grow = grown(body, character, 1.06)
    rim = cone(
        "headwear:rim",
        body.on_head(0, 0.30, -0.02),
        body.on_head(0, 0.52, -0.02),
        1.01 * grow * body.radii[0],
        0.95 * grow * body.radii[0],
        color * 0.82,
    )
    dome = ellipsoid("headwear", body.on_head(0, 0.10, -0.02), body.radii * grow, color, keep=above(0.30))
    return [
        dome,
        rim,
        ball("headwear:ball", body.on_head(0, 0.16 + grow, -0.02), 0.11, character.dyed(character.look.accent)),
    ]


def beret(body: Body, character: Character, color: Array) -> list[Solid]:
    """Pulled to one side."""
    side, w = (1 if character.look.hair_side == "left" else -1), width(body, character)
    return [
        ellipsoid(
            "headwear", body.on_head(side * 0.22, 0.84, -0.08), (1.04 * w, 0.17, 1.0 * w), color, rotate_z(-side * 13)
        )
    ]


def crown_keep(p: Array) -> Array:
    azimuth = np.arctan2(p[..., 0], p[..., 2])
    return p[..., 1] < -0.25 + 1.25 * np.abs(((azimuth * 5 / np.pi) % 1.0) - 0.5) * 2


def crown(body: Body, character: Character, color: Array) -> list[Solid]:
    low, high = body.on_head(0, 0.66, -0.05), body.on_head(0, 1.22, -0.05)
    ring = cone("headwear", low, high, 0.68 * body.radii[0], 0.80 * body.radii[0], color, capped=False, keep=crown_keep)
    return [ring, ball("headwear:gem", body.on_head(0, 0.78, 0.72), 0.055, character.dyed(character.look.accent))]


def hood_keep(p: Array) -> Array:
    azimuth = np.arctan2(p[..., 0], p[..., 2])
    return ((azimuth / 0.88) ** 2 + ((p[..., 1] + 0.16) / 0.66) ** 2 > 1) & (p[..., 1] > -0.88)


def hood(body: Body, character: Character, color: Array) -> list[Solid]:
    grow = grown(body, character, 1.10)
    cloth = ellipsoid("headwear", body.on_head(0, 0.03, -0.03), body.radii * grow, color, keep=hood_keep)
    point = cone(
        "headwear", body.on_head(0, 0.62, -0.75), body.on_head(0, 0.86, -1.36), 0.5 * body.radii[0], 0.05, color
    )
    collar = cone(
        "headwear:collar",
        (0, body.neck - 0.10, 0),
        (0, body.neck + 0.07, 0),
        1.22 * body.width,
        0.86 * body.width,
        color * 0.9,
        0.86,
    )
    return [cloth, point, collar]


def helmet_keep(p: Array) -> Array:
    azimuth = np.arctan2(p[..., 0], p[..., 2])
    face = (np.abs(azimuth) < 0.74) & (p[..., 1] < 0.22 - 0.10 * np.abs(azimuth)) & (p[..., 1] > -0.40)
    return ~face & (p[..., 1] > -0.82)


def helmet(body: Body, character: Character, color: Array) -> list[Solid]:
    """Closed around the face, with a ridge over it."""
    grow = grown(body, character, 1.06)
    steel = ellipsoid("headwear", body.on_head(0, 0.02, -0.02), body.radii * grow, color, keep=helmet_keep)
    ridge = ellipsoid(
        "headwear:ridge", body.on_head(0, 0.30, 0.06), body.radii * (0.09, 1.00, 1.10), color * 0.8, keep=above(0.12)
    )
    slits = [
        ellipsoid(
            "headwear:slit",
            body.on_head(0.28 * k, 0.58 - 0.05 * abs(k), 0.97),
            body.radii * (0.06, 0.18, 0.14),
            color * 0.55,
        )
        for k in (-1.4, 1.4)
    ]
    return [steel, ridge, *slits]


def kettle_helm(body: Body, character: Character, color: Array) -> list[Solid]:
    """A bowl with a rim and a bar over the nose."""
    grow = grown(body, character, 1.06)
    bowl = ellipsoid("headwear", body.on_head(0, 0.04, -0.02), body.radii * grow, color, keep=above(0.20))
    r = body.radii[0] * grow
    rim = cone("headwear:rim", body.on_head(0, 0.17, -0.02), body.on_head(0, 0.30, -0.02), r, 0.99 * r, color * 0.75)
    return [bowl, rim, box("headwear:rim", body.on_head(0, 0.02, grow), body.radii * (0.07, 0.24, 0.05), color * 0.75)]


def horned_helmet(body: Body, character: Character, color: Array) -> list[Solid]:
    return [
        *kettle_helm(body, character, color),
        *horn_pair(body, character.shaded(palette.BONE), 1.0, 0.42, "headwear:horn"),
    ]


def headband(body: Body, character: Character, color: Array) -> list[Solid]:
    """Around the forehead."""
    grow = grown(body, character, 1.03)
    return [
        ellipsoid(
            "headwear",
            body.on_head(0, 0.03, -0.035),
            body.radii * grow,
            color,
            keep=lambda p: np.abs(p[..., 1] - 0.40) < 0.11,
        )
    ]


def hairband(body: Body, character: Character, color: Array) -> list[Solid]:
    """Over the head, from ear to ear."""
    return [
        ellipsoid(
            "headwear", body.on_head(0, 0.03, -0.035), body.radii * grown(body, character, 1.03), color,
            keep=lambda p: (np.abs(p[..., 2] - 0.50 + 0.25 * p[..., 1]) < 0.14) & (p[..., 1] > 0.0),
        )
    ]  # fmt: skip


def bandana(body: Body, character: Character, color: Array) -> list[Solid]:
    """Tied behind."""
    grow = grown(body, character, 1.04)
    cloth = ellipsoid(
        "headwear",
        body.on_head(0, 0.03, -0.035),
        body.radii * grow,
        dotted(color),
        keep=lambda p: p[..., 1] > 0.28 + 0.10 * p[..., 2],
    )
    knot = body.on_head(0, 0.25, -1.12)
    ends = [cone("headwear:end", knot, knot + (s * 0.12, -0.20, -0.05), 0.03, 0.07, color, 0.4) for s in (-1, 1)]
    return [cloth, ball("headwear:end", knot, 0.07, color), *ends]


def dotted(color: Array) -> Paint:
    def paint(p: Array) -> Array:
        colors = np.broadcast_to(color, p.shape).copy()
        spots = (np.arctan2(p[..., 0], p[..., 2]) * 3.2 % 1 - 0.5) ** 2 + (p[..., 1] * 4.2 % 1 - 0.5) ** 2 < 0.035
        colors[spots] = 0.35 * color + 0.62
        return colors

    return paint


HEADWEAR: dict[str, Headwear] = {
    "hat": Headwear(hat, height=0.35),
    "straw hat": Headwear(straw_hat, height=0.25),
    "witch hat": Headwear(witch_hat, height=0.9),
    "top hat": Headwear(top_hat, height=0.6),
    "baseball cap": Headwear(cap),
    "beanie": Headwear(beanie, height=0.3),
    "beret": Headwear(beret, height=0.1),
    "crown": Headwear(crown, height=0.3),
    "hood": Headwear(hood, covers_ears=True),
    "helmet": Headwear(helmet, covers_ears=True, height=0.2),
    "kettle helm": Headwear(kettle_helm),
    "horned helmet": Headwear(horned_helmet, covers_ears=True, height=0.3),
    "headband": Headwear(headband, covers_top=False),
    "hairband": Headwear(hairband, covers_top=False),
    "bandana": Headwear(bandana),
}


def headwear(body: Body, character: Character) -> list[Solid]:
    row = HEADWEAR.get(character.headwear)
    return row.make(body, character, character.dyed(character.headwear_color)) if row else []


def horn_pair(body: Body, color: Array, spread: float, length: float, part: str = "horns") -> list[Solid]:
    """Out and up, in two bends."""
    solids = []
    for name, side in SIDES:
        root = body.on_head(side * 0.80 * spread, 0.62, 0.10)
        bend = root + length * np.array([side * 0.55, 0.25, 0.05])
        tip = bend + length * np.array([side * 0.05, 0.70, 0.0])
        solids += [
            cone(f"{part}:{name}", root, bend, 0.105, 0.085, color),
            ball(f"{part}:{name}", bend, 0.085, color),
            cone(f"{part}:{name}", bend, tip, 0.085, 0.008, color),
        ]
    return solids


def horns(body: Body, character: Character, color: Array) -> list[Solid]:
    return horn_pair(
        body,
        character.shaded(palette.BONE) if character.look.metal != "iron" else character.shaded(palette.DARK),
        0.8,
        0.28,
    )


def headphones(body: Body, character: Character, color: Array) -> list[Solid]:
    w = width(body, character)
    cups = [
        cone(
            f"headphones:{n}",
            body.on_head(0, -0.05, 0) + (s * 0.92 * w, 0, 0),
            body.on_head(0, -0.05, 0) + (s * 1.18 * w, 0, 0),
            0.15,
            0.13,
            color,
        )
        for n, s in SIDES
    ]
    arc = np.linspace(-1.45, 1.45, 7)
    points = [body.on_head(0, 0.0, 0) + (1.10 * w * np.sin(a), 1.16 * w * np.cos(a), 0) for a in arc]
    return [*cups, *tube("headphones:band", points, 0.035, palette.DARK)]


def hair_bow(body: Body, character: Character, color: Array) -> list[Solid]:
    side = 1 if character.look.hair_side == "left" else -1
    knot = body.on_head(side * 0.80, 0.78, 0.45)
    loops = [cone("hair bow", knot, knot + (s * 0.19, 0.07, 0.02), 0.02, 0.13, color, 0.5) for s in (-1, 1)]
    return [*loops, ball("hair bow:knot", knot, 0.06, color * 0.8)]


def hair_flower(body: Body, character: Character, color: Array) -> list[Solid]:
    side = 1 if character.look.hair_side == "left" else -1
    middle = body.on_head(side * 0.92, 0.52, 0.55)
    turns = np.linspace(0, 2 * np.pi, 5, endpoint=False)
    petals = [ball("hair flower", middle + (0.085 * np.cos(a), 0.085 * np.sin(a), 0.0), 0.062, color) for a in turns]
    return [*petals, ball("hair flower:heart", middle + (0, 0, 0.045), 0.05, (1.0, 0.85, 0.35))]


def antennae(body: Body, character: Character, color: Array) -> list[Solid]:
    solids = []
    for name, side in SIDES:
        root, tip = body.on_head(side * 0.30, 0.72, 0.1), body.on_head(side * 0.62, 1.42, 0.1)
        solids += [
            cone(f"antennae:{name}", root, tip, 0.028, 0.020, palette.DARK),
            ball(f"antennae:{name} ball", tip, 0.075, color),
        ]
    return solids


def halo(body: Body, character: Character, color: Array) -> list[Solid]:
    middle = body.on_head(0, 1.42, -0.1)
    turns = np.linspace(0, 2 * np.pi, 13)
    return tube(
        "halo",
        [middle + (0.24 * np.cos(a), 0.03 * np.sin(a), 0.24 * np.sin(a)) for a in turns],
        0.026,
        (1.0, 0.90, 0.45),
    )


def goggles(body: Body, character: Character, color: Array) -> list[Solid]:
    """Pushed up on the forehead."""
    grow = grown(body, character, 1.03)
    band = ellipsoid(
        "goggles",
        body.on_head(0, 0.03, -0.03),
        body.radii * grow,
        palette.LEATHER,
        keep=lambda p: np.abs(p[..., 1] - 0.46) < 0.07,
    )
    cups = [
        ellipsoid(
            f"goggles:{n}",
            body.on_head(s * 0.34, 0.52, 0.86 * grow),
            body.radii * (0.27, 0.22, 0.16),
            banded_lens(color),
        )
        for n, s in SIDES
    ]
    return [band, *cups]


def banded_lens(color: Array) -> Paint:
    def paint(p: Array) -> Array:
        colors = np.broadcast_to(np.array(palette.DARK, np.float32), p.shape).copy()
        colors[p[..., 0] ** 2 + p[..., 1] ** 2 < 0.55] = 0.6 * color + 0.38
        return colors

    return paint


def one_earring(body: Body, character: Character, color: Array) -> list[Solid]:
    side = 1 if character.look.hair_side == "left" else -1
    return [earring(body, side, character.metal_color)]


HEAD_EXTRAS: dict[str, Make] = {
    "horns": horns,
    "headphones": headphones,
    "hair bow": hair_bow,
    "hair flower": hair_flower,
    "antennae": antennae,
    "halo": halo,
    "goggles": goggles,
    "earring": one_earring,
}


def head_extra(body: Body, character: Character) -> list[Solid]:
    make = HEAD_EXTRAS.get(character.head_extra)
    return make(body, character, character.dyed(character.look.accent)) if make else []


def shown_by(character: Character) -> Headwear:
    """What the headwear covers; nothing where there is none."""
    return HEADWEAR.get(character.headwear, Headwear(lambda *_: [], covers_top=False))
