"""Benchmark of the attribute reader as scorer: does it recognise a character, and the view of a picture?

It uses held-out characters, which were not in the reader's training set. The references are the four crops of one front
picture. The candidates are true pictures of the character from all sides, and as many of near doubles, which differ
from her in one or two attributes.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.figure import figure
from chibi_lab.old_world import VIEWS, Character, Shot, held_out_characters, palette, render, sample_shot
from models.chibi.reader import FOLDER, Reader, identity
from workers import pictures as cropping

CHARACTERS = 12
PICTURES = 18  # of the character, and as many of doubles
SIZE = 128
CHANGEABLE = {
    "hair": tuple(palette.HAIR),
    "hair_style": palette.HAIR_STYLES,
    "outfit_color": tuple(palette.CLOTH),
    "outfit": ("dress", "kimono"),
}


def double(character: Character, rng: np.random.Generator) -> Character:
    """A character that is easily mistaken for this one."""
    changed: dict[str, Any] = {}
    for name in rng.choice(list(CHANGEABLE), rng.integers(1, 3), replace=False):
        others = [value for value in CHANGEABLE[name] if value != getattr(character, name)]
        changed[str(name)] = str(rng.choice(others))
    if "outfit" in changed:
        changed["bottom"] = "none"
    return replace(character, **changed)


def four_crops(character: Character) -> np.ndarray:
    shown = Image.fromarray(render(character, Shot(), 512))
    cut = [cropping.cut(shown, crop.box) for crop in cropping.auto(shown, view="front")]
    return np.stack([np.asarray(cropping.fit(image, (SIZE, SIZE))) for image in cut])


def shots(rng: np.random.Generator) -> list[Shot]:
    return [
        sample_shot(rng, view=VIEWS[i % len(VIEWS)], framing="full body", style="cel shading") for i in range(PICTURES)
    ]


def auc(hers: np.ndarray, others: np.ndarray) -> float:
    """The probability that a picture of her scores above one of another character (area under the ROC curve)."""
    wins = (hers[:, None] > others[None]).mean() + 0.5 * (hers[:, None] == others[None]).mean()
    return float(wins)


def figures(reader: Reader) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(31)
    aucs, seen, seconds, count = [], [], 0.0, 0
    for character in held_out_characters(CHARACTERS):
        known, wanted = four_crops(character), shots(rng)
        hers = np.stack([render(character, shot, SIZE) for shot in wanted])
        others = np.stack([render(double(character, rng), shot, SIZE) for shot in wanted])
        started = time.process_time()
        read = reader.read(np.concatenate([hers, others]))
        scores = identity(reader.read(known), read, reader.card["hers"])
        seconds += time.process_time() - started
        count += 2 * len(wanted)
        aucs.append(auc(scores[: len(wanted)], scores[len(wanted) :]))
        views = [reader.answers["view"][int(v)] for v in read["view"][: len(wanted)].argmax(1)]
        seen.append(float(np.mean([view == shot.view for view, shot in zip(views, wanted, strict=True)])))
    yield line("identity_auc", aucs, 0.98, "of her against doubles, known by four crops")
    yield line("view_accuracy", seen, 0.9, "the six views of true pictures")
    yield line("score_images_per_second", [count / seconds], 20, "pictures of 128 pixels a CPU second")


def line(name: str, runs: list[float], goal: float, about: str) -> dict[str, Any]:
    return figure(name, float(np.mean(runs)), goal=goal, better="higher", runs=runs, about=about)


def main(only: list[str]) -> None:
    for found in figures(Reader.load(FOLDER)):
        if not only or found["name"] in only:
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
