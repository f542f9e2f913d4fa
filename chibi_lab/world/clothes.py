"""What is worn on the body: one row for each outfit and bottom, one small function that makes its torso."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import palette
from .body import BUILDS, Body, arms, legs
from .character import Character
from .solid import Array, Paint, Solid, Vector, cone, ellipsoid

Make = Callable[[Body, Character, Array], list[Solid]]


@dataclass(frozen=True)
class Outfit:
    """`sleeves` overrules the look; `skirted` outfits need no bottom and leave the legs bare."""

    make: Make
    skirted: bool = False
    sleeves: str | None = None
    weights: tuple[float, float] = (1.0, 1.0)  # how often a woman and a man wear it


def trim_color(character: Character) -> Array:
    """Of hems and collars, never the colour of the cloth."""
    same = character.look.trim_color == character.outfit_color
    return character.dyed(
        "white" if same and character.outfit_color != "white" else "grey" if same else character.look.trim_color
    )


def torso(
    body: Body, color: Vector | Paint, low: float = -0.08, wide: float = 1.06, top: float = 0.90, part: str = "outfit"
) -> list[Solid]:
    """From a height below the hip (in torso heights) to the neck, and its shoulders."""
    y = max(0.04, body.torso(low))
    neck = body.neck
    return [
        cone(part, (0, y, 0), (0, neck - 0.04, 0), wide * body.width, top * body.width, color, 0.82),
        ellipsoid(part, (0, neck - 0.045, 0), (top * body.width, 0.05 + 0.10 * body.width, 0.80 * body.width), color),
    ]


def cloth_paint(character: Character, cloth: Array) -> Paint:
    """The collar and the hem that nobody tags."""
    look, trim, skin = character.look, trim_color(character), character.skin_color

    def paint(p: Array) -> Array:
        colors = np.broadcast_to(cloth, p.shape).copy()
        x, y, front = p[..., 0], p[..., 1], p[..., 2] > 0
        if look.trim == "plain":
            colors[y < -0.80] = trim
        elif look.trim == "zigzag":
            colors[y < -0.62 + 0.20 * np.abs((np.arctan2(x, p[..., 2]) * 2.6) % 1 - 0.5) * 2] = trim
        if look.collar == "v-neck":
            depth = y - 0.42
            colors[front & (np.abs(x) < 0.80 * depth + 0.10) & (depth > -0.12)] = trim
            colors[front & (np.abs(x) < 0.80 * depth - 0.06)] = skin
        elif look.collar == "round":
            colors[front & ((x / 0.45) ** 2 + ((y - 1.0) / 0.42) ** 2 < 1)] = trim
        return colors

    return paint


def collar(body: Body, character: Character) -> list[Solid]:
    if character.look.collar != "high":
        return []
    low, high = (0, body.neck - 0.06, 0), (0, body.neck + 0.05, 0)
    return [cone("collar", low, high, 0.82 * body.width, 0.66 * body.width, trim_color(character), 0.9)]


def shirt(body: Body, character: Character, cloth: Array) -> list[Solid]:
    return [*torso(body, cloth_paint(character, cloth)), *collar(body, character)]


def tunic(body: Body, character: Character, cloth: Array) -> list[Solid]:
    """Over the hips, a little flared."""
    return [*torso(body, cloth_paint(character, cloth), -0.45, 1.22 * character.look.flare), *collar(body, character)]


def dress(body: Body, character: Character, cloth: Array) -> list[Solid]:
    hem, waist = (0, body.below(0.52), 0), (0, body.torso(0.35), 0)
    flare = 1.72 * body.width * character.look.flare
    gown = cone("outfit", hem, waist, flare, 0.86 * body.width, hem_paint(character, cloth), 0.9)
    return [gown, *torso(body, cloth_paint(character, cloth), 0.25, 0.88, 0.86), *collar(body, character)]


def hem_paint(character: Character, cloth: Array) -> Paint:
    """Skirts have a hem but no collar."""
    look, trim = character.look, trim_color(character)

    def paint(p: Array) -> Array:
        colors = np.broadcast_to(cloth, p.shape).copy()
        if look.trim == "plain":
            colors[p[..., 1] < -0.78] = trim
        elif look.trim == "zigzag":
            colors[p[..., 1] < -0.72 + 0.30 * np.abs((np.arctan2(p[..., 0], p[..., 2]) * 2.6) % 1 - 0.5) * 2] = trim
        return colors

    return paint


def robe(body: Body, character: Character, cloth: Array) -> list[Solid]:
    """To the ground, as mages wear it."""
    low = cone(
        "outfit",
        (0, 0.05, 0),
        (0, body.torso(0.3), 0),
        1.36 * body.width * character.look.flare,
        body.width,
        hem_paint(character, cloth),
        0.9,
    )
    return [low, *torso(body, cloth_paint(character, cloth), 0.2, 1.0), *collar(body, character)]


def kimono(body: Body, character: Character, cloth: Array) -> list[Solid]:
    """A straight robe to the ankles with a broad sash and a crossed collar."""
    trim, width = trim_color(character), body.width
    paint = crossed_collar(cloth, trim, character.skin_color)
    gown = cone("outfit", (0, 0.10, 0), (0, body.neck, 0), 1.18 * width, 0.88 * width, paint, 0.85)
    low, high = body.torso(-0.04), body.torso(0.34)
    return [gown, cone("sash", (0, low, 0), (0, high, 0), 1.12 * width, 1.06 * width, 0.5 * cloth + 0.08, 0.88)]


def crossed_collar(cloth: Array, trim: Array, skin: Array) -> Paint:
    def paint(p: Array) -> Array:
        colors = np.broadcast_to(cloth, p.shape).copy()
        x, front, depth = p[..., 0], p[..., 2] > 0, p[..., 1] - 0.45
        colors[front & (np.abs(x) < 0.75 * depth + 0.12) & (depth > -0.1)] = trim
        colors[front & (np.abs(x) < 0.75 * depth - 0.05)] = skin
        colors[p[..., 1] < -0.88] = trim
        return colors

    return paint


def opened(character: Character, cloth: Array, under: Array, gap: float) -> Paint:
    """Open in front, over a shirt."""
    trim = trim_color(character)

    def paint(p: Array) -> Array:
        colors = np.broadcast_to(cloth, p.shape).copy()
        x, front = np.abs(p[..., 0]), p[..., 2] > 0
        colors[front & (x < gap + 0.10)] = 0.82 * cloth
        colors[front & (x < gap)] = under
        if character.look.trim != "none":
            colors[p[..., 1] < -0.86] = trim
        return colors

    return paint


def jacket(body: Body, character: Character, cloth: Array) -> list[Solid]:
    return torso(body, opened(character, cloth, trim_color(character), 0.30), -0.10, 1.12, 0.95) + collar(
        body, character
    )


def vest(body: Body, character: Character, cloth: Array) -> list[Solid]:
    """Without sleeves: those are of the shirt under it."""
    return torso(body, opened(character, cloth, trim_color(character), 0.34), -0.04, 1.10, 0.92)


def coat(body: Body, character: Character, cloth: Array) -> list[Solid]:
    """A jacket to the knees."""
    y = body.below(0.45)
    skirt = cone(
        "outfit",
        (0, y, 0),
        (0, body.torso(0.4), 0),
        1.36 * body.width,
        1.02 * body.width,
        opened(character, cloth, 0.7 * cloth, 0.16),
        0.9,
    )
    return [
        skirt,
        *torso(body, opened(character, cloth, trim_color(character), 0.24), 0.2, 1.05, 0.95),
        *collar(body, character),
    ]


def hoodie(body: Body, character: Character, cloth: Array) -> list[Solid]:
    """With a pocket, strings, and its hood down."""

    def paint(p: Array) -> Array:
        colors = np.broadcast_to(cloth, p.shape).copy()
        x, y, front = np.abs(p[..., 0]), p[..., 1], p[..., 2] > 0
        colors[front & (x < 0.62 + 0.4 * y) & (y < -0.18) & (y > -0.66)] = 0.78 * cloth
        colors[front & (np.abs(x - 0.16) < 0.035) & (y > 0.35)] = trim_color(character)
        return colors

    down = ellipsoid(
        "outfit:hood",
        (0, body.neck, -0.85 * body.depth),
        (0.85 * body.width, 0.10, 0.10 + 0.2 * body.width),
        0.88 * cloth,
    )
    ring = ellipsoid(
        "outfit:hood", (0, body.neck - 0.02, 0), (0.88 * body.width, 0.075, 0.86 * body.width), 0.88 * cloth
    )
    return [*torso(body, paint, -0.12, 1.14, 0.96), down, ring]


def sweater(body: Body, character: Character, cloth: Array) -> list[Solid]:
    """Striped or plain, with a rolled collar."""
    other = trim_color(character)

    def paint(p: Array) -> Array:
        colors = np.broadcast_to(cloth, p.shape).copy()
        if character.look.trim != "none":
            colors[np.abs(p[..., 1] - 0.05) < 0.14] = other
        colors[p[..., 1] < -0.84] = 0.85 * cloth
        return colors

    roll = ellipsoid("collar", (0, body.neck, 0), (0.72 * body.width, 0.06, 0.70 * body.width), 0.9 * cloth)
    return [*torso(body, paint, -0.10, 1.12, 0.96), roll]


def tank_top(body: Body, character: Character, cloth: Array) -> list[Solid]:
    skin = character.skin_color

    def paint(p: Array) -> Array:
        colors = np.broadcast_to(cloth, p.shape).copy()
        x, y = np.abs(p[..., 0]), p[..., 1]
        colors[(y > 0.62) & (x < 0.42)] = skin
        colors[(y > 0.62) & (x > 0.68)] = skin
        return colors

    chest, shoulders = torso(body, paint)
    return [chest, ellipsoid("skin:shoulders", shoulders.centre, shoulders.radii, skin)]


def armor(body: Body, character: Character, cloth: Array) -> list[Solid]:
    """A cuirass with a ridge, and a skirt of plates."""
    plate = body.torso(0.02)
    paint = plate_paint(cloth)
    skirt = cone(
        "outfit:skirt",
        (0, max(0.05, body.torso(-0.30)), 0),
        (0, plate + 0.02, 0),
        1.24 * body.width,
        1.06 * body.width,
        lamellar(0.82 * cloth),
        0.86,
    )
    neck = cone(
        "outfit:gorget",
        (0, body.neck - 0.07, 0),
        (0, body.neck + 0.03, 0),
        0.86 * body.width,
        0.66 * body.width,
        0.8 * cloth,
        0.9,
    )
    return [*torso(body, paint, 0.0, 1.08, 0.98), skirt, neck]


def plate_paint(cloth: Array) -> Paint:
    def paint(p: Array) -> Array:
        colors = np.broadcast_to(cloth, p.shape).copy()
        x, y, front = np.abs(p[..., 0]), p[..., 1], p[..., 2] > 0
        colors[front & (x < 0.05)] = 0.72 * cloth
        colors[np.abs(y + 0.42) < 0.05] = 0.72 * cloth
        colors[front & (np.abs(y - 0.35 + 0.25 * x) < 0.05) & (x < 0.8)] = np.minimum(1, 1.18 * cloth)
        return colors

    return paint


def lamellar(cloth: Array) -> Paint:
    def paint(p: Array) -> Array:
        colors = np.broadcast_to(cloth, p.shape).copy()
        colors[np.abs((np.arctan2(p[..., 0], p[..., 2]) * 1.9) % 1 - 0.5) > 0.44] = 0.66 * cloth
        return colors

    return paint


def breastplate(body: Body, character: Character, cloth: Array) -> list[Solid]:
    """Steel over a coloured tunic."""
    steel = character.metal_color
    plate = ellipsoid(
        "breastplate",
        (0, body.torso(0.58), 0.14 * body.depth),
        (0.98 * body.width, 0.42 * (body.neck - body.hip), 0.95 * body.depth),
        plate_paint(steel),
    )
    return [*torso(body, cloth_paint(character, cloth), -0.40, 1.18, 0.90), plate]


def leather_armor(body: Body, character: Character, cloth: Array) -> list[Solid]:
    """Laced, with studs, over a shirt of the trim's colour."""

    def paint(p: Array) -> Array:
        colors = np.broadcast_to(cloth, p.shape).copy()
        x, y, front = np.abs(p[..., 0]), p[..., 1], p[..., 2] > 0
        colors[front & (x < 0.11)] = 0.6 * cloth
        colors[front & (np.abs(x - 0.05 - 0.06 * np.abs((y * 3) % 1 - 0.5)) < 0.035)] = 0.4 * cloth + 0.5
        colors[front & ((x * 3.4 % 1 - 0.5) ** 2 + (y * 2.8 % 1 - 0.5) ** 2 < 0.030) & (x > 0.25)] = np.minimum(
            1, 0.5 * cloth + 0.4
        )
        return colors

    flaps = cone(
        "outfit:flaps",
        (0, max(0.05, body.torso(-0.34)), 0),
        (0, body.torso(0.0), 0),
        1.20 * body.width,
        1.04 * body.width,
        lamellar(0.86 * cloth),
        0.86,
    )
    return [*torso(body, paint, -0.02, 1.07, 0.92), flaps]


