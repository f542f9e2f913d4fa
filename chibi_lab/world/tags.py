"""The tags of a character, of a shot, and of a picture (only what can be seen in it)."""

from . import palette
from .beast import EARS, TAILS
from .character import Character
from .clothes import OUTFITS
from .hair import HAIR_STYLES
from .headwear import HEAD_EXTRAS, HEADWEAR, shown_by
from .held import HELD
from .people import BOTTOMS, FACES, FACIAL_HAIR, FOOTWEAR, HANDWEAR, SHOULDERS, WHO
from .pose import POSES
from .shot import Shot
from .style import MONOCHROME_STYLES, STYLES
from .wear import BELTS, OUTER

SPECIES_TAGS = ("elf", "furry", "robot", "skeleton", "zombie", "orc")
AGE_TAGS = {
    ("child", "1girl"): "child",
    ("child", "1boy"): "child",
    ("old", "1girl"): "old woman",
    ("old", "1boy"): "old man",
}
FLESH = ("human", "elf", "zombie", "orc")  # who have skin and hair
FACE_TAGS = {"scar": "scar on face"}
HEAD_EXTRA_TAGS = {"goggles": "goggles on head", "earring": "earrings"}
PART_OF_BELT = {"belt": "belt", "belt pouch": "pouch", "sash": "belt", "shoulder bag": "bag", "bandolier": "strap"}


def subject_tags(character: Character) -> list[str]:
    return [character.who, "solo"]


def hair_part(character: Character) -> str:
    """What must be seen for the style of the hair to be told."""
    cut, covers = HAIR_STYLES[character.hair_style], shown_by(character)
    if cut.rising and covers.covers_top:
        return "hidden"
    if character.hair_style in ("bald", "buzz cut", "short hair"):
        return "hidden" if covers.covers_top else "skin" if character.hair_style == "bald" else "hair"
    return "tresses"


Parts = list[tuple[str, str]]  # a tag, and the part of the drawing that must be seen for it to be true


def feature_parts(character: Character) -> Parts:
    c = character
    return [*who_parts(c), *hair_parts(c), *head_parts(c), *clothes_parts(c), *held_parts(c)]


def who_parts(c: Character) -> Parts:
    pairs: Parts = []
    if (c.age, c.who) in AGE_TAGS:
        pairs.append((AGE_TAGS[c.age, c.who], "skin"))
    if c.species != "human":
        pairs.append((c.species, "skin"))
    if c.species == "robot":
        pairs.append((f"{c.body_color} robot", "skin"))
    if c.species == "furry":
        pairs.append((f"{c.fur} fur", "skin"))
    if c.species in FLESH and c.skin != "light":
        pairs.append((c.skin, "skin"))
    return pairs


def hair_parts(c: Character) -> Parts:
    pairs: Parts = []
    if c.hair_style != "bald":
        pairs.append((f"{c.hair} hair", "hair"))
    if c.species in FLESH:
        pairs.append((c.hair_style, hair_part(c)))
    if c.facial_hair != "none":
        pairs.append((c.facial_hair, "stubble" if c.facial_hair == "stubble" else "facial hair"))
    return pairs


def head_parts(c: Character) -> Parts:
    pairs: Parts = [(f"{c.eyes} eyes", "eyes")]
    if c.face != "none":
        pairs.append((FACE_TAGS.get(c.face, c.face), "glasses" if c.face == "sunglasses" else c.face))
    if c.ears != "none":
        pairs.append((c.ears, "ears"))
    if c.ears in EARS and c.species != "furry":
        pairs.append((f"{c.fur} ears", "ears"))
    if c.tail != "none":
        pairs.append((c.tail, "tail"))
    if c.headwear != "none":
        pairs.append((f"{c.headwear_color} {c.headwear}", "headwear"))
    if c.head_extra != "none":
        pairs.append((HEAD_EXTRA_TAGS.get(c.head_extra, c.head_extra), c.head_extra))
    return pairs


