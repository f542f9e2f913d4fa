"""A worker that is configured for a GPU does not start without it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import func, select

from embedded.stack import ROOT
from shared.models import Worker
from tests.domain import make_runtime

pytestmark = pytest.mark.slow

START = "from workers import tasks; tasks.node.name = tasks.node.queue = 'gpu'; tasks.start_or_leave()"


@pytest.mark.parametrize(("device", "starts"), [("cpu", True), ("cuda:99", False)])
def test_a_worker_starts_only_where_its_device_is(tmp_path: Path, device: str, starts: bool) -> None:
    runtime = make_runtime(tmp_path)
    given = {
        "BOOTLORA_DATABASE_URL": runtime.settings.database_url,
        "BOOTLORA_BROKER_URL": "redis://127.0.0.1:1/0",
        "BOOTLORA_STORAGE_URL": runtime.settings.storage_url,
        "BOOTLORA_SECRET_KEY": runtime.settings.secret_key,
        "BOOTLORA_SCRATCH_DIR": str(runtime.settings.scratch_dir),
        "BOOTLORA_DEVICE": device,
    }
    command = [sys.executable, "-c", f"{START}; tasks.node.check_in(); print('started')"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | given, capture_output=True, text=True, check=False)
    assert ("started" in done.stdout) == starts
    assert ("there is no device 'cuda:99' here" in done.stdout + done.stderr) == (not starts)
    assert (done.returncode == 0) == starts
    with runtime.db.reading() as session:
        assert session.scalar(select(func.count()).select_from(Worker)) == int(starts)
    runtime.close()
