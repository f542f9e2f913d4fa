from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from shared.models import Project, User
from shared.runtime import Runtime
from tests.domain import make_project, make_runtime, make_user


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    runtime = make_runtime(tmp_path)
    yield runtime
    runtime.close()


@pytest.fixture
def session(runtime: Runtime) -> Iterator[Session]:
    with runtime.transaction() as session:
        yield session


@pytest.fixture
def user(runtime: Runtime) -> User:
    with runtime.transaction() as session:
        return make_user(session)


@pytest.fixture
def project(runtime: Runtime, user: User) -> Project:
    with runtime.transaction() as session:
        return make_project(session, user)
