"""What is held: one row for each thing, made along the way the hand points."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import palette
from .body import Body, flat_box
from .character import Character
from .solid import Array, Paint, Solid, ball, cone, ellipsoid, frame, tube, unit


@dataclass(frozen=True)
class Grip:
    """Where a hand is, which way a thing in it points, and which way its flat side looks."""

    hand: Array
    along: Array
    facing: Array
    size: float
    metal: Array
    wood: Array
    accent: Array

    def at(self, y: float, z: float = 0.0, x: float = 0.0) -> Array:
        across = np.cross(self.along, self.facing)
        return self.hand + self.size * (y * self.along + z * self.facing + x * across)


Make = Callable[[Grip], list[Solid]]


def blade(g: Grip, length: float, wide: float) -> list[Solid]:
    return [
        flat_box(
            "held:blade",
            g.at(0.10 + length / 2),
            g.size * np.array([wide, length / 2, 0.022]),
            g.metal,
            g.along,
            g.facing,
        ),
        ellipsoid(
            "held:blade", g.at(0.10 + length), g.size * np.array([wide, 0.16, 0.022]), g.metal, frame(g.along, g.facing)
        ),
        flat_box(
            "held:guard",
            g.at(0.10),
            g.size * np.array([2.3 * wide, 0.028, 0.035]),
            0.6 * g.accent + 0.15,
            g.along,
            g.facing,
        ),
        cone("held:grip", g.at(-0.14), g.at(0.10), 0.035 * g.size, 0.035 * g.size, g.wood),
    ]


def sword(g: Grip) -> list[Solid]:
    return [*blade(g, 0.72, 0.072), ball("held:guard", g.at(-0.16), 0.05 * g.size, 0.6 * g.accent + 0.15)]


def dagger(g: Grip) -> list[Solid]:
    return blade(g, 0.30, 0.062)


def staff(g: Grip) -> list[Solid]:
    shaft = cone("held:shaft", g.at(-0.72), g.at(0.78), 0.034 * g.size, 0.040 * g.size, g.wood)
    claw = [
        cone("held:shaft", g.at(0.76), g.at(0.98, x=s * 0.13), 0.03 * g.size, 0.015 * g.size, g.wood) for s in (-1, 1)
    ]
    return [shaft, *claw, ball("held:orb", g.at(0.94), 0.115 * g.size, g.accent)]


def wand(g: Grip) -> list[Solid]:
    middle = g.at(0.52)
    points = [
        cone(
            "held:star",
            middle,
            middle + 0.16 * g.size * (np.cos(a) * g.along + np.sin(a) * np.cross(g.along, g.facing)),
            0.085 * g.size,
            0.01,
            g.accent,
            0.4,
        )
        for a in np.linspace(0, 2 * np.pi, 5, endpoint=False)
    ]
    return [cone("held:shaft", g.at(-0.12), g.at(0.46), 0.026 * g.size, 0.026 * g.size, g.wood), *points]


def spear(g: Grip) -> list[Solid]:
    return [
        cone("held:shaft", g.at(-0.80), g.at(0.78), 0.030 * g.size, 0.030 * g.size, g.wood),
        cone("held:blade", g.at(0.76), g.at(1.06), 0.095 * g.size, 0.008, g.metal, 0.4),
        ball("held:guard", g.at(0.76), 0.055 * g.size, g.accent),
    ]


def axe(g: Grip) -> list[Solid]:
    return [
        cone("held:shaft", g.at(-0.30), g.at(0.62), 0.036 * g.size, 0.036 * g.size, g.wood),
        ellipsoid(
            "held:blade", g.at(0.50, x=0.13), g.size * np.array([0.17, 0.21, 0.03]), g.metal, frame(g.along, g.facing)
        ),
        flat_box("held:blade", g.at(0.50), g.size * np.array([0.10, 0.075, 0.045]), 0.8 * g.metal, g.along, g.facing),
    ]


def hammer(g: Grip) -> list[Solid]:
    return [
        cone("held:shaft", g.at(-0.30), g.at(0.58), 0.036 * g.size, 0.036 * g.size, g.wood),
        flat_box("held:head", g.at(0.56), g.size * np.array([0.24, 0.125, 0.125]), g.metal, g.along, g.facing),
        flat_box("held:guard", g.at(0.56), g.size * np.array([0.07, 0.14, 0.14]), 0.7 * g.accent, g.along, g.facing),
    ]


def bow(g: Grip) -> list[Solid]:
    """Bent towards where the hand points from; a string behind."""
    angles = np.linspace(-1.15, 1.15, 7)
    bends = [g.at(0.68 * np.sin(a), 0.0, -0.42 * np.cos(a) + 0.42) for a in angles]
    string = cone("held:string", bends[0], bends[-1], 0.012 * g.size, 0.012 * g.size, palette.PAPER)
    return [*tube("held:wood", bends, 0.036 * g.size, g.wood), string]


def crossbow(g: Grip) -> list[Solid]:
    """A stock with a bow across its end."""
    stock = flat_box("held:wood", g.at(0.20), g.size * np.array([0.055, 0.38, 0.065]), g.wood, g.along, g.facing)
    angles = np.linspace(-1.2, 1.2, 6)
    bends = [g.at(0.55 - 0.32 * (1 - np.cos(a)), 0.02, 0.46 * np.sin(a)) for a in angles]
    string = [
        cone("held:string", b, g.at(0.18, 0.03), 0.012 * g.size, 0.012 * g.size, palette.PAPER)
        for b in (bends[0], bends[-1])
    ]
    return [
        stock,
        *tube("held:steel", bends, 0.042 * g.size, g.metal),
        *string,
        ball("held:guard", g.at(0.02), 0.10 * g.size, 0.7 * g.wood),
    ]


def book(g: Grip) -> list[Solid]:
    return [
        flat_box("held:cover", g.at(0.16, 0.02), g.size * np.array([0.21, 0.27, 0.075]), g.accent, g.along, g.facing),
        flat_box(
            "held:pages",
            g.at(0.16, 0.02, 0.02),
            g.size * np.array([0.215, 0.245, 0.055]),
            palette.PAPER,
            g.along,
            g.facing,
        ),
        ball("held:seal", g.at(0.18, 0.085), 0.06 * g.size, palette.GOLD),
    ]


def shield_paint(color: Array, rim: Array) -> Paint:
    def paint(p: Array) -> Array:
        colors = np.broadcast_to(color, p.shape).copy()
        radius = p[..., 0] ** 2 + p[..., 1] ** 2
        colors[radius > 0.70] = rim
        colors[(np.abs(p[..., 0]) < 0.11) & (radius < 0.70)] = rim
        colors[radius < 0.05] = rim
        return colors

    return paint


def shield(g: Grip) -> list[Solid]:
    paint = shield_paint(g.accent, 0.85 * g.metal)
    return [
        ellipsoid(
            "held:shield", g.at(0.0, 0.10), g.size * np.array([0.36, 0.42, 0.085]), paint, frame(g.along, g.facing)
        )
    ]


def lantern(g: Grip) -> list[Solid]:
    low = g.hand - (0, 0.36 * g.size, 0)
    return [
        cone("held:lamp", low, low + (0, 0.22 * g.size, 0), 0.12 * g.size, 0.12 * g.size, (1.0, 0.88, 0.45)),
        cone(
            "held:frame",
            low + (0, 0.22 * g.size, 0),
            low + (0, 0.33 * g.size, 0),
            0.15 * g.size,
            0.03 * g.size,
            0.55 * g.metal,
        ),
        cone("held:frame", low - (0, 0.05 * g.size, 0), low, 0.15 * g.size, 0.14 * g.size, 0.55 * g.metal),
    ]


HELD: dict[str, Make] = {
    "sword": sword,
    "dagger": dagger,
    "axe": axe,
    "hammer": hammer,
    "polearm": spear,
    "staff": staff,
    "wand": wand,
    "bow (weapon)": bow,
    "crossbow": crossbow,
    "shield": shield,
    "book": book,
    "lantern": lantern,
}


def grip_of(body: Body, character: Character, name: str, pose: str) -> Grip:
    """Outwards along stretched arms, as modelled figures have it; else upwards and a little out."""
    side, arm = (1 if name == "left" else -1), body.arms[name]
    thing = character.held_left if name == "left" else character.held_right
    if pose == "t-pose":
        along, facing = np.array([side, 0.0, 0.06]), np.array([0.0, 1.0 if thing == "shield" else 0.0, 1.0])
        if thing in ("bow (weapon)", "book", "shield"):
            along = np.array([0.0, 1.0, 0.0]) if thing != "shield" else np.array([side, 0.0, 0.0])
    else:
        along, facing = np.array([side * 0.36, 0.90, 0.24]), np.array([side * 0.45, 0.0, 1.0])
    along = unit(along)
    facing = unit(facing - (facing @ along) * along)
    size = 0.38 + 0.44 * body.size
    look = character.look
    return Grip(
        arm.tip, along, facing, size, character.metal_color, character.shaded(palette.WOOD), character.dyed(look.accent)
    )


def held(body: Body, character: Character, pose: str) -> list[Solid]:
    solids = []
    for name, thing in (("left", character.held_left), ("right", character.held_right)):
        if thing == "none":
            continue
        for solid in HELD[thing](grip_of(body, character, name, pose)):
            solid.part = solid.part.replace("held:", f"held:{name} ")
            solids.append(solid)
    return solids