def uniform(body: Body, character: Character, cloth: Array) -> list[Solid]:
    """Two rows of buttons, a high collar and a belt line."""
    gold = character.shaded(palette.GOLD)

    def paint(p: Array) -> Array:
        colors = np.broadcast_to(cloth, p.shape).copy()
        x, y, front = np.abs(p[..., 0]), p[..., 1], p[..., 2] > 0
        colors[front & (x < 0.025)] = 0.7 * cloth
        colors[front & (((x - 0.30) / 0.085) ** 2 + ((y * 2.6 % 1 - 0.5) / 0.22) ** 2 < 1) & (y > -0.5)] = gold
        if character.look.trim != "none":
            colors[y < -0.86] = trim_color(character)
        return colors

    band = cone(
        "collar",
        (0, body.neck - 0.06, 0),
        (0, body.neck + 0.05, 0),
        0.80 * body.width,
        0.68 * body.width,
        0.75 * trim_color(character) + 0.1,
        0.9,
    )
    return [*torso(body, paint, -0.22, 1.12, 0.95), band]


def overalls(body: Body, character: Character, cloth: Array) -> list[Solid]:
    """A bib and straps over a shirt of the trim's colour; trousers of the same cloth."""
    shirt_color = trim_color(character)

    def paint(p: Array) -> Array:
        colors = np.broadcast_to(shirt_color, p.shape).copy()
        x, y, front = np.abs(p[..., 0]), p[..., 1], p[..., 2] > 0
        colors[y < -0.38] = cloth
        colors[front & (x < 0.52) & (y < 0.30)] = cloth
        colors[np.abs(x - 0.46) < 0.11] = cloth
        colors[front & (x < 0.30) & (np.abs(y + 0.02) < 0.16)] = 0.82 * cloth
        colors[front & ((x - 0.44) ** 2 + (y - 0.26) ** 2 < 0.008)] = (0.95, 0.82, 0.35)
        return colors

    return torso(body, paint)


