"""Drawings that would take a worker's memory are refused, and the largest that are allowed take a bounded amount."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from embedded.stack import Stack
from tests.abuse.memory import watched
from tests.api.bodies import PROJECT

pytestmark = [
    pytest.mark.servers,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]

MOST_GROWTH = 2_000_000_000  # bytes, with torch and the base model
TOO_LARGE = (
    ({"width": 1024, "height": 1024, "batch_size": 4}, "size_too_large"),
    ({"width": 2048, "height": 2048, "batch_size": 1}, "size_too_large"),
    ({"width": 512, "height": 512, "batch_size": 64}, "batch_too_large"),
)
LARGEST: dict[str, Any] = {"width": 512, "height": 512, "batch_size": 4, "inference_steps": 1}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


def test_a_drawing_takes_a_bounded_amount_of_memory(stack: Stack) -> None:
    client = requests.Session()
    client.headers["Authorization"] = f"Bearer {stack.api_key}"
    project = client.post(f"{stack.url}/v1/projects", json=PROJECT | {"base_model": "chibi"}).json()

    def draw(params: dict[str, Any]) -> requests.Response:
        body = {"pictures": [{"prompt": "1girl, full body", "count": 4}], "params": params}
        return client.post(f"{project['links']['self']}/generations", json=body)

    with watched(stack.supervisor, "worker-gpu") as growth:
        refused = [(draw(params), code) for params, code in TOO_LARGE]
        assert [(answer.status_code, answer.json()["code"]) for answer, code in refused] == [
            (422, code) for _, code in TOO_LARGE
        ]
        assert ["512x512" in refused[0][0].json()["detail"], " 4" in refused[2][0].json()["detail"]] == [True, True]
        job = draw(LARGEST).json()
        while job["state"] in ("queued", "running"):
            job = client.get(job["links"]["self"], headers={"Prefer": "wait=60"}).json()
        assert (job["state"], len(client.get(job["links"]["images"]).json()["items"])) == ("succeeded", 4)
        assert growth() < MOST_GROWTH
