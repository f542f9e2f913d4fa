"""What is worn over and beside an outfit: capes, belts, bags, shoes, gloves, shoulder plates, and what nobody tags."""

from collections.abc import Callable

import numpy as np

from . import palette
from .body import Body, Limb, hand_size, robot_joints
from .character import Character
from .solid import Array, Keep, Paint, Solid, ball, box, cone, ellipsoid, frame, rotate_z, unit

Make = Callable[[Body, Character, Array], list[Solid]]


def sign(side: str) -> int:
    return 1 if side == "left" else -1


def cape_paint(cloth: Array, character: Character) -> Callable[[Array], Array]:
    """A darker lining inside, a hem if the look has one."""
    trim = character.dyed(character.look.trim_color)

    def paint(p: Array) -> Array:
        colors = np.broadcast_to(cloth, p.shape).copy()
        if character.look.trim == "plain":
            colors[p[..., 1] < -0.90] = trim
        return colors

    return paint


def ragged(character: Character) -> Keep:
    """Only the back half; its hem straight or torn."""
    torn = character.look.trim == "zigzag"

    def keep(p: Array) -> Array:
        behind = p[..., 2] < 0.10
        if not torn:
            return behind
        return behind & (p[..., 1] > -1 + 0.22 * np.abs((np.arctan2(p[..., 0], -p[..., 2]) * 2.4) % 1 - 0.5) * 2)

    return keep


def cape(body: Body, character: Character, cloth: Array) -> list[Solid]:
    """From the shoulders down the back."""
    hem = max(0.04, body.neck - 0.92 * character.look.cape_length * (body.neck - 0.3 * body.leg))
    fall = cone(
        "outer",
        (0, hem, -0.10),
        (0, body.neck - 0.02, -0.02),
        1.55 * body.width * character.look.flare,
        0.96 * body.width,
        cape_paint(cloth, character),
        0.80,
        capped=False,
        keep=ragged(character),
    )
    clasp = ball("clasp", (0, body.neck - 0.05, 0.80 * body.width), 0.045, character.shaded(palette.GOLD))
    roll = ellipsoid(
        "outer:collar", (0, body.neck - 0.035, -0.02), (1.0 * body.width, 0.055, 0.95 * body.width), 0.92 * cloth
    )
    return [fall, roll, clasp]


def cloak(body: Body, character: Character, cloth: Array) -> list[Solid]:
    """Around the shoulders and down to the calves, open in front."""
    hem = body.below(0.22)

    def keep(p: Array) -> Array:
        return np.abs(np.arctan2(p[..., 0], p[..., 2])) > 0.42 + 0.16 * (1 - p[..., 1])

    fall = cone(
        "outer",
        (0, hem, 0),
        (0, body.neck - 0.01, 0),
        1.66 * body.width,
        1.08 * body.width,
        cape_paint(cloth, character),
        0.94,
        False,
        keep,
    )
    clasp = ball("clasp", (0, body.neck - 0.05, 0.95 * body.width), 0.045, character.shaded(palette.GOLD))
    return [fall, clasp]


def capelet(body: Body, character: Character, cloth: Array) -> list[Solid]:
    """Over the shoulders only."""
    low = body.torso(0.45)
    return [
        cone(
            "outer",
            (0, low, 0),
            (0, body.neck + 0.01, 0),
            1.52 * body.width,
            0.72 * body.width,
            cape_paint(cloth, character),
            0.90,
        )
    ]


def scarf(body: Body, character: Character, cloth: Array) -> list[Solid]:
    """Its end hangs down on one side."""
    side = sign(character.look.hair_side)
    wrap = ellipsoid("outer", (0, body.neck - 0.01, 0), (0.98 * body.width, 0.095, 0.98 * body.width), cloth)
    start = np.array([side * 0.40 * body.width, body.neck - 0.04, 0.86 * body.width])
    return [
        wrap,
        cone("outer:end", start, start + (side * 0.04, -0.34 * (0.5 + body.size), 0.04), 0.06, 0.08, cloth, 0.5),
    ]


