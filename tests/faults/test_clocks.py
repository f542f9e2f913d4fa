"""Workers whose clocks are wrong: leases know the database's clock only."""

from __future__ import annotations

import pytest

from tests.faults.conftest import Trial

HOUR = 3600


@pytest.mark.long
@pytest.mark.parametrize("hours", [1, -1], ids=["ahead", "behind"])
@pytest.mark.fault("F16", "a worker's clock is an hour off")
def test_a_worker_whose_clock_is_wrong_works_as_any_other(trial: Trial, hours: int) -> None:
    service = trial.service
    name = f"gpu-off{'-ahead' if hours > 0 else '-behind'}"
    trial.strike()
    service.add_worker(name, BOOTLORA_TEST_CLOCK_OFFSET=str(hours * HOUR))
    try:
        for _ in range(9):
            trial.submit(10)
        done = trial.all_done()
        assert any((job.worker or "").startswith(name) for job in done), "it took no part"
        assert all(job.attempt == 1 for job in done)
        assert name in service.live_workers()
    finally:
        service.supervisor.kill(f"worker-{name}")
        service.supervisor.stop(f"worker-{name}")
    service.await_that(lambda: name not in service.live_workers())
