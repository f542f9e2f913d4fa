"""The object store goes away, crawls, and sends other bytes than were put."""

from __future__ import annotations

import time

import pytest

from shared.lifecycle import ProjectState
from tests.faults.conftest import Trial


@pytest.mark.fault("F10", "the store is down for 12 s")
def test_a_store_that_is_down_is_waited_for(trial: Trial) -> None:
    trial.running(30)
    trial.strike()
    trial.service.store.cut()
    time.sleep(12)
    trial.service.store.heal()
    trial.all_done()


@pytest.mark.fault("F10", "the store is killed while objects are being put")
def test_a_store_that_dies_keeps_what_it_has_acknowledged(trial: Trial) -> None:
    for _ in range(4):
        trial.submit(30)
    trial.service.await_running(trial.accepted[0])
    trial.strike()
    trial.service.kill("seaweedfs")
    trial.service.await_ready("seaweedfs")
    trial.recovered()
    trial.all_done()


@pytest.mark.fault("F10", "the store answers at 10 kB/s")
def test_a_store_that_crawls_only_takes_longer(trial: Trial) -> None:
    trial.strike()
    trial.service.store.slow(10_000)
    trial.submit(4)
    trial.all_done()


@pytest.mark.fault("F10", "the store sends wrong bytes for a picture, a checkpoint and a LoRA")
def test_wrong_bytes_are_noticed_and_fetched_again(trial: Trial) -> None:
    project = trial.bootstrap()
    trial.strike()
    trial.service.store.spoil(3)
    trial.service.await_that(lambda: trial.state_of(project) != ProjectState.RUNNING)
    trial.recovered()
    assert trial.state_of(project) == ProjectState.COMPLETED
    trial.all_done()
