"""What she wears on her body."""

import numpy as np

from . import palette
from .body import Body, arms, legs, skin_color
from .character import Character
from .shot import Shot
from .solid import Array, Paint, Solid, cone, ellipsoid


def contrast(color: str) -> Array:
    """A trim that shows on the cloth."""
    return np.array((0.55, 0.62, 0.85) if color == "white" else (0.97, 0.97, 0.97), np.float32)


def hemmed(cloth: Array, trim: Array) -> Paint:
    def paint(p: Array) -> Array:
        colors = np.broadcast_to(cloth, p.shape).copy()
        colors[p[..., 1] < -0.80] = trim
        return colors

    return paint


def crossed_collar(cloth: Array, trim: Array, skin: Array) -> Paint:
    """The kimono's V at the neck, and the line down its front."""

    def paint(p: Array) -> Array:
        colors = np.broadcast_to(cloth, p.shape).copy()
        x, y, front = p[..., 0], p[..., 1], p[..., 2] > 0
        depth = y - 0.45
        colors[front & (np.abs(x) < 0.75 * depth + 0.12) & (depth > -0.1)] = trim
        colors[front & (np.abs(x) < 0.75 * depth - 0.05)] = skin
        colors[p[..., 1] < -0.88] = trim
        return colors

    return paint


def outfit(body: Body, character: Character, shot: Shot) -> list[Solid]:
    cloth = np.array(palette.CLOTH[character.outfit_color], np.float32)
    sleeved = arms(body, character, shot, cloth)
    wear = {"dress": dress, "kimono": kimono, "shirt": shirt}[character.outfit]
    return sleeved + wear(body, character, shot, cloth)


def dress(body: Body, character: Character, shot: Shot, cloth: Array) -> list[Solid]:
    hem = (0, 0.52 * body.hip, 0)
    paint = hemmed(cloth, contrast(character.outfit_color))
    gown = cone(
        "outfit", hem, (0, body.neck, 0), 1.75 * body.width * character.look.hem, 0.62 * body.width, paint, flat=0.9
    )
    return [gown, *legs(body, character, shot, skin_color(character))]


def kimono(body: Body, character: Character, shot: Shot, cloth: Array) -> list[Solid]:
    """A straight robe to the ankles with a broad sash."""
    trim, width = contrast(character.outfit_color), body.width
    paint = crossed_collar(cloth, trim, skin_color(character))
    robe = cone("outfit", (0, 0.12, 0), (0, body.neck, 0), 1.18 * width, 0.85 * width, paint, flat=0.85)
    low, high = body.hip - 0.02, body.hip + 0.13
    sash = cone("sash", (0, low, 0), (0, high, 0), 1.10 * width, 1.06 * width, 0.45 * cloth + 0.1 * trim, flat=0.88)
    return [robe, sash, *legs(body, character, shot, skin_color(character))]


def shirt(body: Body, character: Character, shot: Shot, cloth: Array) -> list[Solid]:
    width, color = body.width, np.array(palette.BOTTOM[character.bottom_color], np.float32)
    torso = cone("outfit", (0, body.hip - 0.04, 0), (0, body.neck, 0), 1.05 * width, 0.85 * width, cloth, flat=0.8)
    if character.bottom == "pants":
        seat = ellipsoid("bottom", (0, body.hip - 0.02, 0), (1.02 * width, 0.10, 0.80 * width), color)
        return [torso, seat, *legs(body, character, shot, color)]
    flare = 1.70 * width * character.look.hem
    skirt = cone("bottom", (0, 0.55 * body.hip, 0), (0, body.hip + 0.06, 0), flare, 0.98 * width, color, flat=0.9)
    return [torso, skirt, *legs(body, character, shot, skin_color(character))]
