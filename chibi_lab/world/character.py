"""Who a character is: the attributes that have words, and the look that has none."""

from dataclasses import asdict, dataclass, field

import numpy as np

from . import palette
from .palette import Color, toned

Array = np.ndarray


@dataclass(frozen=True, kw_only=True)
class Look:
    """What no tag says. Sides are the character's own: "left" is at the viewer's right in a picture from the front."""

    heads: float = 2.1  # heads tall
    head_size: float = 1.0
    head_shape: str = "round"
    build: str = "average"
    limb: float = 1.0  # thickness
    arm: float = 1.0  # length
    hand: float = 1.0
    foot: float = 1.0
    eye_kind: str = "large"
    eye_spacing: float = 0.46
    eye_size: float = 1.0
    eye_drop: float = 0.12
    lashes: bool = False
    brows: str = "none"
    nose: str = "none"
    blush: bool = False
    freckles: bool = False
    fringe: str = "zigzag"
    volume: float = 1.10
    hair_length: float = 1.0
    hair_side: str = "left"  # of whatever hangs, or is worn, on one side of the head
    flare: float = 1.0  # width of dresses, skirts and robes
    sleeves: str = "long"
    collar: str = "none"
    trim: str = "none"
    trim_color: str = "white"
    emblem: str = "none"
    emblem_place: str = "chest"
    emblem_color: str = "yellow"
    emblem_ground: str = "none"  # the colour of a disc under it
    stripe: str = "none"  # which sleeve has a band
    stripe_color: str = "white"
    accent: str = "red"  # of small things: gems, bows, headphones, covers of books
    metal: str = "steel"
    belt_color: str = "brown"
    cape_length: float = 1.0
    pauldron: str = "left"  # the shoulder that bears a single one
    patch: str = "left"  # the eye of a patch or a scar
    strap: str = "left"  # the hip at which a bag or a pouch hangs
    pupils: int = 2  # eyes of a robot
    tone: str = "plain"
    skin_shade: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Character:
    """One character; every field but `look` is said by tags."""

    who: str = "1girl"
    age: str = "adult"
    species: str = "human"
    skin: str = "light"
    body_color: str = "blue"  # of a robot
    fur: str = "brown"  # of animal ears and tails, and of a furry's whole body
    hair: str = "brown"
    hair_style: str = "short hair"
    facial_hair: str = "none"
    eyes: str = "blue"
    ears: str = "none"
    tail: str = "none"
    face: str = "none"  # something on the face
    headwear: str = "none"
    headwear_color: str = "red"
    head_extra: str = "none"
    outfit: str = "shirt"
    outfit_color: str = "red"
    bottom: str = "pants"
    bottom_color: str = "blue"
    outer: str = "none"
    outer_color: str = "red"
    belt: str = "none"
    footwear: str = "shoes"
    footwear_color: str = "brown"
    handwear: str = "none"
    handwear_color: str = "brown"
    shoulders: str = "none"
    held_left: str = "none"
    held_right: str = "none"
    look: Look = field(default_factory=Look)

    def to_dict(self) -> dict:
        return asdict(self)

    @staticmethod
    def from_dict(values: dict) -> "Character":
        return Character(**{**values, "look": Look(**values["look"])})

    def dyed(self, word: str, table: dict[str, Color] = palette.CLOTH) -> Array:
        """A colour of the table, as this character's tone gives it."""
        return toned(table[word], self.look.tone)

    def shaded(self, color: Color) -> Array:
        return toned(color, self.look.tone)

    @property
    def skin_color(self) -> Array:
        """Of face and limbs, whatever they are made of."""
        if self.species == "robot":
            return self.dyed(self.body_color)
        if self.species == "furry":
            return self.dyed(self.fur, palette.FUR)
        if self.species == "skeleton":
            return self.shaded(palette.BONE)
        return np.clip(self.dyed(self.skin, palette.SKIN) + 0.035 * self.look.skin_shade, 0, 1)

    @property
    def metal_color(self) -> Array:
        return self.shaded({"steel": palette.METAL, "gold": palette.GOLD, "iron": (0.42, 0.44, 0.48)}[self.look.metal])

    @property
    def holds(self) -> tuple[str, ...]:
        """What is held, each thing once."""
        return tuple(dict.fromkeys(thing for thing in (self.held_left, self.held_right) if thing != "none"))
