"""A small demo: from one picture through all rounds without a person, with all of its outputs."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console
from safetensors import safe_open

from embedded import demo
from tests.e2e.plans import small

pytestmark = [pytest.mark.servers, pytest.mark.slow]


def test_one_picture_becomes_a_lora(tmp_path: Path) -> None:
    out, said = tmp_path / "demo-output", io.StringIO()
    character = demo.Character.read(demo.EXAMPLE)
    demo.run(out, tmp_path / "data", character, Console(file=said, width=200), small())

    assert {path.name for path in out.iterdir()} == {"lora", "dataset", "sheets", "report.html"}
    assert "the character LoRA is ready" in said.getvalue()
    assert "it fits only the demo's base model, chibi" in " ".join(said.getvalue().split())
    assert_loras(out / "lora")
    assert_dataset(out / "dataset" / "1_eiei21girl")
    for name in ("round-1.png", "round-2.png", "before-after.png"):
        assert Image.open(out / "sheets" / name).width > 500
    assert_self_contained((out / "report.html").read_text())


def assert_loras(folder: Path) -> None:
    (kohya,) = (folder / "kohya").glob("*.safetensors")
    assert "eiei21girl" in json.loads(kohya.with_suffix(".json").read_text())["activation text"]
    assert Image.open(kohya.with_suffix(".preview.png")).format == "PNG"
    (diffusers,) = (folder / "diffusers").iterdir()
    with safe_open(kohya, "pt") as file:
        assert any(name.startswith("lora_unet_") for name in file.keys())  # noqa: SIM118  (no dict)
        assert file.metadata()["modelspec.trigger_phrase"] == "eiei21girl"
    with safe_open(diffusers, "pt") as file:
        assert any(name.startswith("unet.") for name in file.keys())  # noqa: SIM118  (no dict)


def assert_dataset(folder: Path) -> None:
    """Each picture has its caption, with the trigger first and none of her features."""
    pictures = sorted(folder.glob("*.png"))
    assert len(pictures) >= 4
    for picture in pictures:
        caption = picture.with_suffix(".txt").read_text()
        assert caption.startswith("eiei21girl, 1girl, solo, ")
        assert "fox" not in caption


def assert_self_contained(report: str) -> None:
    assert report.count("data:image/webp;base64,") > 30
    assert not re.search(r'(?:src|href)="?(?:https?:|//)', report)
    assert "<script" not in report
    assert all(word in report for word in ("Before and after", "eiei21girl", "<svg", "How long each part took"))
