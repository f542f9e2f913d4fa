"""What the reader and the judge of the old world are asked."""

from dataclasses import dataclass

from chibi_lab.labels import UNKNOWN

from . import palette
from .character import Character
from .shot import VIEWS, Shot
from .tags import MONOCHROME_STYLES

BACKGROUNDS = (*palette.BACKDROP, *palette.SCENES)
HEADS: dict[str, tuple[str, ...]] = {
    "hair": tuple(palette.HAIR),
    "hair_style": palette.HAIR_STYLES,
    "eyes": tuple(palette.EYES),
    "skin": tuple(palette.SKIN),
    "ears": palette.EARS,
    "fur": tuple(palette.FUR),
    "tail": palette.TAILS,
    "outfit": palette.OUTFITS,
    "outfit_color": tuple(palette.CLOTH),
    "bottom": ("none", *palette.BOTTOMS),
    "bottom_color": tuple(palette.BOTTOM),
    "accessory": palette.ACCESSORIES,
    "accessory_color": tuple(palette.TRINKET),
    "view": VIEWS,
    "framing": palette.FRAMINGS,
    "style": palette.STYLES,
    "expression": palette.EXPRESSIONS,
    "arms": palette.ARMS,
    "background": BACKGROUNDS,
}
HERS = (
    "hair", "hair_style", "eyes", "skin", "ears", "fur", "tail", "outfit", "outfit_color", "bottom", "bottom_color",
    "accessory", "accessory_color",
)  # fmt: skip
COLORS = ("hair", "eyes", "skin", "fur", "outfit_color", "bottom_color", "accessory_color", "background")
PART_OF = {
    "hair": "hair", "eyes": "eyes", "skin": "skin", "fur": "ears", "outfit": "outfit", "outfit_color": "outfit",
    "bottom": "outfit", "bottom_color": "bottom", "accessory_color": "accessory",
}  # fmt: skip


@dataclass(frozen=True)
class Record:
    """What is known about one picture."""

    character: Character
    shot: Shot
    seen: frozenset[str]


def label(record: Record, head: str) -> int:
    """The index of the true value, or UNKNOWN where the picture does not show it."""
    c, shot, seen = record.character, record.shot, record.seen
    if head in COLORS and shot.style in MONOCHROME_STYLES:
        return UNKNOWN
    if head in PART_OF and PART_OF[head] not in seen:
        return UNKNOWN
    if head == "bottom" and c.bottom != "none" and "bottom" not in seen:
        return UNKNOWN
    if head == "hair_style" and c.hair_style in ("long hair", "twintails", "ponytail") and "tresses" not in seen:
        return UNKNOWN
    if head == "expression" and (shot.view == "behind" or ("eyes" not in seen and shot.expression != "closed eyes")):
        return UNKNOWN
    if head in ("ears", "tail", "accessory"):
        value = getattr(c, head)
        if value != "none" and head not in seen:
            return UNKNOWN
        if head == "tail" and shot.framing != "full body":
            return UNKNOWN
        return HEADS[head].index(value)
    if head == "background":
        return HEADS[head].index(shot.background.split()[0])
    owner = c if hasattr(c, head) else shot
    return HEADS[head].index(getattr(owner, head))
