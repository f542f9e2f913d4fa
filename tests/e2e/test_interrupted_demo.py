"""Ctrl-C in a demo: it prints a message, exits with 130, and leaves no process and no half-written result."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from embedded.demo import INTERRUPTED
from tests.processes import of_folder

pytestmark = [pytest.mark.servers, pytest.mark.slow]


@pytest.mark.parametrize("moment", ["starting the workers", "training a style LoRA"])
def test_ctrl_c_leaves_nothing(tmp_path: Path, moment: str) -> None:
    command = [sys.executable, "-u", "-m", "embedded", "demo", "--out", tmp_path / "out", "--data", tmp_path / "data"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            assert any(moment in line for line in process.stdout)
            process.send_signal(signal.SIGINT)
            said = process.stdout.read()
            assert process.wait(60) == INTERRUPTED
        finally:
            process.kill()
    assert "all processes have ended" in said
    assert "Traceback" not in said
    assert of_folder(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
