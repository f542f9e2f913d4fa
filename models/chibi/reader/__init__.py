"""The attribute reader: what does this picture show? One serves as tagger and scorer, another judges the bench."""

from pathlib import Path

from .identity import HERS, identity
from .labels import HEADS, UNKNOWN, label, labels
from .network import Reader
from .tagging import feature_tags, readings, shot_tags
from .training import accuracy, train_reader

FOLDER = Path(__file__).parent  # where the trained readers lie

__all__ = [
    "FOLDER",
    "HEADS",
    "HERS",
    "UNKNOWN",
    "Reader",
    "accuracy",
    "feature_tags",
    "identity",
    "label",
    "labels",
    "readings",
    "shot_tags",
    "train_reader",
]