OUTER: dict[str, Make] = {"cape": cape, "cloak": cloak, "capelet": capelet, "scarf": scarf}


def outer(body: Body, character: Character) -> list[Solid]:
    make = OUTER.get(character.outer)
    return make(body, character, character.dyed(character.outer_color)) if make else []


def waist(body: Body, part: str, color: Array, low: float, high: float, wide: float = 1.20) -> Solid:
    return cone(
        part,
        (0, body.torso(low), 0),
        (0, body.torso(high), 0),
        wide * body.width,
        (wide - 0.02) * body.width,
        color,
        0.86,
    )


def belt(body: Body, character: Character, color: Array) -> list[Solid]:
    """With a buckle."""
    y = body.torso(0.06)
    buckle = box("buckle", (0, y, 1.03 * body.width), (0.26 * body.width, 0.055, 0.03), character.shaded(palette.GOLD))
    hole = box("buckle:hole", (0, y, 1.05 * body.width), (0.13 * body.width, 0.025, 0.03), color)
    return [waist(body, "belt", color, -0.02, 0.14), buckle, hole]


def belt_pouch(body: Body, character: Character, color: Array) -> list[Solid]:
    side = sign(character.look.strap)
    at = (side * 1.10 * body.width, body.torso(-0.06), 0.42 * body.width)
    pouch = box("pouch", at, (0.10, 0.085, 0.07), 1.15 * color, rotate_z(0))
    flap = box("pouch:flap", (at[0], at[1] + 0.05, at[2] + 0.015), (0.105, 0.038, 0.07), 0.8 * color)
    return [*belt(body, character, color), pouch, flap]


def sash(body: Body, character: Character, color: Array) -> list[Solid]:
    """Tied at one hip."""
    cloth, side = character.dyed(character.look.accent), sign(character.look.strap)
    knot = np.array([side * 0.9 * body.width, body.torso(0.02), 0.62 * body.width])
    end = cone("belt:end", knot, knot + (side * 0.06, -0.22 * (0.5 + body.size), 0.03), 0.035, 0.075, cloth, 0.5)
    return [waist(body, "belt", cloth, -0.06, 0.20), end]


def slung(body: Body, side: int, color: Array, part: str) -> Solid:
    """A strap from the other shoulder down to this hip."""

    def keep(p: Array) -> Array:
        return (np.abs(p[..., 1] + 0.05 + 0.95 * side * p[..., 0]) < 0.16) & (p[..., 1] > -0.95)

    return cone(
        part,
        (0, body.torso(-0.02), 0),
        (0, body.neck + 0.02, 0),
        1.16 * body.width,
        1.03 * body.width,
        color,
        0.86,
        False,
        keep,
    )


def shoulder_bag(body: Body, character: Character, color: Array) -> list[Solid]:
    side = sign(character.look.strap)
    at = (side * 1.22 * body.width, body.torso(-0.10), 0.10)
    bag = box("bag", at, (0.075, 0.13, 0.13), 1.1 * color)
    return [
        slung(body, side, color, "strap"),
        bag,
        box("bag:flap", (at[0] + side * 0.012, at[1] + 0.06, 0.10), (0.075, 0.07, 0.135), 0.82 * color),
    ]


def bandolier(body: Body, character: Character, color: Array) -> list[Solid]:
    side = sign(character.look.strap)
    studs = [
        ball(
            "strap:stud",
            (-side * k * 0.62 * body.width, body.torso(0.48 + 0.30 * k), 0.95 * body.width),
            0.035,
            character.metal_color,
        )
        for k in (-0.7, 0.0, 0.7)
    ]
    return [slung(body, side, color, "strap"), waist(body, "belt", color, -0.02, 0.10), *studs]


