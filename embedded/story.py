"""What a demo has to tell: the character it began with, and what came of her."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import click

from bootlora.following import Stage
from bootlora.types import Image, Lora, Project, Round


@dataclass(frozen=True)
class Character:
    """One picture, and what a person can say of it."""

    picture: Path
    trigger: str
    subject_tags: list[str]
    feature_tags: list[str]
    image_tags: list[str] = field(default_factory=list)  # what else this very picture shows, and is not hers

    @staticmethod
    def read(picture: Path) -> Character:
        """What is told of a picture in the JSON file beside it.

        Raises:
            click.UsageError: there is none.
        """
        beside = picture.with_suffix(".json")
        if not beside.exists():
            wanted = '{"trigger": "eiei21girl", "subject_tags": ["1girl", "solo"], "feature_tags": ["fox ears", ...]}'
            raise click.UsageError(f"say what the picture shows, in {beside}: {wanted}")
        return Character(picture=picture, **json.loads(beside.read_text()))


@dataclass
class Lap:
    """A round, looked back on."""

    round: Round
    lora: Lora
    images: list[Image]  # its candidates; of the character round, the pictures it was tried with
    files: list[Path]
    sheet: Path
    title: str


@dataclass
class Story:
    """All that the report tells."""

    character: Character
    project: Project
    references: list[tuple[Image, Path]] = field(default_factory=list)
    dataset: list[tuple[Path, str]] = field(default_factory=list)
    laps: list[Lap] = field(default_factory=list)
    compared: list[tuple[str, list[Path]]] = field(default_factory=list)
    views: list[str] = field(default_factory=list)  # of each column that is compared
    stages: list[Stage] = field(default_factory=list)
    parts: dict[str, float] = field(default_factory=dict)  # seconds
    loras: list[Path] = field(default_factory=list)
