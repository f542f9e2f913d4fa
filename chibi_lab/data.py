"""The training set: shards of rendered pictures with what they show, made again from the seed at any time."""

import json
import multiprocessing
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from .world import (
    Character,
    Shot,
    draw,
    picture_tags,
    sample_character,
    sample_held_out,
    sample_shot,
    subject_tags,
)

Choose = Callable[[np.random.Generator], Character]
SHARD = 1024  # pictures
HELD_OUT_SEED = 1_000_000  # added to the seed for pictures of held-out characters


@dataclass(frozen=True)
class Record:
    """What is known about one picture."""

    character: Character
    shot: Shot
    seen: frozenset[str]

    @cached_property
    def tags(self) -> list[str]:
        """What the picture shows, beside the subject."""
        return picture_tags(self.character, self.shot, self.seen)[len(subject_tags(self.character)) :]

    def to_dict(self) -> dict:
        return {"character": self.character.to_dict(), "shot": self.shot.to_dict(), "seen": sorted(self.seen)}

    @staticmethod
    def from_dict(values: dict) -> "Record":
        character, shot = Character.from_dict(values["character"]), Shot.from_dict(values["shot"])
        return Record(character, shot, frozenset(values["seen"]))


def sample(rng: np.random.Generator, size: int, choose: Choose = sample_character) -> tuple[np.ndarray, Record]:
    """One picture; as it stands, for training: held-out characters never come out of it."""
    character, shot = choose(rng), sample_shot(rng)
    drawing = draw(character, shot, size)
    return drawing.pixels, Record(character, shot, drawing.seen)


def render_shard(
    folder: Path, index: int, seed: int, size: int, count: int = SHARD, choose: Choose = sample_character
) -> None:
    """Write one shard unless it is there already."""
    captions = folder / f"records-{index:04d}.json"
    if captions.exists():
        return
    rng = np.random.default_rng((seed, index))
    pictures, records = zip(*(sample(rng, size, choose) for _ in range(count)), strict=True)
    np.save(folder / f"pictures-{index:04d}.npy", np.stack(pictures))
    unfinished = captions.with_suffix(".part")
    unfinished.write_text(json.dumps([r.to_dict() for r in records]))
    unfinished.rename(captions)  # last, so that a shard counts only when it is whole


def render_set(folder: Path, shards: int, seed: int, size: int, workers: int, count: int = SHARD) -> None:
    """With 0 `workers`, as many as there are cores."""
    jobs = [(folder, index, seed, size, count) for index in range(shards)]
    workers = workers or os.cpu_count() or 1
    folder.mkdir(parents=True, exist_ok=True)
    if workers == 1:
        for job in jobs:
            render_shard(*job)
        return
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        pool.starmap(render_shard, jobs, chunksize=1)


def render_held_out(folder: Path, seed: int, size: int, count: int) -> None:
    """Pictures of held-out characters: only ever measured on."""
    folder.mkdir(parents=True, exist_ok=True)
    render_shard(folder, 0, seed + HELD_OUT_SEED, size, count, sample_held_out)


class PictureSet:
    """All finished shards of a folder: pictures stay on disk, records in memory."""

    def __init__(self, folder: Path, with_records: bool = True):
        finished = sorted(folder.glob("records-*.json"))
        if not finished:
            raise FileNotFoundError(f"no finished shard in {folder}; run the data stage first")
        self.shards = [
            np.load(path.with_name(path.name.replace("records", "pictures")).with_suffix(".npy"), mmap_mode="r")
            for path in finished
        ]
        self.shard_size = len(self.shards[0])
        self.records = (
            [Record.from_dict(values) for path in finished for values in json.loads(path.read_text())]
            if with_records
            else []
        )

    def __len__(self) -> int:
        return self.shard_size * len(self.shards)

    def pictures(self, indices: Iterable[int] | np.ndarray) -> np.ndarray:
        """(n, size, size, 3) uint8"""
        return np.stack([self.shards[i // self.shard_size][i % self.shard_size] for i in indices])
