"""The demo's report is complete, needs no other files, and escapes tags."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bootlora.following import Stage
from embedded import report
from embedded.story import Character, Lap, Story

VOID = {"img", "meta", "line", "polyline", "br", "hr", "th", "td", "tr", "li"}  # no end, or one that may be left out


class Reader(HTMLParser):
    """Notes every tag, what it points to, and whether each is closed in its turn."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.targets: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.targets += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture
def story(tmp_path: Path) -> Story:
    picture = tmp_path / "her.png"
    Image.new("RGBA", (64, 96), "red").save(picture)
    image: dict[str, Any] = {"decision": "accepted", "view": "front", "framing": "portrait", "tags": ["<script>", "x"]}
    rounds: list[dict[str, Any]] = [
        {"number": number, "kind": kind, "dataset": [{"captions": ["eiei21girl, <b>"]}], "plan": {"views": ["front"]}}
        for number, kind in enumerate(("style", "character"), 1)
    ]
    lora: dict[str, Any] = {"train_steps": 4, "metrics": {"curve": [[1, 0.5], [2, 0.4], [3, 0.3]]}}
    views = ["front", "behind"] * 2
    return Story(
        character=Character(picture, "eiei21girl", ["1girl"], ["fox ears & tail"]),
        project={"id": "prj_1", "feature_tags": ["fox ears & tail"]},
        references=[(image, picture)],  # type: ignore[list-item]
        dataset=[(picture, "eiei21girl, from behind")],
        laps=[Lap(each, lora, [image], [picture], picture, "round") for each in rounds],  # type: ignore[arg-type, list-item]
        compared=[(title, [picture] * 4) for title in ("base model", "style LoRA", "character LoRA")],
        views=views,
        stages=[Stage(1, "style", "training", 61.0)],
        parts={"rounds": 61.0, "in all": 80.0},
        loras=[tmp_path / "kohya" / "eiei21girl.safetensors"],
    )


def test_the_report_is_complete_and_needs_no_other_files(story: Story, tmp_path: Path) -> None:
    report.write(story, tmp_path / "report.html")
    reader = Reader()
    reader.feed((tmp_path / "report.html").read_text())
    assert reader.open in ([], ["html"])
    assert reader.tags.count("img") == 1 + 2 + 12 + 1 + 2 + 1
    assert reader.tags.count("svg") == 2
    assert "script" not in reader.tags
    assert all(target.startswith(("data:image/webp;base64,", "sheets/")) for target in reader.targets)


def test_the_report_shows_the_times(story: Story, tmp_path: Path) -> None:
    report.write(story, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "<strong>1 min 20 s</strong>" in text
    assert "round 1, style: training<td>61.0 s" in text
    assert "fox ears &amp; tail" in text
