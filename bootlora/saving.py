"""Bringing a project's results home: LoRA files, datasets that other trainers read, sheets of candidates."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bootlora import sheets
from bootlora.client import Bootlora
from bootlora.http import ApiError, file_name
from bootlora.types import Image, Lora, Round


def lora(bootlora: Bootlora, found: Lora, folder: Path) -> list[Path]:
    """All formats of a LoRA, each in a folder of its name."""
    return [bootlora.loras.save(found, format_, folder / file_name(format_)) for format_ in sorted(found["files"])]


def latest_lora(bootlora: Bootlora, project_id: str) -> Lora:
    """The character LoRA if there is one, else the latest style LoRA."""
    loras = bootlora.loras.all(project_id)
    if not loras:
        raise ApiError(0, "no_lora", "the project has no LoRA yet; `bootlora watch` shows how far it is")
    characters = [each for each in loras if each["kind"] == "character"]
    return (characters or loras)[-1]


def dataset(bootlora: Bootlora, project_id: str, round_: Round, folder: Path) -> Path:
    """What a round was trained on, as kohya's trainers read it: `1_trigger/001.png` with `001.txt`."""
    project = bootlora.projects.get(project_id)
    images = {image["id"]: image for image in bootlora.images.all(project_id)}
    place = folder / file_name(f"1_{project['trigger_word']}")
    for number, entry in enumerate(round_["dataset"], 1):
        image = bootlora.images.save(images[entry["image_id"]], place / f"{number:03d}.png")
        image.with_suffix(".txt").write_text("\n".join(entry["captions"]) + "\n")
    return place


def pictures(bootlora: Bootlora, images: Iterable[Image], folder: Path) -> list[Path]:
    """Each picture under its number and id."""
    return [
        bootlora.images.save(image, folder / file_name(f"{number:03d}_{image['id']}.png"))
        for number, image in enumerate(images, 1)
    ]


def sheet(images: list[Image], files: list[Path], path: Path, *, title: str, numbered: bool = False) -> Path:
    """A contact sheet of pictures that have been saved."""
    cells = [
        sheets.Cell(file, caption(image), number if numbered else None, image["decision"])
        for number, (image, file) in enumerate(zip(images, files, strict=True), 1)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    sheets.contact_sheet(cells, title=title).save(path)
    return path


def caption(image: Image) -> str:
    """What a picture is said to show, in few words."""
    shown = [image.get("view"), (image.get("framing") or "").replace("_", " ")]
    return ", ".join(each for each in shown if each) or ", ".join(image.get("tags") or [])
