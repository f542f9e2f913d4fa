"""The attribute reader that ships: what does this picture show? It serves as tagger and as scorer."""

from pathlib import Path

from .identity import identity
from .network import Reader
from .tagging import feature_tags, readings, shot_tags

FOLDER = Path(__file__).parent  # where the trained reader lies

__all__ = ["FOLDER", "Reader", "feature_tags", "identity", "readings", "shot_tags"]
