"""The same on Postgres, where transactions really run side by side."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.models import Base
from shared.runtime import Runtime
from tests.api.conftest import make_runtime
from tests.api.test_etags import *  # noqa: F403
from tests.api.test_idempotency import *  # noqa: F403
from tests.api.test_main_job import *  # noqa: F403
from tests.factories import make_image, make_project

pytestmark = pytest.mark.servers


@pytest.fixture
def runtime(tmp_path: Path, postgres_url: str, settings: dict[str, Any]) -> Iterator[Runtime]:
    runtime = make_runtime(tmp_path / "store", postgres_url, **settings)
    Base.metadata.drop_all(runtime.db.engine)
    Base.metadata.create_all(runtime.db.engine)
    yield runtime
    runtime.close()


def test_seeds_and_places_beyond_four_bytes(ada, session_of):
    with session_of() as session:
        project = make_project(session, ada.user_id)
        image = make_image(session, project, seed=5_000_000_000)
    assert ada.get(f"/v1/images/{image.id}").json["seed"] == 5_000_000_000
    assert ada.get(f"/v1/projects/{project.id}/events?after=3000000000").json["items"] == []
