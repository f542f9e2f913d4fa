"""The measures of a body in a pose, and its skin: head, arms, legs."""

from dataclasses import dataclass, replace

import numpy as np

from .character import Character
from .pose import POSES, Bend
from .solid import Array, Solid, Vector, ball, box, cone, frame, unit

LEFT, RIGHT = ("left", 1), ("right", -1)  # the character looks along +z and has her left at +x
SIDES = (LEFT, RIGHT)
BUILDS = {"slim": 0.84, "average": 1.0, "broad": 1.26}


@dataclass(frozen=True)
class Limb:
    """Shoulder, elbow and hand; or hip, knee and foot."""

    root: Array
    joint: Array
    tip: Array
    thick: float

    def at(self, share: float) -> Array:
        """A point on the way from root to tip."""
        if share < 0.5:
            return self.root + 2 * share * (self.joint - self.root)
        return self.joint + (2 * share - 1) * (self.tip - self.joint)


@dataclass(frozen=True)
class Body:
    """Where things are; the ground is y = 0."""

    hip: float
    neck: float
    width: float  # of the torso, from its middle
    depth: float
    head: Array  # centre
    radii: Array  # of the head
    size: float  # of the body below the head, as a measure for what is worn and held
    leg: float
    arms: dict[str, Limb]
    legs: dict[str, Limb]
    seated: bool

    @property
    def top(self) -> float:
        return float(self.head[1] + self.radii[1])

    def on_head(self, x: float, y: float, z: float) -> Array:
        """A point given in head radii from its centre."""
        return self.head + self.radii * (x, y, z)

    def torso(self, share: float) -> float:
        """A height: 0 at the hip, 1 at the neck."""
        return self.hip + share * (self.neck - self.hip)

    def below(self, share: float) -> float:
        """A height: 0 at the ground, 1 at the hip."""
        return max(0.03, share * self.hip)


def body_of(character: Character, pose: str = "standing", raised: str = "left") -> Body:
    """`raised` is the hand that waves."""
    look, posed = character.look, POSES[pose]
    head_radius = 0.40 * look.head_size * (1 - 0.12 * (look.heads - 2.0))
    shape = HEAD_SHAPES[look.head_shape]
    radii = head_radius * np.array(shape.radii)
    below = look.heads * 2 * head_radius - 1.86 * head_radius  # the head sinks a little into the neck
    leg, torso = 0.50 * below, 0.50 * below
    hip = 0.13 if posed.seated else leg
    width = (0.17 + 0.085 * below) * BUILDS[look.build]
    neck = hip + torso
    head = np.array([0.0, neck + 0.82 * radii[1], 0.0])
    body = Body(hip, neck, width, 0.82 * width, head, radii, below, leg, {}, {}, posed.seated)
    arms, legs = {}, {}
    bony = 0.62 if character.species == "skeleton" else 1.0
    for name, side in SIDES:
        arm, thigh = posed.limbs(name, raised)
        reach = look.arm * 0.43 * (0.25 + 0.85 * below)
        root = np.array([side * (0.86 * width), neck - 0.085 * (0.5 + below), 0.0])
        arms[name] = limb(root, arm, side, reach, 0.37 * width**0.9 * look.limb * bony)
        hip_joint = np.array([side * 0.50 * width, hip, 0.0])
        legs[name] = limb(hip_joint, thigh, side, leg - 0.06, 0.44 * width**0.95 * look.limb * bony)
    return replace(body, arms=arms, legs=legs)


def limb(root: Array, bend: Bend, side: int, length: float, thick: float) -> Limb:
    out = np.array([side, 1, 1])
    joint = root + 0.5 * length * unit(np.array(bend.upper)) * out
    return Limb(root, joint, joint + 0.5 * length * unit(np.array(bend.lower)) * out, thick)


