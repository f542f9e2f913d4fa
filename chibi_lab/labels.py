"""What readers are asked: every attribute, view, framing and style; and which pictures show it."""

import torch
from torch import Tensor

from .data import Record
from .world import VIEWS, palette
from .world.tags import MONOCHROME_STYLES

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
FEATURE_TAGS: dict[str, list[str]] = {
    "{hair} hair": ["hair"],
    "{hair_style}": ["hair_style"],
    "{eyes} eyes": ["eyes"],
    "{skin} skin": ["skin"],
    "{ears}": ["ears"],
    "{fur} ears": ["ears", "fur"],
    "{tail}": ["tail"],
    "{outfit_color} {outfit}": ["outfit", "outfit_color"],
    "{bottom_color} {bottom}": ["bottom", "bottom_color"],
    "{accessory_color} {accessory}": ["accessory", "accessory_color"],
}
SHOT_TAGS: dict[str, list[str]] = {f"{{{head}}}": [head] for head in ("view", "framing", "expression", "arms", "style")}
SHOT_TAGS["{background}"] = ["background"]
WORDS = palette.VIEW_TAGS | {color: f"{color} background" for color in palette.BACKDROP}
CARD = {
    "hers": HERS,
    "feature_tags": FEATURE_TAGS,
    "shot_tags": SHOT_TAGS,
    "words": WORDS,
    "monochrome_styles": MONOCHROME_STYLES,
}  # what a reader's card says beside its heads
UNKNOWN = -100  # what a picture does not show is not asked


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


def labels(records: list[Record]) -> dict[str, Tensor]:
    return {head: torch.tensor([label(r, head) for r in records]) for head in HEADS}