BELTS: dict[str, Make] = {
    "belt": belt,
    "belt pouch": belt_pouch,
    "sash": sash,
    "shoulder bag": shoulder_bag,
    "bandolier": bandolier,
}


def belts(body: Body, character: Character) -> list[Solid]:
    make = BELTS.get(character.belt)
    return make(body, character, character.dyed(character.look.belt_color)) if make else []


def shoe_toes(body: Body, character: Character, leg: Limb, name: str, color: Array, part: str) -> Solid:
    """Pointing the way the shin's foot points: forwards, or upwards when seated."""
    size = character.look.foot * (0.04 + 0.32 * body.width)
    forward = np.array([0.0, 0.30, 0.95]) if body.seated else np.array([0.06, 0.0, 1.0])
    centre = leg.tip + 0.30 * size * unit(forward)
    return ellipsoid(
        f"{part}:{name}",
        centre + (0, 0.01, 0),
        (0.84 * size, 0.64 * size, 1.25 * size),
        color,
        frame((0, 1, 0), forward),
    )


def footwear(body: Body, character: Character) -> list[Solid]:
    kind, skin = character.footwear, character.skin_color
    if kind == "barefoot":
        color = 0.5 * skin if character.species == "robot" else skin
        return [shoe_toes(body, character, leg, name, color, "feet") for name, leg in body.legs.items()]
    color = character.dyed(character.footwear_color)
    solids: list[Solid] = []
    for name, leg in body.legs.items():
        toes = shoe_toes(body, character, leg, name, color, "footwear")
        solids.append(toes)
        if kind in ("boots", "thigh boots"):
            top = leg.at(0.30) if kind == "thigh boots" else leg.joint + 0.15 * (leg.tip - leg.joint)
            solids += bootleg(character, leg, name, top, color)
        if kind == "sandals":
            toes.paint = strapped(color, skin)
            sole = (0.05 + 0.24 * body.width, 0.03, 0.07 + 0.30 * body.width)
            solids.append(ellipsoid(f"footwear:{name}", leg.tip + (0, -0.045, 0.035), sole, color))
    return solids


def bootleg(character: Character, leg: Limb, name: str, top: Array, color: Array) -> list[Solid]:
    """The shaft of a boot, with a cuff where the clothes have a hem."""
    shaft = cone(f"footwear:{name}", leg.tip, top, 1.14 * leg.thick, 1.20 * leg.thick, color)
    if character.look.trim == "none":
        return [shaft]
    near = top + 0.22 * (leg.tip - top)
    cuff = 0.75 * color + 0.12
    return [shaft, cone(f"footwear:{name} cuff", near, top, 1.26 * leg.thick, 1.30 * leg.thick, cuff)]


def strapped(strap: Array, skin: Array) -> Paint:
    """A bare foot with a strap over it and a sole."""

    def paint(p: Array) -> Array:
        covered = (np.abs(p[..., 2] - 0.25) < 0.22) | (p[..., 1] < -0.35)
        return np.where(covered[..., None], strap, skin)

    return paint


def handwear(body: Body, character: Character) -> list[Solid]:
    kind, color = character.handwear, character.dyed(character.handwear_color)
    if kind == "none":
        return []
    solids: list[Solid] = []
    for name, arm in body.arms.items():
        wrist, up = arm.at(0.93), arm.at(0.66 if kind != "gloves" else 0.82)
        wide = {"gloves": 1.02, "gauntlets": 1.24, "bracers": 1.12}[kind]
        solids.append(cone(f"handwear:{name}", wrist, up, wide * arm.thick, 1.10 * wide * arm.thick, color))
        if kind != "bracers":
            solids.append(ball(f"handwear:{name}", arm.tip, 1.10 * hand_size(body, character), color))
    return solids


