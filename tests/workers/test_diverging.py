"""A training whose loss is not a number."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from shared.errors import JobFailed
from shared.params import TrainParams
from workers.diffusion.train import NanLoss
from workers.handlers import train

PARAMS = TrainParams(learning_rate=1e-3)


class Row:
    """What the next attempt would find."""

    def __init__(self) -> None:
        self.checkpoint: dict[str, Any] | None = None

    def work(self) -> Any:
        def save(checkpoint: dict[str, Any]) -> None:
            self.checkpoint = checkpoint

        job = SimpleNamespace(checkpoint=self.checkpoint)
        return SimpleNamespace(job=job, save_checkpoint=save, next_stage=lambda: None)


def trained(row: Row, monkeypatch: pytest.MonkeyPatch, diverges_above: float) -> list[float]:
    """Trains, and returns the learning rates that were tried."""
    tried: list[float] = []

    def train_lora(family: Any, examples: Any, params: TrainParams, **_: Any) -> None:
        tried.append(params.learning_rate)
        if params.learning_rate > diverges_above:
            raise NanLoss(7, params)

    monkeypatch.setattr(train, "train_lora", train_lora)
    train._train(row.work(), None, [], [], PARAMS)  # type: ignore[arg-type]
    return tried


def test_a_training_that_diverges_is_tried_once_more_at_half_its_learning_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    assert trained(Row(), monkeypatch, diverges_above=0.7e-3) == [1e-3, 0.5e-3]


def test_another_attempt_knows_that_it_diverged(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Row()
    trained(row, monkeypatch, diverges_above=0.7e-3)
    assert trained(row, monkeypatch, diverges_above=0.7e-3) == [0.5e-3]


def test_one_that_diverges_again_fails_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(JobFailed) as failed:
        trained(Row(), monkeypatch, diverges_above=0.0)
    assert (failed.value.code, failed.value.retryable) == ("nan_loss", True)
