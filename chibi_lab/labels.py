"""What readers are asked: one row for each question, with its answers and when a picture shows them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from .data import Record
from .world import VIEWS, palette
from .world.beast import EARS
from .world.body import BUILDS, HEAD_SHAPES
from .world.clothes import OUTFITS
from .world.face import EYE_KINDS
from .world.hair import FRINGES, HAIR_STYLES
from .world.headwear import HEAD_EXTRAS, HEADWEAR, shown_by
from .world.held import HELD
from .world.people import (
    BOTTOMS,
    EAR_NAMES,
    FACES,
    FACIAL_HAIR,
    FOOTWEAR,
    HANDWEAR,
    SHOULDERS,
    SPECIES,
    TAIL_NAMES,
)
from .world.pose import POSES
from .world.style import MONOCHROME_STYLES, STYLES
from .world.tags import FACE_TAGS, FLESH, HEAD_EXTRA_TAGS, PART_OF_BELT, hair_part, shows_expression
from .world.wear import BELTS, EMBLEMS, OUTER

UNKNOWN = -100  # what a picture does not show is not asked
SIDES = ("left", "right")
STATURES = ("chibi", "short", "tall")
Answer = str | None


@dataclass(frozen=True)
class Question:
    """`find` gives the true answer, or None where the picture does not show it."""

    answers: tuple[str, ...]
    find: Callable[[Record], Answer]
    is_color: bool = False  # can't be told in monochrome styles


def with_none(values: Iterable[str]) -> tuple[str, ...]:
    return ("none", *(value for value in values if value != "none"))


def when(value: str, shown: bool) -> Answer:
    return value if shown else None


def face_shown(r: Record) -> bool:
    return "eyes" in r.seen or "glasses" in r.seen


def body_shown(r: Record) -> bool:
    return r.shot.framing != "portrait"


def whole(r: Record) -> bool:
    return r.shot.framing == "full body"


def worn(value: str, part: str, r: Record, could_be_seen: bool = True) -> Answer:
    """A thing that is there must be seen; that nothing is there is seen where it could be."""
    return when(value, could_be_seen if value == "none" else part in r.seen and could_be_seen)


def hair_color(r: Record) -> Answer:
    c = r.character
    told = "tresses" in r.seen or ("hair" in r.seen and c.hair_style not in ("buzz cut", "mohawk"))
    return when(c.hair, told and c.hair_style != "bald")


def face_thing(r: Record) -> Answer:
    thing = r.character.face
    return worn(thing, "glasses" if thing == "sunglasses" else thing, r, thing != "none" or face_shown(r))


def facial_hair(r: Record) -> Answer:
    c = r.character
    is_open = face_shown(r) and c.face != "mask" and c.headwear != "helmet"
    return worn(
        c.facial_hair, "stubble" if c.facial_hair == "stubble" else "facial hair", r, c.facial_hair != "none" or is_open
    )


def ears(r: Record) -> Answer:
    return worn(r.character.ears, "ears", r, not shown_by(r.character).covers_ears)


def fur(r: Record) -> Answer:
    c = r.character
    return when(c.fur, (c.species == "furry" and "skin" in r.seen) or (c.ears in EARS and "ears" in r.seen))


def belt(r: Record) -> Answer:
    value = r.character.belt
    return worn(
        value, PART_OF_BELT.get(value, ""), r, body_shown(r) and (value != "none" or r.character.outer != "cloak")
    )


def footwear(r: Record) -> Answer:
    c = r.character
    if c.species == "robot" or not whole(r):
        return None
    return when(c.footwear, c.footwear == "barefoot" or "footwear" in r.seen)


def held_thing(r: Record) -> Answer:
    c = r.character
    if len(c.holds) > 1:
        return None
    return worn(c.holds[0], "held", r) if c.holds else when("none", whole(r))


def held_side(r: Record) -> Answer:
    sides = [
        side for side, thing in (("left", r.character.held_left), ("right", r.character.held_right)) if thing != "none"
    ]
    if not sides or any(f"held {side}" not in r.seen for side in sides):
        return None
    return "both" if len(sides) == 2 else sides[0]


def expression(r: Record) -> Answer:
    shown = shows_expression(r.character, r.shot.expression)
    if r.shot.expression == "closed eyes":
        return when(
            "closed eyes",
            shown and r.shot.view in ("front", "three-quarter", "above", "below") and r.character.face == "none",
        )
    return when(r.shot.expression, shown and "eyes" in r.seen)


def emblem(r: Record) -> Answer:
    look = r.character.look
    if look.emblem != "none":
        return when(look.emblem, "emblem" in r.seen)
    return when("none", r.shot.view in ("front", "behind") and body_shown(r))


def of_face(name: str, species: tuple[str, ...] = FLESH) -> Callable[[Record], Answer]:
    """An attribute of the look that a face in sight shows."""
    return lambda r: when(getattr(r.character.look, name), face_shown(r) and r.character.species in species)


def fringe(r: Record) -> Answer:
    c = r.character
    shown = (
        "hair" in r.seen
        and face_shown(r)
        and r.shot.view in ("front", "three-quarter")
        and c.headwear in ("none", "crown", "hairband")
    )
    return when(c.look.fringe, shown)


def stature(r: Record) -> Answer:
    heads = r.character.look.heads
    standing = whole(r) and r.shot.view in ("front", "three-quarter", "side", "behind") and r.shot.pose != "sitting"
    return when(STATURES[(heads > 2.35) + (heads > 3.0)], standing)


def one_side(part: str, of: Callable[[Record], Answer]) -> Callable[[Record], Answer]:
    """On which side something is, where it can be seen and is on one side only."""

    def find(r: Record) -> Answer:
        side = of(r)
        return when(side, part in r.seen) if side in SIDES else None

    return find


def side_of_head(r: Record) -> Answer:
    c = r.character
    things = {c.head_extra: c.head_extra, "side ponytail" if c.hair_style == "side ponytail" else "": "tresses"}
    shown = [part for thing, part in things.items() if thing in ("hair bow", "hair flower", "earring", "side ponytail")]
    return when(c.look.hair_side, any(part in r.seen for part in shown))


def sleeves(r: Record) -> Answer:
    c = r.character
    if c.outfit not in OUTFITS or c.species == "robot":
        return None
    shown = body_shown(r) and "outfit" in r.seen and c.outer not in ("cloak", "capelet") and c.handwear == "none"
    return when(OUTFITS[c.outfit].sleeves or c.look.sleeves, shown)


WORDED: dict[str, Question] = {
    "species": Question(tuple(SPECIES), lambda r: when(r.character.species, "skin" in r.seen)),
    "skin": Question(
        tuple(palette.SKIN), lambda r: when(r.character.skin, r.character.species in FLESH and "skin" in r.seen), True
    ),
    "robot_color": Question(
        tuple(palette.CLOTH), lambda r: when(r.character.body_color, r.character.species == "robot"), True
    ),
    "hair": Question(tuple(palette.HAIR), hair_color, True),
    "hair_style": Question(
        tuple(HAIR_STYLES),
        lambda r: when(r.character.hair_style, r.character.species in FLESH and hair_part(r.character) in r.seen),
    ),
    "eyes": Question(tuple(palette.EYES), lambda r: when(r.character.eyes, "eyes" in r.seen), True),
    "facial_hair": Question(with_none(FACIAL_HAIR), facial_hair),
    "face": Question(with_none(FACES), face_thing),
    "ears": Question(EAR_NAMES, ears),
    "fur": Question(tuple(palette.FUR), fur, True),
    "tail": Question(TAIL_NAMES, lambda r: worn(r.character.tail, "tail", r, whole(r))),
    "headwear": Question(with_none(HEADWEAR), lambda r: worn(r.character.headwear, "headwear", r)),
    "headwear_color": Question(
        tuple(palette.CLOTH),
        lambda r: when(r.character.headwear_color, r.character.headwear != "none" and "headwear" in r.seen),
        True,
    ),
    "head_extra": Question(with_none(HEAD_EXTRAS), lambda r: worn(r.character.head_extra, r.character.head_extra, r)),
    "outfit": Question(
        tuple(OUTFITS),
        lambda r: when(r.character.outfit, r.character.outfit != "none" and "outfit" in r.seen and body_shown(r)),
    ),
    "outfit_color": Question(
        tuple(palette.CLOTH),
        lambda r: when(r.character.outfit_color, r.character.outfit != "none" and "outfit" in r.seen),
        True,
    ),
    "bottom": Question(
        with_none(BOTTOMS), lambda r: worn(r.character.bottom, "bottom", r, whole(r) and r.character.species != "robot")
    ),
    "bottom_color": Question(
        tuple(palette.CLOTH),
        lambda r: when(r.character.bottom_color, r.character.bottom != "none" and "bottom" in r.seen),
        True,
    ),
    "outer": Question(with_none(OUTER), lambda r: worn(r.character.outer, "outer", r, body_shown(r))),
    "outer_color": Question(
        tuple(palette.CLOTH),
        lambda r: when(r.character.outer_color, r.character.outer != "none" and "outer" in r.seen),
        True,
    ),
    "belt": Question(with_none(BELTS), belt),
    "footwear": Question(tuple(FOOTWEAR), footwear),
    "footwear_color": Question(
        tuple(palette.CLOTH),
        lambda r: when(r.character.footwear_color, r.character.footwear != "barefoot" and "footwear" in r.seen),
        True,
    ),
    "handwear": Question(tuple(HANDWEAR), lambda r: worn(r.character.handwear, "handwear", r, body_shown(r))),
    "handwear_color": Question(
        tuple(palette.CLOTH),
        lambda r: when(r.character.handwear_color, r.character.handwear != "none" and "handwear" in r.seen),
        True,
    ),
    "shoulders": Question(tuple(SHOULDERS), lambda r: worn(r.character.shoulders, "pauldron", r, body_shown(r))),
    "held": Question(with_none(HELD), held_thing),
}


def eye_kind(r: Record) -> Answer:
    return when(r.character.look.eye_kind, "eyes" in r.seen and r.character.species != "robot")


def brows(r: Record) -> Answer:
    c = r.character
    shown = "eyes" in r.seen and c.species in FLESH and c.headwear in ("none", "crown", "hairband")
    return when(c.look.brows, shown)


def nose(r: Record) -> Answer:
    c = r.character
    return when(c.look.nose, face_shown(r) and c.species in FLESH and c.face != "mask")


def collar(r: Record) -> Answer:
    c = r.character
    in_sight = "outfit" in r.seen and r.shot.view in ("front", "three-quarter") and body_shown(r)
    return when(c.look.collar, in_sight and c.outfit in ("shirt", "tunic", "dress") and c.outer in ("none", "cape"))


def trim(r: Record) -> Answer:
    c = r.character
    shown = body_shown(r) and "outfit" in r.seen and c.outer in ("none", "cape")
    return when(c.look.trim, shown and c.outfit in ("shirt", "tunic", "dress", "robe"))


def emblem_color(r: Record) -> Answer:
    return when(r.character.look.emblem_color, r.character.look.emblem != "none" and "emblem" in r.seen)


def single_pauldron(r: Record) -> Answer:
    return when(r.character.look.pauldron, r.character.shoulders == "single pauldron")


def patch_side(r: Record) -> Answer:
    c = r.character
    return when(c.look.patch, c.face in ("eyepatch", "scar") and c.face in r.seen and r.shot.view != "side")


def strap_side(r: Record) -> Answer:
    return when(r.character.look.strap, any(part in r.seen for part in ("pouch", "bag", "strap")))


WORDLESS: dict[str, Question] = {
    "head_shape": Question(tuple(HEAD_SHAPES), of_face("head_shape", (*FLESH, "robot"))),
    "eye_kind": Question(tuple(EYE_KINDS), eye_kind),
    "brows": Question(("none", "thin", "thick", "angry"), brows),
    "nose": Question(("none", "dot", "big"), nose),
    "fringe": Question(tuple(FRINGES), fringe),
    "stature": Question(STATURES, stature),
    "build": Question(tuple(BUILDS), lambda r: when(r.character.look.build, body_shown(r) and "outfit" in r.seen)),
    "sleeves": Question(("none", "short", "long"), sleeves),
    "collar": Question(("none", "v-neck", "round", "high"), collar),
    "trim": Question(("none", "plain", "zigzag"), trim),
    "emblem": Question(with_none(EMBLEMS), emblem),
    "emblem_color": Question(tuple(palette.CLOTH), emblem_color, True),
    "tone": Question(palette.TONES, lambda r: when(r.character.look.tone, whole(r)), True),
    "held_side": Question(("left", "right", "both"), held_side),
    "pauldron_side": Question(SIDES, one_side("pauldron", single_pauldron)),
    "stripe_side": Question(SIDES, one_side("stripe", lambda r: r.character.look.stripe)),
    "patch_side": Question(SIDES, patch_side),
    "strap_side": Question(SIDES, strap_side),
    "head_side": Question(SIDES, side_of_head),
}
SIDED = ("held_side", "pauldron_side", "stripe_side", "patch_side", "strap_side", "head_side")
BACKGROUNDS = (*palette.BACKDROP, *palette.SCENES)
SHOT: dict[str, Question] = {
    "view": Question(VIEWS, lambda r: r.shot.view),
    "framing": Question(palette.FRAMINGS, lambda r: r.shot.framing),
    "style": Question(tuple(STYLES), lambda r: r.shot.style),
    "expression": Question(palette.EXPRESSIONS, expression),
    "pose": Question(tuple(POSES), lambda r: when(r.shot.pose, whole(r))),
    "background": Question(BACKGROUNDS, lambda r: r.shot.background.split()[0], True),
}
QUESTIONS = WORDED | WORDLESS | SHOT
HEADS: dict[str, tuple[str, ...]] = {head: question.answers for head, question in QUESTIONS.items()}
HERS = tuple(WORDED)
COLORED = ("headwear", "outfit", "bottom", "outer", "footwear", "handwear")
CARD = {  # what a reader's card says beside its heads
    "hers": HERS,
    "wordless": tuple(WORDLESS),
    "feature_tags": {
        "{species}": ["species"],
        "{skin}": ["skin"],
        "{robot_color} robot": ["robot_color"],
        "{hair} hair": ["hair"],
        "{hair_style}": ["hair_style"],
        "{eyes} eyes": ["eyes"],
        "{facial_hair}": ["facial_hair"],
        "{face}": ["face"],
        "{ears}": ["ears"],
        "{tail}": ["tail"],
        "{head_extra}": ["head_extra"],
        **{f"{{{noun}_color}} {{{noun}}}": [noun, f"{noun}_color"] for noun in COLORED},
        "{belt}": ["belt"],
        "{shoulders}": ["shoulders"],
        "holding {held}": ["held"],
    },
    "shot_tags": {f"{{{head}}}": [head] for head in SHOT},
    "words": {
        "view": palette.VIEW_TAGS,
        "background": {color: f"{color} background" for color in palette.BACKDROP},
        "face": FACE_TAGS,
        "head_extra": HEAD_EXTRA_TAGS,
    },
    "needs": {"robot_color": {"species": ["robot"]}, "hair": {"hair_style": [s for s in HAIR_STYLES if s != "bald"]}},
    "monochrome_styles": MONOCHROME_STYLES,
}


def label(record: Record, head: str) -> int:
    """The index of the true answer, or UNKNOWN where the picture does not show it."""
    question = QUESTIONS[head]
    if question.is_color and record.shot.style in MONOCHROME_STYLES:
        return UNKNOWN
    answer = question.find(record)
    return UNKNOWN if answer is None else question.answers.index(answer)


def labels(records: list[Record]) -> dict[str, Tensor]:
    return {head: torch.tensor([label(r, head) for r in records]) for head in HEADS}
