"""The world of the chibi base model: parametric characters, drawn by ray casting, with complete and correct tags."""

from .character import Character, Look
from .folds import (
    held_out_characters,
    is_for_training,
    is_held_out,
    practice_characters,
    reserved_characters,
    sample_character,
    sample_held_out,
)
from .palette import FRAMINGS, VIEW_TAGS
from .people import sample_any
from .render import Drawing, draw, render
from .shot import VIEWS, Shot, sample_shot
from .style import STYLES
from .tags import all_tags, feature_tags, picture_tags, shot_tags, subject_tags

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
    "reserved_characters",
    "sample_any",
    "sample_character",
    "sample_held_out",
    "sample_shot",
    "shot_tags",
    "subject_tags",
]
