"""A picture of the project is drawn anew in part: through the command line, the API, a GPU worker and the store."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageDraw

from bootlora import Bootlora
from bootlora.cli import main
from embedded.stack import Stack

pytestmark = [pytest.mark.servers, pytest.mark.slow]

SIDE = 128


def test_a_part_of_a_picture_is_drawn_anew(stack: Stack, bootlora: Bootlora, tmp_path: Path) -> None:
    def shell(*words: object) -> str:
        env = {"BOOTLORA_URL": stack.url, "BOOTLORA_KEY": stack.api_key, "COLUMNS": "200"}
        done = CliRunner(env=env).invoke(main, [str(word) for word in words])
        assert done.exit_code == 0, done.output
        return done.output.strip()

    picture, mask = Image.new("RGB", (SIDE, SIDE), "teal"), Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(picture).ellipse((30, 10, 100, 120), fill="orange", outline="black")
    mask.paste(255, (0, 0, SIDE // 2, SIDE))
    picture.save(tmp_path / "picture.png")
    mask.save(tmp_path / "mask.png")

    project = shell("projects", "create", "ball", "--trigger", "eiei21ball")
    image = shell("upload", project, tmp_path / "picture.png")
    words = ["--base", "--prompt", "eiei21ball, 1girl", "--seed", 7, "--image", image, "--strength", 0.9]
    told = shell("generate", project, *words, "--mask", tmp_path / "mask.png", "--out", tmp_path / "out")
    file = told.splitlines()[-1]  # after the progress

    drawn = Image.open(file)
    before, after = np.asarray(picture).astype(int), np.asarray(drawn).astype(int)
    assert np.array_equal(after[:, SIDE // 2 :], before[:, SIDE // 2 :])
    assert np.abs(after[:, : SIDE // 2] - before[:, : SIDE // 2]).mean() > 5
    said = json.loads(drawn.text["bootlora"])
    assert (said["prompt"], said["seed"], said["image"]) == ("eiei21ball, 1girl", 7, image)
    shown = bootlora.images.get(Path(file).stem.partition("_")[2])
    assert (shown["parent_id"], shown["source"], shown["role"]) == (image, "generated", "output")