def apron(body: Body, character: Character, cloth: Array) -> list[Solid]:
    """In front of a dark dress, tied behind."""
    under, w = under_apron(character), body.width

    def in_front(p: Array) -> Array:
        return (np.abs(p[..., 0]) < 0.64) & (p[..., 2] > 0)

    low, middle, high = (0, body.below(0.48), 0), (0, body.torso(0.4), 0), (0, body.neck - 0.08, 0)
    gown = cone("shirt", (0, body.below(0.42), 0), middle, 1.5 * w, 0.9 * w, under, 0.9)
    skirt = cone("outfit", low, middle, 1.52 * w, 0.96 * w, cloth, 0.9, False, in_front)
    bib = cone("outfit", middle, high, 0.98 * w, 0.94 * w, cloth, 0.84, False, in_front)
    knot = ellipsoid("outfit:knot", (0, body.torso(0.36), -0.92 * w), (0.55 * w, 0.12, 0.06), cloth)
    return [gown, *torso(body, under, 0.3, 0.92, 0.88, "shirt"), skirt, bib, knot]


def under_apron(character: Character) -> Array:
    return 0.55 * trim_color(character) + 0.05


OUTFITS: dict[str, Outfit] = {
    "shirt": Outfit(shirt, weights=(1.4, 1.6)),
    "tank top": Outfit(tank_top, sleeves="none", weights=(0.5, 0.7)),
    "tunic": Outfit(tunic, weights=(0.9, 1.3)),
    "sweater": Outfit(sweater, sleeves="long", weights=(0.8, 0.8)),
    "hoodie": Outfit(hoodie, sleeves="long", weights=(0.7, 0.9)),
    "jacket": Outfit(jacket, sleeves="long", weights=(0.8, 1.1)),
    "vest": Outfit(vest, weights=(0.6, 1.2)),
    "coat": Outfit(coat, sleeves="long", weights=(0.7, 0.9)),
    "dress": Outfit(dress, skirted=True, weights=(2.2, 0.0)),
    "robe": Outfit(robe, skirted=True, sleeves="long", weights=(0.7, 0.9)),
    "kimono": Outfit(kimono, skirted=True, sleeves="long", weights=(0.9, 0.5)),
    "apron": Outfit(apron, skirted=True, weights=(0.6, 0.2)),
    "overalls": Outfit(overalls, weights=(0.6, 0.8)),
    "military uniform": Outfit(uniform, sleeves="long", weights=(0.7, 0.8)),
    "armor": Outfit(armor, sleeves="long", weights=(0.9, 1.4)),
    "breastplate": Outfit(breastplate, weights=(0.6, 0.8)),
    "leather armor": Outfit(leather_armor, weights=(0.6, 0.9)),
}
UNDER_SLEEVES = ("vest", "overalls", "apron", "leather armor")  # whose sleeves are those of what is worn beneath


