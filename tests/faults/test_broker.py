"""The broker restarts, dies, forgets, resets and falls silent: what runs is untouched, what waits is sent again."""

from __future__ import annotations

import time

import pytest
import redis

from tests.faults.conftest import Trial


@pytest.mark.fault("F4", "the broker is killed, jobs running and waiting")
def test_a_broker_that_dies_and_comes_back_loses_nothing(trial: Trial) -> None:
    busy(trial)
    trial.strike()
    trial.service.kill("valkey")
    trial.service.await_ready("valkey")
    expect_consumption(trial)


@pytest.mark.fault("F4", "the broker is restarted")
def test_a_broker_that_restarts_loses_nothing(trial: Trial) -> None:
    busy(trial)
    trial.strike()
    trial.service.restart("valkey")
    expect_consumption(trial)


@pytest.mark.fault("F4", "FLUSHALL: the broker forgets everything")
def test_a_broker_that_forgets_everything_is_told_again(trial: Trial) -> None:
    busy(trial)
    trial.strike()
    for _ in range(5):
        with redis.Redis.from_url(trial.service.runtime.settings.broker_url) as client:
            client.flushall()
        time.sleep(0.2)
    expect_consumption(trial)


@pytest.mark.fault("F4", "ten connection resets in a row")
def test_connections_to_the_broker_that_break_again_and_again_lose_nothing(trial: Trial) -> None:
    busy(trial)
    trial.strike()
    for _ in range(10):
        trial.service.broker.reset()
        time.sleep(0.7)
    expect_consumption(trial)


@pytest.mark.fault("F5", "the broker is a black hole for 15 s")
def test_jobs_are_accepted_while_the_broker_is_a_black_hole(trial: Trial) -> None:
    busy(trial)
    trial.strike()
    trial.service.broker.swallow()
    until = time.monotonic() + 15
    while time.monotonic() < until:
        assert trial.ask().status == 202
        time.sleep(0.2)
    trial.service.broker.heal()
    expect_consumption(trial)


def busy(trial: Trial) -> None:
    """Jobs that run and jobs that wait."""
    for _ in range(4):
        trial.submit(30)
    trial.service.await_running(trial.accepted[0])


def expect_consumption(trial: Trial) -> None:
    """A job that is accepted now runs: nobody needs a restart."""
    fresh = trial.submit(1)
    trial.service.await_done(fresh)
    trial.recovered()
    done = trial.all_done()
    assert all(job.attempt == 1 for job in done), "what was running should not have been touched"


@pytest.mark.fault("F4", "workers are connected, and yet take nothing")
def test_workers_that_take_nothing_notice_it_and_start_again(trial: Trial) -> None:
    service = trial.service
    control = service.runtime.broker.app.control  # type: ignore[attr-defined]
    service.await_that(lambda: len(control.cancel_consumer("gpu", reply=True, timeout=2)) >= 3)
    trial.strike()
    trial.submit(2)
    service.await_done(*trial.accepted)
    trial.recovered()
    trial.all_done()
