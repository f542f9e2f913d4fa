"""A user who sends zips of unusual pictures does not block other users."""

from __future__ import annotations

import io
import os
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import urllib3
from PIL import Image as Pixels

from shared import users
from shared.catalog.kinds import IMPORT
from shared.models import Job, Project
from tests.abuse.memory import watched
from tests.factories import png
from tests.faults.service import Service

pytestmark = pytest.mark.servers

ZIPS = 6
SIDE = 6300  # pixels: just below the 40 million that a picture may have


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("service")) as service:
        yield service


class Sender:
    """A user with a project of their own."""

    def __init__(self, service: Service, name: str):
        self.service = service
        user = service.user(name)
        self.project: Project = service.project(user)
        with service.runtime.db.transaction() as session:
            owner = users.get(session, user.id)
            _, self.key = users.create_key(session, owner, service.runtime.settings.secret_key, name="test")

    def post(self, path: str, **given: Any) -> urllib3.BaseHTTPResponse:
        headers = {"Authorization": f"Bearer {self.key}"}
        url = f"{self.service.url}/v1/projects/{self.project.id}{path}"
        return urllib3.request("POST", url, headers=headers, retries=False, timeout=90, **given)

    def send(self, path: str, name: str, content: bytes) -> urllib3.BaseHTTPResponse:
        return self.post(path, fields={"file": (name, content)})

    def post_to_store(self, content: bytes) -> str:
        """The job that takes in a file posted to the store."""
        offer = self.post("/uploads", json={"content_type": "image/png"}).json()
        form = {**offer["fields"], "file": ("a.png", content, "image/png")}
        assert urllib3.request("POST", offer["url"], fields=form, retries=False, timeout=90).status < 300
        return str(self.post("/uploads/complete", json={"slip": offer["slip"]}).json()["id"])


def zip_of_a_large_picture() -> bytes:
    """One picture that keeps a decoder busy for seconds."""
    picture, target = io.BytesIO(), io.BytesIO()
    Pixels.new("RGB", (SIDE, SIDE), "teal").save(picture, "JPEG")
    with zipfile.ZipFile(target, "w") as file:
        file.writestr("a.jpg", picture.getvalue())
    return target.getvalue()


def test_six_zips_of_large_pictures_leave_another_users_uploads_alone(service: Service) -> None:
    ada, bob = Sender(service, "ada"), Sender(service, "bob")
    content = zip_of_a_large_picture()
    imports = [ada.send("/imports", "x.zip", content) for _ in range(ZIPS)]
    assert [answer.status for answer in imports] == [202] * ZIPS

    assert bob.send("/images", "a.png", png()).status == 201
    his = service.job_of_id(bob.post_to_store(png()))
    (his,) = service.await_done(his)
    assert his.state == "succeeded"
    hers: list[Job] = [service.job_of_id(answer.json()["id"]) for answer in imports]
    begun = [job for job in hers if job.started_at and his.queued_at < job.started_at < his.started_at]
    assert len(begun) <= 1, "his turn comes next"

    ended = service.await_done(*hers)
    assert [job.state for job in ended] == ["succeeded"] * ZIPS


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_large_zips_at_once_take_the_api_a_disk_and_no_memory(service: Service) -> None:
    senders = [Sender(service, f"sender {number}") for number in range(2)]
    content = zip_of_large_files()
    with watched(service.supervisor, "api") as growth, ThreadPoolExecutor(len(senders)) as pool:
        answers = list(pool.map(lambda sender: sender.send("/imports", "x.zip", content), senders))
        assert [answer.status for answer in answers] == [202] * len(senders), answers[0].data
        assert growth() < len(content), "some buffers for each"
    ended = service.await_done(*(service.job_of_id(answer.json()["id"]) for answer in answers))
    assert [job.state for job in ended] == ["succeeded"] * len(senders)


def zip_of_large_files() -> bytes:
    """One picture, and eight files of 15 MB that are left out."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as file:
        file.writestr("a.png", png())
        for number in range(8):
            file.writestr(f"{number}.bin", os.urandom(15_000_000))
    return target.getvalue()


def test_a_zip_of_broken_pictures_is_decoded_up_to_the_bound_of_an_import(service: Service) -> None:
    cleo, target = Sender(service, "cleo"), io.BytesIO()
    with zipfile.ZipFile(target, "w") as file:
        file.writestr("a.png", png())
        for number in range(30):
            file.writestr(f"b{number:02}.png", b"\x89PNG\r\n\x1a\n, and then nothing")
    answer = cleo.send("/imports", "x.zip", target.getvalue())
    (job,) = service.await_done(service.job_of_id(answer.json()["id"]))
    counts = Counter(file.code for file in IMPORT.result_of(job).files)
    settings = service.runtime.settings
    most = -(-settings.max_pixels_per_import // settings.max_image_pixels)
    assert counts == {None: 1, "not_a_picture": most, "too_many_pixels": 30 - most}