def sleeve_color(character: Character, cloth: Array) -> Array:
    if character.outfit == "apron":
        return under_apron(character)
    return trim_color(character) if character.outfit in UNDER_SLEEVES else cloth


def clothed(body: Body, character: Character) -> list[Solid]:
    """Torso, arms, and legs with what is worn on them."""
    if character.species == "robot" and character.outfit == "none":
        return robot_body(body, character)
    cloth, row = character.dyed(character.outfit_color), OUTFITS[character.outfit]
    sleeves = row.sleeves or character.look.sleeves
    under = character.outfit in UNDER_SLEEVES
    sleeved = arms(body, character, sleeve_color(character, cloth), sleeves, "shirt" if under else "outfit")
    return [*sleeved, *row.make(body, character, cloth), *below(body, character, cloth), *neck(body, character)]


def neck(body: Body, character: Character) -> list[Solid]:
    low, high = (0, body.neck - 0.05, 0), body.on_head(0, -0.6, 0)
    return [cone("skin:neck", low, high, 0.45 * body.width, 0.42 * body.width, 0.93 * character.skin_color)]


def below(body: Body, character: Character, cloth: Array) -> list[Solid]:
    """The legs."""
    if character.outfit == "overalls":
        return [seat(body, cloth, "outfit"), *(recalled(legs(body, character, cloth, "long")))]
    if character.bottom == "none":
        return legs(body, character, cloth, "bare")
    color = character.dyed(character.bottom_color)
    if character.bottom == "skirt":
        flare = 1.55 * body.width * character.look.flare
        skirt = cone("bottom", (0, body.below(0.55), 0), (0, body.torso(0.12), 0), flare, 0.98 * body.width, color, 0.9)
        return [skirt, *legs(body, character, color, "bare")]
    length = "long" if character.bottom == "pants" else "short"
    return [seat(body, color, "bottom"), *legs(body, character, color, length)]


