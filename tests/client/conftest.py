"""A scripted service and a client of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bootlora import Bootlora, http
from tests.client.service import Service


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.close()


@pytest.fixture
def bootlora(service: Service, monkeypatch: pytest.MonkeyPatch) -> Bootlora:
    monkeypatch.setattr(http, "FIRST_PAUSE_SECONDS", 0.01)
    return Bootlora(service.url, "btl_test")
