"""A person at the command line curates a real game character, and replaces one candidate with an edited picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image, ImageOps

from bootlora import Bootlora
from bootlora.cli import main
from embedded.stack import Stack
from tests.e2e.plans import small

pytestmark = [pytest.mark.servers, pytest.mark.slow]

PICTURE = Path(__file__).parents[1] / "data/kenney/femaleAdventurer_idle.png"


class Shell:
    """Runs `bootlora` as a person would."""

    def __init__(self, stack: Stack):
        self._runner = CliRunner(env={"BOOTLORA_URL": stack.url, "BOOTLORA_KEY": stack.api_key, "COLUMNS": "200"})

    def __call__(self, *words: object) -> str:
        done = self._runner.invoke(main, [str(word) for word in words])
        assert done.exit_code == 0, done.output
        return done.output.strip()

    def refused(self, *words: object) -> str:
        done = self._runner.invoke(main, [str(word) for word in words])
        assert done.exit_code == 1
        return done.output.strip()


def test_a_person_curates_and_edits(stack: Stack, bootlora: Bootlora, tmp_path: Path) -> None:
    shell = Shell(stack)
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(small(target=8)))

    # a picture of 96 x 128 with a palette and alpha, cropped into four
    project = shell("projects", "create", "adventurer", "--trigger", "kenneygirl", "--plan", plan)
    image = shell("upload", project, PICTURE, "--view", "front", "--framing", "full_body")
    cropped = shell("crop", image, "--mode", "auto")
    assert cropped.count("crop") == 4
    assert "no feature tags" in shell.refused("projects", "start", project)
    assert shell("tags", project, "brown hair, green vest", "blue pants") == "brown hair, green vest, blue pants"
    shell("projects", "start", project)
    assert "round 1: accept or reject its candidates" in shell("watch", project)

    # two chosen by number, one edited and put back, more asked for from behind
    shell("candidates", project, 1, "--out", tmp_path / "round-1")
    files = sorted((tmp_path / "round-1").glob("0*.png"))
    assert len(files) == 12
    edited = tmp_path / "edited.png"
    ImageOps.posterize(ImageOps.mirror(Image.open(files[2]).convert("RGB")), 3).save(edited)
    put_back = shell("put-back", files[2].stem.partition("_")[2], edited)
    assert shell("curate", project, 1, "--accept", "1,4", "--reject", "rest") == "accepted 2, rejected 9"
    assert "1 of 8 pictures are missing" in shell.refused("finish", project, 1)
    shell("more", project, 1, "--count", 2, "--views", "behind")
    candidates = bootlora.rounds.candidates(project, 1)
    assert [image["view"] for image in candidates[13:]] == ["behind", "behind"]
    shell("curate", project, 1, "--accept", "14", "--reject", "rest")
    shell("finish", project, 1)
    assert "the project is completed" in shell("watch", project)

    # the edited picture was learned from, not the one it replaced
    shell("download", project, "--out", tmp_path / "result")
    dataset = bootlora.rounds.get(project, 2)["dataset"]
    learned = [entry["image_id"] for entry in dataset]
    assert len(learned) == 8
    assert put_back in learned
    assert candidates[2]["id"] not in learned
    place = tmp_path / "result/dataset/1_kenneygirl"
    number = learned.index(put_back) + 1
    assert Image.open(place / f"{number:03d}.png").convert("RGB").tobytes() == Image.open(edited).tobytes()
    assert "brown hair" not in (place / f"{number:03d}.txt").read_text()

    # an asset pipeline's daily call, and the story so far
    drawn = shell(
        "generate",
        project,
        "--prompt",
        "kenneygirl, from behind",
        "--seed",
        7,
        "--count",
        2,
        "--out",
        tmp_path / "drawn",
    )
    assert all(Image.open(file).size == (128, 128) for file in drawn.splitlines())
    told = [line.split()[0] for line in shell("events", project).splitlines()]
    assert told == [str(seq) for seq in range(1, len(told) + 1)]
