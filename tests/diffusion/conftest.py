"""Base models and pictures for the torch tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from shared import catalog
from shared.catalog.params import TrainParams
from tests.diffusion import tiny
from tests.diffusion.tiny import make_image
from workers.diffusion import families
from workers.diffusion.dataset import Example
from workers.diffusion.families.base import Family
from workers.diffusion.families.sd15 import StableDiffusion15


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """So small models gain nothing from threads, which lose a lot where cores are shared."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    tiny.make_base_model(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_row(tiny_folder: Path) -> catalog.BaseModel:
    return catalog.BaseModel(name="tiny", family="sd15", path=str(tiny_folder), resolution=tiny.RESOLUTION)


@pytest.fixture(scope="session")
def base(tiny_row: catalog.BaseModel) -> Family:
    """A tiny epsilon model of random weights."""
    return StableDiffusion15(tiny_row, "cpu")


@pytest.fixture(scope="session")
def chibi() -> Iterator[Family]:
    """The base model that ships: small, but real."""
    row = catalog.BASE_MODELS["chibi"]
    path = tiny.ROOT / row.path
    yield families.load(replace(row, path=str(path)), "cpu")
    families.unload()


@pytest.fixture(scope="session")
def examples() -> list[Example]:
    """Four pictures that differ, with two captions each."""
    return [
        Example(make_image(seed), [f"eiei21girl, 1girl, solo, {view}", f"1girl, red hair, {view}"])
        for seed, view in enumerate(["looking at viewer", "from side", "from behind", "from above"])
    ]


@pytest.fixture(scope="session")
def params() -> TrainParams:
    """A short run in which everything happens: rank is not alpha, captions drop, noise is offset, steps accumulate."""
    return TrainParams(
        rank=4, alpha=2.0, learning_rate=1e-3, train_steps=6, batch_size=3, gradient_accumulation=2, warmup_steps=2,
        caption_dropout=0.3, noise_offset=0.05, checkpoint_every_steps=2, lora_modules="attention", precision="fp32",
        seed=7,
    )  # fmt: skip
