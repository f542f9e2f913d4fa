"""Who she is: the attributes that have words, and the look that has none."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np

from . import palette

FOLDS = 8  # the world is cut into eighths by `fold`
HELD_OUT_FOLD = 0  # what the bench reports on
PRACTICE_FOLD = 1  # what presets may be tuned on
BANGS = ("zigzag", "straight", "swept", "parted")
EYE_KINDS = ("large", "round", "narrow", "dot")


@dataclass(frozen=True, kw_only=True)
class Look:
    """What no tag says: proportions, head shape, how the face is drawn."""

    head_width: float = 0.43
    head_height: float = 0.385
    head_depth: float = 0.40
    chin: float = 0.0  # 0 round, 1 a long jaw
    leg: float = 0.44
    torso: float = 0.37
    torso_width: float = 0.20
    limb: float = 1.0  # thickness
    arm: float = 1.0  # length
    hand: float = 0.068
    eye_kind: str = "large"
    eye_spacing: float = 0.46
    eye_width: float = 0.21
    eye_height: float = 0.30
    eye_drop: float = 0.14
    brows: bool = False
    nose: bool = False
    blush: bool = True
    bangs: str = "zigzag"
    volume: float = 1.10
    hair_length: float = 1.0
    hem: float = 1.0  # width of dresses and skirts
    long_sleeves: bool = False
    shoes: str = "brown"
    skin_shade: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Character:
    """One girl; every field but `look` is said by her feature tags."""

    hair: str
    hair_style: str
    eyes: str
    skin: str
    ears: str
    fur: str
    tail: str
    outfit: str
    outfit_color: str
    bottom: str
    bottom_color: str
    accessory: str
    accessory_color: str
    look: Look

    def to_dict(self) -> dict:
        return asdict(self)

    @staticmethod
    def from_dict(values: dict) -> "Character":
        return Character(**{**values, "look": Look(**values["look"])})


def pick(rng: np.random.Generator, values: Iterable[str], weights: Sequence[float] | None = None) -> str:
    return str(rng.choice(list(values), p=weights))


def sample_look(rng: np.random.Generator) -> Look:
    u = rng.uniform
    return Look(
        head_width=u(0.36, 0.46),
        head_height=u(0.35, 0.42),
        head_depth=u(0.36, 0.42),
        chin=max(0.0, u(-0.5, 1.0)),
        leg=u(0.30, 0.52),
        torso=u(0.32, 0.42),
        torso_width=u(0.17, 0.23),
        limb=u(0.85, 1.25),
        arm=u(0.9, 1.2),
        hand=u(0.06, 0.085),
        eye_kind=pick(rng, EYE_KINDS, (0.45, 0.25, 0.15, 0.15)),
        eye_spacing=u(0.40, 0.52),
        eye_width=u(0.18, 0.23),
        eye_height=u(0.24, 0.33),
        eye_drop=u(0.08, 0.22),
        brows=bool(rng.random() < 0.4),
        nose=bool(rng.random() < 0.3),
        blush=bool(rng.random() < 0.5),
        bangs=pick(rng, BANGS),
        volume=u(1.07, 1.15),
        hair_length=u(0.85, 1.1),
        hem=u(0.85, 1.15),
        long_sleeves=bool(rng.random() < 0.4),
        shoes=pick(rng, palette.SHOES, (0.5, 0.25, 0.15, 0.1)),
        skin_shade=u(-1.0, 1.0),
    )


def sample_any(rng: np.random.Generator) -> Character:
    """A character from the whole world, held out or not."""
    ears = pick(rng, palette.EARS)
    animal = ears.split()[0]
    has_tail = animal in ("fox", "cat") and rng.random() < 0.8
    accessories = [a for a in palette.ACCESSORIES if not (a == "hat" and ears == "rabbit ears")]
    outfit = pick(rng, palette.OUTFITS, (0.3, 0.2, 0.5))
    return Character(
        hair=pick(rng, palette.HAIR),
        hair_style=pick(rng, palette.HAIR_STYLES),
        eyes=pick(rng, palette.EYES),
        skin=pick(rng, palette.SKIN, (0.85, 0.15)),
        ears=ears,
        fur=pick(rng, palette.FUR),
        tail=f"{animal} tail" if has_tail else "none",
        outfit=outfit,
        outfit_color=pick(rng, palette.CLOTH),
        bottom=pick(rng, palette.BOTTOMS) if outfit == "shirt" else "none",
        bottom_color=pick(rng, palette.BOTTOM),
        accessory="none" if rng.random() < 0.35 else pick(rng, accessories),
        accessory_color=pick(rng, palette.TRINKET),
        look=sample_look(rng),
    )


def fold(character: Character) -> int:
    """Which eighth of the world she belongs to: THE rule of what is held out.

    It is a checksum over four attributes, so every value, and every pair of values, is seen in training,
    while one combination of the four in eight is never rendered for it (nor is the practice fold).
    """
    return (
        list(palette.HAIR).index(character.hair)
        + 3 * list(palette.CLOTH).index(character.outfit_color)
        + 5 * palette.EARS.index(character.ears)
        + palette.HAIR_STYLES.index(character.hair_style)
    ) % FOLDS


def is_for_training(character: Character) -> bool:
    return fold(character) not in (HELD_OUT_FOLD, PRACTICE_FOLD)


def is_held_out(character: Character) -> bool:
    return fold(character) == HELD_OUT_FOLD


def sample_where(rng: np.random.Generator, wanted: Callable[[Character], bool]) -> Character:
    while True:
        character = sample_any(rng)
        if wanted(character):
            return character


def sample_character(rng: np.random.Generator) -> Character:
    """A character that the base model may be trained on."""
    return sample_where(rng, is_for_training)


def sample_held_out(rng: np.random.Generator) -> Character:
    return sample_where(rng, is_held_out)


def held_out_characters(n: int) -> list[Character]:
    """Characters for the bench: nothing trains on them and nobody tunes for them."""
    rng = np.random.default_rng(1000)
    return [sample_held_out(rng) for _ in range(n)]


def practice_characters(n: int) -> list[Character]:
    """Characters that were not rendered for training either, free to tune presets on."""
    rng = np.random.default_rng(1001)
    return [sample_where(rng, lambda c: fold(c) == PRACTICE_FOLD) for _ in range(n)]


ATTRIBUTES = tuple(f.name for f in fields(Character) if f.name != "look")
