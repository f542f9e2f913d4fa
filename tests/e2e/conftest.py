"""The whole service with all its servers, once for each module of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bootlora import Bootlora
from embedded.stack import Stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


@pytest.fixture
def bootlora(stack: Stack) -> Bootlora:
    return Bootlora(stack.url, stack.api_key)
