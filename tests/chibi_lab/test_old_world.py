"""The old world, which the weights that ship know: their heroine, and their labels."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from chibi_lab.judge import FOLDER
from chibi_lab.old_world import Shot, is_for_training, is_held_out, practice_characters, render
from chibi_lab.old_world.heroine import EXAMPLES, HEROINE, TRIGGER
from chibi_lab.old_world.labels import HEADS
from models.chibi.reader import FOLDER as READER


def test_the_heroine_is_held_out_and_her_picture_is_as_the_code_draws_her():
    assert is_held_out(HEROINE)
    assert not any(is_for_training(c) for c in practice_characters(12))
    shown = np.asarray(Image.open(EXAMPLES / f"{TRIGGER}.png").convert("RGB")).astype(int)
    assert np.abs(shown - render(HEROINE, Shot(), 512)).mean() < 0.5


def test_the_readers_that_ship_are_asked_about_it():
    for path in (READER / "reader.json", FOLDER / "judge.json"):
        card = json.loads(Path(path).read_text())
        assert {head: tuple(values) for head, values in card["heads"].items()} == HEADS
