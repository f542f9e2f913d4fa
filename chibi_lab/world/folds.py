"""Which characters nothing may learn from: THE rule of what is held out.

The world is cut into eighths by a checksum over attributes, so that every value, and every pair of values, is seen in
training, while one combination in eight is never rendered for it. Pairs of outfit and headwear are cut in the same
way: those of a fold that is kept back are seen in none of the others.
"""

from collections.abc import Callable, Collection

import numpy as np

from . import palette
from .character import Character
from .clothes import OUTFITS
from .hair import HAIR_STYLES
from .headwear import HEADWEAR
from .people import HeadwearOf, sample_any

FOLDS = 8
HELD_OUT = 0  # what the bench reports on
PRACTICE = 1  # what presets may be tuned on
RESERVED = 2  # what nothing here is tuned on either: for whoever checks this work later
KEPT_BACK = (HELD_OUT, PRACTICE, RESERVED)
LEARNED = tuple(fold for fold in range(FOLDS) if fold not in KEPT_BACK)

CLOTH, HAIR, SPECIES_SKIN = tuple(palette.CLOTH), tuple(palette.HAIR), (*palette.SKIN, *palette.FUR)
OUTFIT_NAMES, HEADWEAR_NAMES, STYLE_NAMES = (*OUTFITS, "none"), tuple(HEADWEAR), tuple(HAIR_STYLES)


def fold(character: Character) -> int:
    """Which eighth of the world a character belongs to."""
    c = character
    return (
        HAIR.index(c.hair)
        + 3 * CLOTH.index(c.outfit_color if c.outfit != "none" else c.body_color)
        + 5 * STYLE_NAMES.index(c.hair_style)
        + 7 * OUTFIT_NAMES.index(c.outfit)
        + CLOTH.index(c.footwear_color)
        + 7
    ) % FOLDS


def pair_fold(character: Character) -> int | None:
    """The eighth of outfit and headwear together; none where no headwear is worn."""
    if character.headwear == "none":
        return None
    return fold_of_pair(character.outfit, character.headwear)


def fold_of_pair(outfit: str, headwear: str) -> int:
    return (OUTFIT_NAMES.index(outfit) + 3 * HEADWEAR_NAMES.index(headwear)) % FOLDS


def headwear_in(folds: Collection[int]) -> HeadwearOf:
    """What is worn on the head in these folds: so hats are as frequent in each of them as in the world."""
    return lambda outfit: [name for name in HEADWEAR_NAMES if fold_of_pair(outfit, name) in folds]


def belongs(character: Character, kept_back: int) -> bool:
    return fold(character) == kept_back and pair_fold(character) in (None, kept_back)


def is_for_training(character: Character) -> bool:
    return fold(character) not in KEPT_BACK and pair_fold(character) not in KEPT_BACK


def is_held_out(character: Character) -> bool:
    return belongs(character, HELD_OUT)


def sample_where(rng: np.random.Generator, wanted: Callable[[Character], bool], folds: Collection[int]) -> Character:
    headwear_of = headwear_in(folds)
    while True:
        character = sample_any(rng, headwear_of)
        if wanted(character):
            return character


def sample_character(rng: np.random.Generator) -> Character:
    """A character that the base, the reader and the judge may be trained on."""
    return sample_where(rng, is_for_training, LEARNED)


def sample_held_out(rng: np.random.Generator) -> Character:
    return sample_where(rng, is_held_out, (HELD_OUT,))


def several(n: int, seed: int, kept_back: int) -> list[Character]:
    rng = np.random.default_rng(seed)
    return [sample_where(rng, lambda c: belongs(c, kept_back), (kept_back,)) for _ in range(n)]


def held_out_characters(n: int) -> list[Character]:
    """Characters for the bench: nothing trains on them and nobody tunes for them."""
    return several(n, 1000, HELD_OUT)


def practice_characters(n: int) -> list[Character]:
    """Characters that were not rendered for training either, free to tune presets on."""
    return several(n, 1001, PRACTICE)


def reserved_characters(n: int) -> list[Character]:
    """Characters that nobody here has looked at; for a later check."""
    return several(n, 1002, RESERVED)