@dataclass(frozen=True)
class HeadShape:
    """Radii of the skull, and of a jaw below it: (width, height, depth, drop), all in radii of the head."""

    radii: tuple[float, float, float]
    jaw: tuple[float, float, float, float] | None = None
    solid: str = "ellipsoid"


HEAD_SHAPES = {
    "round": HeadShape((1.0, 0.96, 0.96)),
    "wide": HeadShape((1.12, 0.90, 0.98)),
    "tall": HeadShape((0.90, 1.04, 0.92)),
    "square": HeadShape((0.98, 0.98, 0.94), (0.86, 0.55, 0.84, 0.40)),
    "pointed": HeadShape((1.0, 0.94, 0.94), (0.56, 0.52, 0.60, 0.54)),
    "box": HeadShape((0.84, 0.78, 0.74), None, "box"),
    "dome": HeadShape((0.92, 0.92, 0.90), None, "dome"),
}


def arms(body: Body, character: Character, cloth: Vector, sleeves: str, part: str = "outfit") -> list[Solid]:
    """Arms in sleeves as long as they are, hands at the end."""
    skin = character.skin_color
    solids: list[Solid] = []
    for name, arm in body.arms.items():
        upper = cloth if sleeves != "none" else skin
        lower = cloth if sleeves == "long" else skin
        upper_part = f"{part}:{name} sleeve" if sleeves != "none" else f"skin:{name} arm"
        lower_part = f"{part}:{name} sleeve" if sleeves == "long" else f"skin:{name} arm"
        wide = 1.16 if sleeves == "long" else 1.0
        solids += [
            ball(upper_part, arm.root, 1.02 * arm.thick, upper),
            cone(upper_part, arm.root, arm.joint, arm.thick, 1.06 * arm.thick, upper),
            ball(lower_part, arm.joint, 0.92 * arm.thick, lower),
            cone(lower_part, arm.joint, arm.tip, 0.90 * arm.thick, 0.78 * wide * arm.thick, lower),
            ball(f"skin:{name} hand", arm.tip, hand_size(body, character), skin),
        ]
    return solids


def hand_size(body: Body, character: Character) -> float:
    return character.look.hand * (0.026 + 0.23 * body.width)


def legs(body: Body, character: Character, cloth: Vector, length: str) -> list[Solid]:
    """Bare, in shorts, or in trousers."""
    skin = character.skin_color
    solids: list[Solid] = []
    for name, leg in body.legs.items():
        upper, lower = (cloth if length != "bare" else skin), (cloth if length == "long" else skin)
        wide = 1.12 if length != "bare" else 0.94
        upper_part = f"bottom:{name} leg" if length != "bare" else f"skin:{name} leg"
        lower_part = f"bottom:{name} leg" if length == "long" else f"skin:{name} leg"
        solids += [
            cone(upper_part, leg.root, leg.joint, wide * leg.thick, 0.98 * wide * leg.thick, upper),
            ball(lower_part, leg.joint, 0.86 * leg.thick, lower),
            cone(lower_part, leg.joint, leg.tip, 0.92 * leg.thick, 0.86 * leg.thick, lower),
        ]
    return solids


def robot_joints(body: Body, character: Character) -> list[Solid]:
    """Dark balls at elbows and knees, and discs at the shoulders."""
    dark = 0.42 * character.skin_color
    joints = [
        ball(f"joint:{name}{kind}", limb.joint, 1.12 * limb.thick, dark)
        for kind, limbs in (("elbow", body.arms), ("knee", body.legs))
        for name, limb in limbs.items()
    ]
    discs = [
        ball(f"joint:{name} shoulder", arm.root, 1.2 * arm.thick, 0.85 * character.skin_color)
        for name, arm in body.arms.items()
    ]
    return joints + discs


def flat_box(part: str, centre: Vector, radii: Vector, color: Vector, along: Vector, facing: Vector) -> Solid:
    """A box whose height goes `along` and whose depth looks `facing`."""
    return box(part, centre, radii, color, frame(along, facing))
