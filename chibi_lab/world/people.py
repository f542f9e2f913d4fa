"""Who lives in the world: tables of what goes with what, and the sampling of characters from them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from . import palette
from .beast import EARS, TAILS
from .character import Character, Look
from .clothes import OUTFITS
from .face import EYE_KINDS
from .hair import FRINGES, HAIR_STYLES
from .headwear import HEAD_EXTRAS, HEADWEAR
from .held import HELD
from .shot import pick
from .wear import BELTS, EMBLEMS, OUTER

MAX_EXTRAS = 7  # things beside hair, eyes, outfit, bottom and shoes: the text encoder reads 75 tokens

SPECIES = {"human": 0.68, "elf": 0.06, "furry": 0.07, "robot": 0.08, "skeleton": 0.04, "zombie": 0.03, "orc": 0.04}
AGES = {"adult": 0.74, "child": 0.13, "old": 0.13}
SKINS = {"light": 0.44, "tan": 0.22, "dark skin": 0.22, "very dark skin": 0.12}
ODD_SKINS = {"zombie": ("green skin", "grey skin", "blue skin"), "orc": ("green skin", "grey skin")}
FACES = ("glasses", "sunglasses", "eyepatch", "scar", "facepaint", "mask")
FACIAL_HAIR = ("beard", "long beard", "mustache", "goatee", "stubble")
FOOTWEAR = {"shoes": 0.38, "boots": 0.40, "thigh boots": 0.06, "sandals": 0.08, "barefoot": 0.08}
HANDWEAR = {"none": 0.70, "gloves": 0.16, "gauntlets": 0.06, "bracers": 0.08}
SHOULDERS = {"none": 0.84, "pauldrons": 0.09, "single pauldron": 0.07}
SIDES = ("left", "right")
BOTTOMS = ("pants", "skirt", "shorts")
HeadwearOf = Callable[[str], Sequence[str]]  # outfit -> what may be worn with it on the head
WHO = ("1girl", "1boy", "1other")
METAL_COLORS = ("grey", "grey", "black", "yellow", "white", "blue", "red")
EXTRAS = (
    "face",
    "facial_hair",
    "ears",
    "tail",
    "headwear",
    "head_extra",
    "outer",
    "belt",
    "handwear",
    "shoulders",
    "held_left",
    "held_right",
)


def maybe(rng: np.random.Generator, share: float, values: Iterable[str]) -> str:
    return pick(rng, values) if rng.random() < share else "none"


def keys(rng: np.random.Generator, table: dict[str, float]) -> str:
    return pick(rng, table, tuple(table.values()))


def sample_look(rng: np.random.Generator, who: str, age: str, species: str) -> Look:
    girl = who == "1girl"
    return Look(
        **build(rng, girl, age, species),
        **face_look(rng, girl, species),
        **hair_look(rng, girl),
        **clothes_look(rng),
        tone=pick(rng, palette.TONES, (0.3, 0.45, 0.25)),
        skin_shade=rng.uniform(-1.0, 1.0),
    )


def build(rng: np.random.Generator, girl: bool, age: str, species: str) -> dict[str, Any]:
    u = rng.uniform
    heads = {"child": u(1.75, 2.3), "adult": min(4.0, 1.9 + rng.gamma(1.6, 0.42)), "old": u(1.9, 3.0)}[age]
    if species == "robot":
        shape = pick(rng, ("box", "dome"), (0.6, 0.4))
    else:
        weights = (0.36, 0.18, 0.16, 0.06 if girl else 0.20, 0.20 if girl else 0.10)
        shape = pick(rng, ("round", "wide", "tall", "square", "pointed"), weights)
    return {
        "heads": float(heads),
        "head_size": u(0.95, 1.06),
        "head_shape": shape,
        "build": pick(rng, ("slim", "average", "broad"), (0.3, 0.5, 0.2) if girl else (0.2, 0.45, 0.35)),
        "limb": u(0.88, 1.22),
        "arm": u(0.92, 1.15),
        "hand": u(0.85, 1.35),
        "foot": u(0.9, 1.25),
    }


def face_look(rng: np.random.Generator, girl: bool, species: str) -> dict[str, Any]:
    u = rng.uniform
    kinds = [kind for kind in EYE_KINDS if kind != "socket"]
    return {
        "eye_kind": "socket" if species == "skeleton" else pick(rng, kinds, (0.28, 0.20, 0.13, 0.24, 0.15)),
        "eye_spacing": u(0.38, 0.52),
        "eye_size": u(0.85, 1.12),
        "eye_drop": u(0.06, 0.20),
        "lashes": bool(rng.random() < (0.45 if girl else 0.03)),
        "brows": pick(rng, ("none", "thin", "thick", "angry"), (0.35, 0.35, 0.15, 0.15)),
        "nose": pick(rng, ("none", "dot", "big"), (0.45, 0.25, 0.30)),
        "blush": bool(rng.random() < 0.3),
        "freckles": bool(rng.random() < 0.08),
        "pupils": int(rng.integers(0, 3)),
        "patch": pick(rng, SIDES),
    }


def hair_look(rng: np.random.Generator, girl: bool) -> dict[str, Any]:
    return {
        "fringe": pick(rng, FRINGES, (1.0, 0.9, 0.9, 0.9, 0.9, 0.3 if girl else 1.0, 0.3 if girl else 0.6)),
        "volume": rng.uniform(1.06, 1.14),
        "hair_length": rng.uniform(0.85, 1.12),
        "hair_side": pick(rng, SIDES),
    }


def clothes_look(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "flare": rng.uniform(0.85, 1.15),
        "sleeves": pick(rng, ("none", "short", "long"), (0.12, 0.40, 0.48)),
        "collar": pick(rng, ("none", "v-neck", "round", "high"), (0.4, 0.25, 0.2, 0.15)),
        "trim": pick(rng, ("none", "plain", "zigzag"), (0.45, 0.38, 0.17)),
        "trim_color": pick(rng, palette.CLOTH),
        "emblem": maybe(rng, 0.22, EMBLEMS),
        "emblem_place": pick(rng, ("chest", "back"), (0.6, 0.4)),
        "emblem_color": pick(rng, palette.CLOTH),
        "emblem_ground": maybe(rng, 0.5, palette.CLOTH),
        "stripe": maybe(rng, 0.14, SIDES),
        "stripe_color": pick(rng, palette.CLOTH),
        "accent": pick(rng, palette.CLOTH),
        "metal": pick(rng, ("steel", "gold", "iron"), (0.6, 0.2, 0.2)),
        "belt_color": pick(rng, ("brown", "black", "grey", "red"), (0.6, 0.25, 0.08, 0.07)),
        "cape_length": rng.uniform(0.7, 1.15),
        "pauldron": pick(rng, SIDES),
        "strap": pick(rng, SIDES),
    }


def any_headwear(outfit: str) -> Sequence[str]:
    return tuple(HEADWEAR)


def sample_any(rng: np.random.Generator, headwear_of: HeadwearOf = any_headwear) -> Character:
    """A character from the whole world, of any fold; `headwear_of` says what goes with an outfit."""
    while True:
        character = consistent(rng, rolled(rng, headwear_of))
        if sum(getattr(character, name) != "none" for name in EXTRAS) <= MAX_EXTRAS:
            return character


def rolled(rng: np.random.Generator, headwear_of: HeadwearOf) -> Character:
    """Each attribute for itself, by its table."""
    species = keys(rng, SPECIES)
    who = "1other" if species in ("robot", "skeleton") and rng.random() < 0.7 else pick(rng, WHO[:2])
    age = "adult" if species in ("robot", "skeleton", "orc") else keys(rng, AGES)
    sex = 0 if who == "1girl" else 1
    outfits = {name: row.weights[sex] for name, row in OUTFITS.items()}
    hairs = {name: cut.weights[sex] for name, cut in HAIR_STYLES.items()}
    hair = pick(rng, ("grey", "white")) if age == "old" and rng.random() < 0.85 else pick(rng, palette.HAIR)
    outfit = "none" if species == "robot" else keys(rng, outfits)
    return Character(
        who=who,
        age=age,
        species=species,
        skin=pick(rng, ODD_SKINS[species]) if species in ODD_SKINS else keys(rng, SKINS),
        body_color=pick(rng, palette.CLOTH),
        fur=pick(rng, palette.FUR),
        hair=hair,
        hair_style=keys(rng, hairs),
        facial_hair=maybe(rng, 0.42 if age == "old" else 0.28, FACIAL_HAIR)
        if who == "1boy" and age != "child"
        else "none",
        eyes=pick(rng, palette.EYES, (0.24, 0.18, 0.14, 0.12, 0.11, 0.10, 0.11)),
        ears=maybe(rng, 0.16, EARS),
        tail="none",
        face=maybe(rng, 0.22, FACES),
        headwear=maybe(rng, 0.42, headwear_of(outfit)),
        headwear_color=pick(rng, palette.CLOTH),
        head_extra=maybe(rng, 0.20, HEAD_EXTRAS),
        outfit=outfit,
        outfit_color=pick(rng, METAL_COLORS) if outfit == "armor" else pick(rng, palette.CLOTH),
        bottom="none"
        if outfit == "none" or OUTFITS[outfit].skirted
        else pick(rng, BOTTOMS, (0.45, 0.35, 0.20) if who == "1girl" else (0.68, 0.0, 0.32)),
        bottom_color=pick(rng, palette.CLOTH),
        outer=maybe(rng, 0.28, OUTER),
        outer_color=pick(rng, palette.CLOTH),
        belt=maybe(rng, 0.36, BELTS),
        footwear=keys(rng, FOOTWEAR),
        footwear_color=pick(rng, palette.CLOTH, (0.06, 0.04, 0.05, 0.06, 0.07, 0.05, 0.05, 0.28, 0.17, 0.09, 0.08)),
        handwear=keys(rng, HANDWEAR),
        handwear_color=pick(rng, palette.CLOTH, (0.06, 0.04, 0.05, 0.06, 0.07, 0.05, 0.05, 0.28, 0.17, 0.09, 0.08)),
        shoulders=keys(rng, SHOULDERS),
        held_left=maybe(rng, 0.24, HELD),
        held_right=maybe(rng, 0.24, HELD),
        look=sample_look(rng, who, age, species),
    )


def consistent(rng: np.random.Generator, character: Character) -> Character:
    """What cannot be, or could not be seen, is taken away."""
    for rule in RULES:
        character = rule(rng, character)
    return character


def of_its_kind(rng: np.random.Generator, c: Character) -> Character:
    """What a species always has, and never has."""
    if c.species == "furry":
        face = c.face if c.face in ("eyepatch", "glasses") else "none"
        return replace(c, hair_style="bald", facial_hair="none", face=face, ears=pick(rng, EARS))
    if c.species in ("elf", "orc"):
        return replace(c, ears="pointy ears")
    if c.species == "skeleton":
        return replace(c, hair_style="bald", facial_hair="none", face="none", ears="none")
    if c.species == "robot":
        c = replace(c, hair_style="bald", facial_hair="none", face="none", ears="none")
        is_bare = c.look.head_shape == "box" or rng.random() < 0.4  # hats are round
        return replace(c, footwear="barefoot", handwear="none", headwear="none" if is_bare else c.headwear)
    return c


def tail_by_ears(rng: np.random.Generator, c: Character) -> Character:
    animal = c.ears.split()[0]
    if animal in ("fox", "cat", "rabbit"):
        return replace(c, tail=f"{animal} tail" if rng.random() < 0.8 else "none")
    if c.species in ("orc", "human") and c.ears == "none" and rng.random() < 0.03:
        return replace(c, tail="dragon tail")
    return c


def clothes_together(rng: np.random.Generator, c: Character) -> Character:
    """No two things in the same place."""
    if c.outfit == "overalls":
        c = replace(c, bottom="none")
    if c.outfit in ("robe", "kimono") and c.footwear == "thigh boots":
        c = replace(c, footwear="boots")
    if c.outer in ("cloak", "capelet") or c.outfit == "coat":
        c = replace(c, shoulders="none")
    if c.outfit in ("kimono", "armor") and c.belt in ("sash", "belt"):
        c = replace(c, belt="none")
    return c


def under_headwear(rng: np.random.Generator, c: Character) -> Character:
    """What a helmet hides, and what no hat fits over."""
    if c.headwear == "none":
        return c
    row = HEADWEAR[c.headwear]
    if c.headwear == "helmet":
        c = replace(c, facial_hair="none")
    if row.covers_ears:
        return replace(c, ears="none" if c.ears in EARS else c.ears, head_extra="none")
    if row.covers_top:
        has_brim = c.headwear in ("hat", "straw hat")
        extra = c.head_extra if c.head_extra in ("earring", "headphones") and not has_brim else "none"
        ears = c.ears if c.ears in ("pointy ears", "dog ears") else "none"
        return replace(c, head_extra=extra, ears=ears)
    return c


def faces_in_sight(rng: np.random.Generator, c: Character) -> Character:
    return replace(c, face="none") if c.face == "mask" and c.facial_hair != "none" else c


def marks_in_sight(rng: np.random.Generator, c: Character) -> Character:
    """No emblem under a scarf, and no stripe on a bare arm."""
    look = c.look
    is_covered = c.outer in ("cloak", "capelet", "scarf") or c.belt in ("shoulder bag", "bandolier")
    is_covered = is_covered or c.facial_hair == "long beard"
    if c.outfit in ("none", "kimono", "apron", "dress") or (look.emblem_place == "chest" and is_covered):
        look = replace(look, emblem="none")
    if look.sleeves == "none" or c.species in ("robot", "skeleton"):
        look = replace(look, stripe="none")
    return replace(c, look=look)


RULES = (of_its_kind, tail_by_ears, clothes_together, under_headwear, faces_in_sight, marks_in_sight)
EAR_NAMES = ("none", "pointy ears", *EARS)
TAIL_NAMES = ("none", *TAILS)
