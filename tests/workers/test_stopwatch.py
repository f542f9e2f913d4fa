"""The seconds of an attempt, by stage."""

from __future__ import annotations

import pytest

from workers import stopwatch
from workers.stopwatch import Stopwatch


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(stopwatch, "time", clock)
    return clock


def test_each_second_belongs_to_a_stage(clock: Clock) -> None:
    watch = Stopwatch()
    clock.now += 1
    watch.begin("loading")  # the time before it is its own
    clock.now += 2
    watch.begin("training")
    watch.begin("training")
    clock.now += 4
    assert watch.now() == {"seconds": 7.0, "stage_seconds": 4.0}
    assert watch.seconds() == {"loading": 3.0, "training": 4.0}


def test_a_stage_that_comes_again_is_summed(clock: Clock) -> None:
    watch = Stopwatch()
    for stage in ("drawing", "training", "drawing"):
        watch.begin(stage)
        clock.now += 1
    assert watch.seconds() == {"drawing": 2.0, "training": 1.0}


def test_work_without_stages_is_one(clock: Clock) -> None:
    watch = Stopwatch()
    clock.now += 5
    assert watch.seconds() == {"working": 5.0}
