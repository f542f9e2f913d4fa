"""Disks that fill up, under everything at once: scratch, store, broker's log and SQLite's file."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import Trial
from tests.faults.service import Service

SIZE_MB = 200
FULL_SECONDS = 8


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("disk")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "bootlora-test", folder], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("a small disk can only be mounted by root")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture(scope="module")
def service(small_disk: Path) -> Iterator[Service]:
    with Service(small_disk / "data", workers=2, STORE_PATIENCE_SECONDS="10") as service:
        yield service


@pytest.mark.fault("F11", "the disk under scratch, store, broker and SQLite is full")
def test_a_full_disk_is_told_and_all_goes_on_once_there_is_space(trial: Trial, small_disk: Path) -> None:
    service = trial.service
    for _ in range(2):
        trial.running(60)
    filler = small_disk / "filler"
    trial.strike()
    fill(filler)
    service.await_that(lambda: trial.ask().status == 503, seconds=60)
    time.sleep(FULL_SECONDS)
    filler.unlink()
    service.await_that(lambda: (answer := trial.ask()).status == 202 and answer, seconds=60)
    trial.recovered()
    done = service.await_done(*trial.accepted)
    told = {(job.error or {}).get("code") for job in done}
    assert told <= {None, "disk_full", "store_unavailable"}, told
    assert all(job.error["retryable"] for job in done if job.error)
    fresh = trial.submit(2)
    assert service.await_done(fresh)[0].state == "succeeded"


def fill(path: Path) -> None:
    """Take all that is left."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
