"""The measures of her body, and its skin: head, arms, legs."""

from dataclasses import dataclass

import numpy as np

from . import palette
from .character import Character
from .face import face_paint
from .shot import Shot
from .solid import Array, Solid, ball, cone, ellipsoid

SIDES = (("left", -1), ("right", 1))


@dataclass(frozen=True)
class Body:
    """Where things are; the ground is y = 0, she looks along +z."""

    hip: float
    neck: float
    width: float  # of the torso, from its middle
    head: np.ndarray  # centre
    radii: np.ndarray  # of the head
    limb: float

    @property
    def top(self) -> float:
        return float(self.head[1] + self.radii[1])

    def on_head(self, x: float, y: float, z: float) -> np.ndarray:
        """A point given in head radii from its centre."""
        return self.head + self.radii * (x, y, z)

    def foot(self, side: int, stride: float) -> np.ndarray:
        return np.array([side * (0.04 + 0.40 * self.width), 0.07, side * stride])

    def leg_top(self, side: int) -> np.ndarray:
        return np.array([side * 0.52 * self.width, self.hip, 0.0])


def body_of(character: Character) -> Body:
    look = character.look
    neck = look.leg + look.torso
    radii = np.array([look.head_width, look.head_height, look.head_depth])
    head = np.array([0.0, neck + 0.84 * radii[1], 0.0])
    return Body(look.leg, neck, look.torso_width, head, radii, look.limb)


def skin_color(character: Character) -> np.ndarray:
    shade = 0.03 if character.skin == "light" else 0.07
    return np.clip(np.array(palette.SKIN[character.skin]) + shade * character.look.skin_shade, 0, 1)


def hand_offset(character: Character, shot: Shot, side: int) -> np.ndarray:
    """From shoulder to hand."""
    raised = shot.arms == "arms up" or (shot.arms == "waving" and side == 1)
    if raised:
        offset = (side * 0.29, 0.18, 0.05)
    elif shot.arms == "outstretched arms":
        offset = (side * 0.36, 0.02, 0.03)
    else:
        offset = (side * 0.20, -0.25, 0.03 - side * 0.5 * shot.stride)
    return character.look.arm * np.array(offset)


def shoulder(body: Body, side: int) -> np.ndarray:
    return np.array([side * 0.82 * body.width, body.neck - 0.07, 0.0])


def head(body: Body, character: Character, shot: Shot) -> list[Solid]:
    skin = skin_color(character)
    solids = [ellipsoid("skin:head", body.head, body.radii, face_paint(character, shot, skin))]
    if character.look.chin > 0.15:
        radii = body.radii * (0.62, 0.55, 0.62)
        paint = face_paint(character, shot, skin, (0.62, 0.55, 0.62), -0.42 - 0.12 * character.look.chin)
        solids.append(ellipsoid("skin:head", body.on_head(0, -0.42 - 0.12 * character.look.chin, 0.12), radii, paint))
    return solids


def arms(body: Body, character: Character, shot: Shot, sleeve: Array) -> list[Solid]:
    """Upper arm in the sleeve's colour, forearm in skin unless sleeves are long."""
    skin = skin_color(character)
    forearm = sleeve if character.look.long_sleeves else skin
    thick = body.limb * 0.075
    solids = []
    for name, side in SIDES:
        a = shoulder(body, side)
        b = a + hand_offset(character, shot, side)
        elbow = a + 0.60 * (b - a)
        solids += [
            ball(f"outfit:{name} sleeve", a, thick, sleeve),
            cone(f"outfit:{name} sleeve", a, elbow, thick, thick * 1.12, sleeve),
            cone(
                "skin:" + name if forearm is skin else f"outfit:{name} sleeve",
                elbow,
                b,
                0.8 * thick,
                0.72 * thick,
                forearm,
                capped=False,
            ),
            ball(f"skin:{name}", b, character.look.hand, skin),
        ]
    return solids


def legs(body: Body, character: Character, shot: Shot, color: Array) -> list[Solid]:
    shoes = palette.SHOES[character.look.shoes]
    part = "bottom" if character.bottom == "pants" else "skin"
    wide = 1.2 if part == "bottom" else 1.0
    solids = []
    for name, side in SIDES:
        foot = body.foot(side, shot.stride)
        thick = 0.088 * body.limb * wide
        solids.append(cone(f"{part}:{name} leg", foot, body.leg_top(side), 0.9 * thick, thick, color))
        toes = foot + (side * 0.01, -0.01, 0.035)
        solids.append(ellipsoid(f"shoe:{name}", toes, (0.10 * body.limb, 0.07, 0.145), shoes))
    return solids
