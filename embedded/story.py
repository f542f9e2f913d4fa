"""What the demo's report shows: the character, the rounds and the results."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import click

from bootlora.following import Stage
from bootlora.types import Image, Lora, Project, Round


@dataclass(frozen=True)
class Character:
    """One picture and its description."""

    picture: Path
    trigger: str
    subject_tags: list[str]
    feature_tags: list[str]
    image_tags: list[str] = field(default_factory=list)  # what else this picture shows, such as its background

    @staticmethod
    def read(picture: Path) -> Character:
        """Read the description of a picture from the JSON file beside it.

        Raises:
            click.UsageError: there is no such file.
        """
        beside = picture.with_suffix(".json")
        if not beside.exists():
            wanted = '{"trigger": "eiei21girl", "subject_tags": ["1girl", "solo"], "feature_tags": ["fox ears", ...]}'
            raise click.UsageError(f"{beside} is missing; describe the picture in it: {wanted}")
        return Character(picture=picture, **json.loads(beside.read_text()))


@dataclass
class Lap:
    """A finished round."""

    round: Round
    lora: Lora
    images: list[Image]  # the candidates; in the character round, the evaluation pictures
    files: list[Path]
    sheet: Path
    title: str


@dataclass
class Story:
    """The contents of the report."""

    character: Character
    project: Project
    references: list[tuple[Image, Path]] = field(default_factory=list)
    dataset: list[tuple[Path, str]] = field(default_factory=list)
    laps: list[Lap] = field(default_factory=list)
    compared: list[tuple[str, list[Path]]] = field(default_factory=list)
    views: list[str] = field(default_factory=list)  # of the columns of `compared`
    stages: list[Stage] = field(default_factory=list)
    parts: dict[str, float] = field(default_factory=dict)  # seconds
    loras: list[Path] = field(default_factory=list)