def shoulders(body: Body, character: Character) -> list[Solid]:
    """Plates on both shoulders, or on one."""
    if character.shoulders == "none":
        return []
    steel = character.metal_color if character.outfit != "armor" else character.dyed(character.outfit_color)
    worn = ("left", "right") if character.shoulders == "pauldrons" else (character.look.pauldron,)
    solids = []
    for name in worn:
        arm, side = body.arms[name], sign(name)
        middle = arm.root + (side * 0.02, 0.05, 0)
        r = 0.05 + 1.28 * arm.thick
        solids += [
            ellipsoid(
                f"pauldron:{name}",
                middle,
                (1.15 * r, 0.95 * r, 1.15 * r),
                steel,
                rotate_z(-side * 18),
                keep=lambda p: p[..., 1] > -0.15,
            ),
            ellipsoid(
                f"pauldron:{name} rim", middle, (1.20 * r, 0.16 * r, 1.20 * r), 0.75 * steel, rotate_z(-side * 18)
            ),
        ]
    return solids


def star(x: Array, y: Array) -> Array:
    angle, radius = np.arctan2(x, y), np.hypot(x, y)
    return radius < 0.52 + 0.44 * (2 * np.abs((angle * 5 / (2 * np.pi)) % 1 - 0.5)) ** 1.6


EMBLEMS: dict[str, Callable[[Array, Array], Array]] = {  # within the unit square, y upwards
    "disc": lambda x, y: x * x + y * y < 0.72,
    "diamond": lambda x, y: np.abs(x) + np.abs(y) < 0.95,
    "cross": lambda x, y: (np.abs(x) < 0.30) & (np.abs(y) < 0.95) | (np.abs(y) < 0.30) & (np.abs(x) < 0.95),
    "star": star,
    "chevron": lambda x, y: (np.abs(y - 0.35 + 0.9 * np.abs(x)) < 0.30) & (np.abs(x) < 0.95),
    "triangle": lambda x, y: (y > -0.75) & (y < 0.85 - 1.8 * np.abs(x)),
}


def emblem(body: Body, character: Character) -> list[Solid]:
    """Simple geometry in one or two colours, on chest or back, just above the cloth."""
    look = character.look
    if look.emblem == "none":
        return []
    towards = 1 if look.emblem_place == "chest" else -1
    r = 0.62 * body.width
    middle = np.array([0.0, body.torso(0.60), 0.0])
    reach = 0.5 * (body.neck - body.hip) + 0.02
    over_cape = look.emblem_place == "back" and character.outer in ("cape", "cloak")
    grow = (
        1.60
        if over_cape
        else 1.26
        if character.outfit in ("armor", "jacket", "hoodie", "sweater", "coat", "breastplate")
        else 1.16
    )

    def shaped(shape: Callable[[Array, Array], Array], size: float) -> Keep:
        def keep(p: Array) -> Array:
            x, y = p[..., 0] * grow * body.width / (r * size), p[..., 1] * reach / (r * size)
            return shape(x, y) & (p[..., 2] * towards > 0)

        return keep

    def patch(part: str, color: Array, shape: Callable[[Array, Array], Array], size: float, lift: float) -> Solid:
        w = (grow + lift) * body.width
        return cone(
            part, middle - (0, reach, 0), middle + (0, reach, 0), w, 0.88 * w, color, 0.84, False, shaped(shape, size)
        )

    solids = [patch("emblem", character.dyed(look.emblem_color), EMBLEMS[look.emblem], 1.0, 0.02)]
    if look.emblem_ground != "none":
        solids.append(patch("emblem:ground", character.dyed(look.emblem_ground), EMBLEMS["disc"], 1.45, 0.0))
    return solids


def stripe(body: Body, character: Character) -> list[Solid]:
    """A band around one sleeve."""
    name = character.look.stripe
    if name == "none":
        return []
    arm = body.arms[name]
    wide = 1.20 * arm.thick
    return [cone(f"stripe:{name}", arm.at(0.26), arm.at(0.42), wide, wide, character.dyed(character.look.stripe_color))]


def joints(body: Body, character: Character) -> list[Solid]:
    return robot_joints(body, character) if character.species == "robot" else []
