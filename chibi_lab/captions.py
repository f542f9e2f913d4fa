"""Captions for training: true tags in many orders, and invented names that mean nothing."""

import numpy as np

from .data import Record
from .world import feature_tags, shot_tags, subject_tags

LETTERS = "abcdefghijklmnopqrstuvwxyz"
NAME_ENDINGS = ("", "", "girl", "chan", "san", "chara")


def invented_name(rng: np.random.Generator) -> str:
    """Such as `eiei21girl`: a trigger word of a LoRA to come, which must start as a blank."""
    letters = "".join(rng.choice(list(LETTERS), rng.integers(3, 8)))
    digits = str(rng.integers(1, 100)) if rng.random() < 0.6 else ""
    return letters + digits + str(rng.choice(NAME_ENDINGS))


def caption_tags(record: Record, rng: np.random.Generator) -> list[str]:
    """One caption of a picture, another each time: some say all, some little, three in ten begin with a name."""
    keep = 0.5 if rng.random() < 0.06 else 0.96
    body = [tag for tag in record.tags if rng.random() < keep]
    if rng.random() < 0.7:
        rng.shuffle(body)
    name = [invented_name(rng)] if rng.random() < 0.3 else []
    subject = subject_tags(record.character)[: 2 if rng.random() < 0.95 else 1]
    return name + subject + body


def full_prompt(record: Record) -> str:
    """Everything there is to say, whether it will be seen or not: what a user of the method writes."""
    return ", ".join(
        [*subject_tags(record.character), *feature_tags(record.character), *shot_tags(record.shot, record.character)]
    )
