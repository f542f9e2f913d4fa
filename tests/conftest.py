"""Fixtures for every test. Servers are real, and start when a test first asks for one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from embedded.supervisor import Supervisor
from tests import servers


def pytest_sessionstart() -> None:
    """Who runs the tests in the background may have told them to ignore Ctrl-C, and their children would inherit it."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes minutes begins first, so that the other processes have all else to do beside it."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session")
def supervisor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    """Runs the servers of this test process, and ends them with it."""
    with Supervisor(tmp_path_factory.mktemp("servers")) as supervisor:
        yield supervisor


@pytest.fixture(scope="session")
def valkey_url(supervisor: Supervisor) -> str:
    return servers.start_valkey(supervisor)


@pytest.fixture(scope="session")
def s3(supervisor: Supervisor) -> servers.S3:
    return servers.start_seaweedfs(supervisor)


@pytest.fixture(scope="session")
def postgres(supervisor: Supervisor) -> Iterator[servers.Postgres]:
    with servers.short_folder() as folder:
        yield servers.Postgres(supervisor, folder)
        supervisor.stop("postgres")


@pytest.fixture(scope="module")
def postgres_url(postgres: servers.Postgres) -> str:
    """A fresh, empty database for each test module."""
    return postgres.make_database()
