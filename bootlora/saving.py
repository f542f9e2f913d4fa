"""Save a project's results: LoRA files, datasets for other trainers, contact sheets."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bootlora import sheets
from bootlora.client import Bootlora
from bootlora.http import ApiError, file_name
from bootlora.types import Image, Lora, Round

BESIDE_KOHYA = ("sidecar", "preview")


def lora(bootlora: Bootlora, found: Lora, folder: Path) -> list[Path]:
    """Save all files of a LoRA, each in a folder named after its format. What A1111 shows of it is beside kohya's."""
    return [
        bootlora.loras.save(found, name, folder / file_name("kohya" if name in BESIDE_KOHYA else name))
        for name, file in sorted(found["files"].items())
        if file
    ]


def latest_lora(bootlora: Bootlora, project_id: str) -> Lora:
    """The character LoRA if there is one, else the latest style LoRA."""
    loras = bootlora.loras.all(project_id)
    if not loras:
        raise ApiError(0, "no_lora", "the project has no LoRA yet; `bootlora watch` shows its progress")
    characters = [each for each in loras if each["kind"] == "character"]
    return (characters or loras)[-1]


def dataset(bootlora: Bootlora, project_id: str, round_: Round, folder: Path) -> Path:
    """Save a round's dataset in the layout of kohya's trainers: `1_trigger/001.png` with `001.txt`."""
    project = bootlora.projects.get(project_id)
    images = {image["id"]: image for image in bootlora.images.all(project_id)}
    place = folder / file_name(f"1_{project['trigger_word']}")
    for number, entry in enumerate(round_["dataset"], 1):
        for variant, caption in enumerate(entry["captions"] or [""], 1):  # the trainers read one line of a caption
            stem = f"{number:03d}" + (f"-caption-{variant}" if variant > 1 else "")
            image = bootlora.images.save(images[entry["image_id"]], place / f"{stem}.png")
            image.with_suffix(".txt").write_text(f"{caption}\n")
    return place


def pictures(bootlora: Bootlora, images: Iterable[Image], folder: Path) -> list[Path]:
    """Save images as `NUMBER_ID.png`."""
    return [
        bootlora.images.save(image, folder / file_name(f"{number:03d}_{image['id']}.png"))
        for number, image in enumerate(images, 1)
    ]


def sheet(images: list[Image], files: list[Path], path: Path, *, title: str, numbered: bool = False) -> Path:
    """Save a contact sheet of images that are already downloaded."""
    cells = [
        sheets.Cell(file, caption(image), number if numbered else None, image["decision"])
        for number, (image, file) in enumerate(zip(images, files, strict=True), 1)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    sheets.contact_sheet(cells, title=title).save(path)
    return path


def caption(image: Image) -> str:
    """A short caption: view and framing, or else the tags."""
    shown = [image.get("view"), (image.get("framing") or "").replace("_", " ")]
    return ", ".join(each for each in shown if each) or ", ".join(image.get("tags") or [])
