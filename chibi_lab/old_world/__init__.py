"""The world that the weights in `models/chibi` know. It goes when weights of the wider world are swapped in."""

from .character import (
    Character,
    Look,
    held_out_characters,
    is_for_training,
    is_held_out,
    practice_characters,
    sample_character,
    sample_held_out,
)
from .palette import FRAMINGS, STYLES, VIEW_TAGS
from .render import Drawing, draw, render
from .shot import VIEWS, Shot, sample_shot
from .tags import all_tags, feature_tags, picture_tags, shot_tags

__all__ = [
    "FRAMINGS",
    "STYLES",
    "VIEWS",
    "VIEW_TAGS",
    "Character",
    "Drawing",
    "Look",
    "Shot",
    "all_tags",
    "draw",
    "feature_tags",
    "held_out_characters",
    "is_for_training",
    "is_held_out",
    "picture_tags",
    "practice_characters",
    "render",
    "sample_character",
    "sample_held_out",
    "sample_shot",
    "shot_tags",
]