def recalled(solids: list[Solid]) -> list[Solid]:
    """Legs that belong to the outfit, not to a bottom of their own."""
    for solid in solids:
        solid.part = solid.part.replace("bottom", "outfit")
    return solids


def seat(body: Body, color: Vector, part: str) -> Solid:
    return ellipsoid(
        part, (0, body.hip + 0.01, 0), (1.03 * body.width, 0.06 + 0.22 * body.width, 0.84 * body.width), color
    )


def robot_body(body: Body, character: Character) -> list[Solid]:
    """Plates of metal, a dark belt, and a panel on the chest."""
    color = character.dyed(character.body_color)
    dark, lamp = 0.45 * color, character.dyed(character.look.accent)
    broad = BUILDS[character.look.build]
    chest = torso(body, color, 0.12, 0.90, 1.06, "body")
    hips = ellipsoid(
        "body:hips", (0, body.hip + 0.02, 0), (0.95 * body.width, 0.05 + 0.22 * body.width, 0.80 * body.width), dark
    )
    belt = cone(
        "body:belt",
        (0, body.torso(0.06), 0),
        (0, body.torso(0.22), 0),
        0.92 * body.width,
        0.94 * body.width,
        dark,
        0.84,
    )
    middle = (0, body.torso(0.62), 0.80 * body.width)
    panel = [
        ellipsoid("body:panel", middle, (0.46 * body.width, 0.44 * body.width, 0.06 * broad), dark),
        ellipsoid(
            "body:lamp",
            (0, body.torso(0.62), 0.84 * body.width),
            (0.24 * body.width, 0.24 * body.width, 0.06 * broad),
            lamp,
        ),
    ]
    neck = cone(
        "joint:neck", (0, body.neck - 0.05, 0), body.on_head(0, -0.6, 0), 0.5 * body.width, 0.5 * body.width, dark
    )
    limbs = arms(body, character, color, "long", "body") + legs(body, character, 0.9 * color, "long")
    for solid in limbs:
        solid.part = solid.part.replace("bottom", "body")
    return [*chest, hips, belt, *panel, neck, *limbs]
