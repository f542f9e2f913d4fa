"""Settings from the environment, and the errors for missing or wrong ones."""

from __future__ import annotations

import subprocess
import sys

import pytest

from embedded.stack import ROOT
from shared.settings import Settings
from tests.shared.environment import NEEDED


@pytest.mark.parametrize(("said", "meant"), [("true", True), ("no", False), ("1", True)])
def test_yes_and_no_are_read_as_such(monkeypatch: pytest.MonkeyPatch, said: str, meant: bool) -> None:
    for name, value in {**NEEDED, "BOOTLORA_WEBHOOK_ALLOW_HTTP": said}.items():
        monkeypatch.setenv(name, value)
    assert Settings.from_env().webhook_allow_http is meant


def test_the_admin_command_tells_which_settings_are_missing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "shared.admin", "migrate"], env={}, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("bootlora-admin: ")
    assert all(name in done.stderr for name in NEEDED)
    assert "Traceback" not in done.stderr