def clothes_parts(c: Character) -> Parts:
    pairs: Parts = [
        (f"{getattr(c, f'{noun}_color')} {getattr(c, noun)}", noun)
        for noun in ("outfit", "bottom", "outer", "handwear")
        if getattr(c, noun) != "none"
    ]
    if c.belt != "none":
        pairs.append((c.belt, PART_OF_BELT[c.belt]))
    if c.shoulders != "none":
        pairs.append((c.shoulders, "pauldron"))
    if c.footwear != "barefoot":
        pairs.append((f"{c.footwear_color} {c.footwear}", "footwear"))
    elif c.species != "robot":
        pairs.append(("barefoot", "feet"))
    return pairs


def held_parts(c: Character) -> Parts:
    held = (("left", c.held_left), ("right", c.held_right))
    return [(f"holding {thing}", f"held {side}") for side, thing in held if thing != "none"]


def feature_tags(character: Character) -> list[str]:
    """What a character is, whatever the picture."""
    return list(dict.fromkeys(tag for tag, _ in feature_parts(character)))


def background_tags(background: str) -> list[str]:
    if background in palette.SCENES:
        return [background]
    plain = [f"{background.split()[0]} background"]
    return ["gradient background", *plain] if background.endswith("gradient") else plain


def shows_expression(character: Character, expression: str) -> bool:
    """Whether this face can make it: a robot never shuts its eyes, and a mask hides the mouth."""
    c = character
    if expression == "closed eyes":
        return c.species != "robot" and c.face != "sunglasses"
    if c.face == "mask" or c.headwear == "helmet" or c.species == "furry":
        return False
    return c.species != "skeleton" or expression == "open mouth"


def shot_tags(shot: Shot, character: Character | None = None) -> list[str]:
    """What this picture is: view, framing, expression (as far as the character has it), pose, style, background."""
    tags = [palette.VIEW_TAGS[shot.view], shot.framing]
    shown = character is None or shows_expression(character, shot.expression)
    if shot.expression != "neutral" and shot.view != "behind" and shown:
        tags.append(shot.expression)
    if shot.pose in ("t-pose", "arms up", "waving") or shot.framing == "full body":
        tags.append(shot.pose)
    tags.append(shot.style)
    if shot.style in MONOCHROME_STYLES:
        return [*tags, "monochrome"]
    return tags + background_tags(shot.background)


def seen_feature_tags(character: Character, seen: frozenset[str]) -> list[str]:
    """The feature tags as far as this picture shows them."""
    return list(dict.fromkeys(tag for tag, part in feature_parts(character) if part in seen))


def picture_tags(character: Character, shot: Shot, seen: frozenset[str]) -> list[str]:
    """Complete and correct tags of one drawing."""
    return [*subject_tags(character), *seen_feature_tags(character, seen), *shot_tags(shot, character)]


def all_tags() -> list[str]:
    """Every tag that the world knows, in a fixed order."""
    p = palette
    colored: list[tuple[dict, tuple[str, ...]]] = [
        (p.HAIR, ("hair",)),
        (p.EYES, ("eyes",)),
        (p.FUR, ("ears", "fur")),
        (
            p.CLOTH,
            (
                *HEADWEAR,
                *OUTFITS,
                *BOTTOMS,
                *OUTER,
                *[f for f in FOOTWEAR if f != "barefoot"],
                *[h for h in HANDWEAR if h != "none"],
                "robot",
            ),
        ),
        (p.BACKDROP, ("background",)),
    ]
    tags = [
        *WHO,
        "solo",
        *dict.fromkeys(AGE_TAGS.values()),
        *SPECIES_TAGS,
        *[s for s in p.SKIN if s != "light"],
        *HAIR_STYLES,
    ]
    tags += [*FACIAL_HAIR, *[FACE_TAGS.get(f, f) for f in FACES], "pointy ears", *EARS, *TAILS]
    tags += [
        *[HEAD_EXTRA_TAGS.get(e, e) for e in HEAD_EXTRAS],
        *BELTS,
        *[s for s in SHOULDERS if s != "none"],
        "barefoot",
    ]
    tags += [f"holding {thing}" for thing in HELD]
    tags += [f"{color} {noun}" for colors, nouns in colored for noun in nouns for color in colors]
    tags += [*p.VIEW_TAGS.values(), *p.FRAMINGS, *p.EXPRESSIONS[1:], *POSES]
    return [*tags, *STYLES, "monochrome", "gradient background", *p.SCENES]
