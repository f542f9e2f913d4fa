from __future__ import annotations

import logging
import sys

import pytest
import structlog

from shared.outside import logs
from shared.settings import Settings


class FullDisk:
    def write(self, text: str) -> None:
        raise OSError(28, "No space left on device")

    def flush(self) -> None:
        self.write("")


def test_a_full_disk_under_the_log_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", FullDisk())
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    try:
        logs.configure("json")
        structlog.get_logger().warning("something", job_id="job_1")
    finally:
        structlog.reset_defaults()


def test_settings_show_no_secret() -> None:
    shown = repr(
        Settings(database_url="a:pw1@b", broker_url="a:pw2@b", storage_url="", secret_key="pw3", s3_secret_key="pw4")
    )
    assert not any(secret in shown for secret in ("pw1", "pw2", "pw3", "pw4"))
