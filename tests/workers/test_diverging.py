"""A training whose loss is not a number: real steps of a tiny model, of which one is told to go wrong."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from shared import jobs
from shared.catalog import BaseModel
from shared.errors import JobFailed
from shared.models import Job
from shared.params import TrainParams
from shared.runtime import Runtime
from tests.diffusion.tiny import RESOLUTION, make_base_model
from tests.domain import claim, make_project, make_runtime, make_user
from tests.factories import png
from workers.diffusion import families, train
from workers.runner import work_on

FULL, HALF = 1e-3, 0.5e-3
PARAMS = TrainParams(
    learning_rate=FULL, train_steps=6, batch_size=1, checkpoint_every_steps=2, rank=2, lora_modules="attention",
    resolution=RESOLUTION, precision="fp32",
)  # fmt: skip

Diverging = Callable[..., list[float]]


@pytest.fixture(scope="module")
def tiny_row(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BaseModel]:
    torch.set_num_threads(1)
    yield make_base_model(tmp_path_factory.mktemp("tiny"))
    families.unload()


@pytest.fixture
def runtime(tmp_path: Path, tiny_row: BaseModel) -> Iterator[Runtime]:
    runtime = make_runtime(tmp_path)
    runtime.base_models["tiny"] = tiny_row
    yield runtime
    runtime.close()


@pytest.fixture
def job(runtime: Runtime) -> Job:
    """A training that waits."""
    picture = png()
    runtime.storage.put_bytes("picture", picture)
    entry = {"key": "picture", "sha256": hashlib.sha256(picture).hexdigest(), "captions": ["eiei21girl, 1girl"]}
    inputs = {"base_model": "tiny", "dataset": [entry], "name": "eiei21girl-style", "trigger_word": "eiei21girl"}
    with runtime.transaction() as session:
        project = make_project(session, make_user(session), references=0)
        return jobs.enqueue(session, project, "train", params=asdict(PARAMS), inputs=inputs)


@pytest.fixture
def diverging(monkeypatch: pytest.MonkeyPatch) -> Diverging:
    """Have the losses be no numbers from a step on, at learning rates above a limit. Returns the rates of all steps."""

    def diverging(*, above: float, from_step: int) -> list[float]:
        batch_loss, rates, calls = train.batch_loss, list[float](), itertools.count(1)

        def lossy(base: Any, data: Any, indices: Any, params: TrainParams, generator: Any) -> Tensor:
            rates.append(params.learning_rate)
            loss = batch_loss(base, data, indices, params, generator)
            return loss * math.nan if params.learning_rate > above and next(calls) >= from_step else loss

        monkeypatch.setattr(train, "batch_loss", lossy)
        return rates

    return diverging


def attempt(runtime: Runtime, job: Job) -> dict[str, Any]:
    held = claim(runtime, job)
    assert held is not None
    return work_on(runtime, held, lambda: False)


def lose(runtime: Runtime, job: Job) -> None:
    with runtime.transaction() as session:
        jobs.lose(session, session.get_one(Job, job.id), runtime.settings)


def test_it_goes_on_from_its_last_checkpoint_at_half_its_learning_rate(
    runtime: Runtime, job: Job, diverging: Diverging
) -> None:
    rates = diverging(above=HALF, from_step=6)
    result = attempt(runtime, job)
    assert rates == [FULL] * 6 + [HALF] * 2
    assert result["train_steps"] == 6
    assert all(math.isfinite(loss) for _, loss in result["metrics"]["curve"])


def test_before_the_first_checkpoint_it_starts_over(runtime: Runtime, job: Job, diverging: Diverging) -> None:
    rates = diverging(above=HALF, from_step=2)
    attempt(runtime, job)
    assert rates == [FULL] * 2 + [HALF] * 6


def test_another_attempt_knows_that_it_diverged(runtime: Runtime, job: Job, diverging: Diverging) -> None:
    rates = diverging(above=HALF, from_step=4)
    attempt(runtime, job)
    lose(runtime, job)
    rates.clear()
    attempt(runtime, job)
    assert not rates, "its last checkpoint was its end"
    with runtime.transaction() as session:
        row = session.get_one(Job, job.id)
        assert row.checkpoint is not None
        row.checkpoint = {**row.checkpoint, "kept": row.checkpoint["kept"][1:]}
    lose(runtime, job)
    attempt(runtime, job)
    assert rates == [HALF] * 2


def test_one_that_diverges_again_fails_and_says_so(runtime: Runtime, job: Job, diverging: Diverging) -> None:
    rates = diverging(above=0.0, from_step=4)
    with pytest.raises(JobFailed) as failed:
        attempt(runtime, job)
    assert (failed.value.code, failed.value.retryable) == ("nan_loss", True)
    assert rates == [FULL] * 4 + [HALF]
