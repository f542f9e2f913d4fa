"""Files that clients post straight to the store."""

from __future__ import annotations

from dataclasses import replace

import pytest
import requests

from shared.runtime import open_storage
from shared.storage import FolderStorage, PresignedPost
from tests.api.test_main_job import PROJECT
from tests.factories import png

WANTED = {"content_type": "image/png", "view": "side", "framing": "portrait", "tags": ["smile"]}


class OpenFolder(FolderStorage):
    """A folder that signs forms, which nobody checks."""

    def presigned_post(self, key, content_type, max_bytes, expires):
        return PresignedPost(url="http://store", fields={"key": key})


@pytest.fixture
def folder(runtime):
    runtime.storage = OpenFolder(runtime.storage.folder)
    return runtime.storage


@pytest.fixture
def project_id(ada):
    return ada.post("/v1/projects", PROJECT).json["id"]


def test_a_posted_file_becomes_an_image_once(ada, folder, project_id):
    offer = ada.post(f"/v1/projects/{project_id}/uploads", WANTED).json
    key = offer["fields"]["key"]
    done = f"/v1/projects/{project_id}/uploads/complete"
    early = ada.post(done, {"slip": offer["slip"]})
    assert (early.status_code, early.json["code"]) == (409, "not_uploaded")

    folder.put_bytes(key, png())
    image = ada.post(done, {"slip": offer["slip"]})
    assert image.status_code == 201, image.json
    assert (image.json["view"], image.json["framing"], image.json["width"]) == ("side", "portrait", 64)
    assert "smile" in image.json["tags"]
    assert not list(folder.list("incoming/"))
    assert ada.post(done, {"slip": offer["slip"]}).json["code"] == "not_uploaded"


def test_a_posted_file_that_is_no_picture_is_refused(ada, folder, project_id):
    offer = ada.post(f"/v1/projects/{project_id}/uploads", WANTED).json
    folder.put_bytes(offer["fields"]["key"], b"no picture")
    answer = ada.post(f"/v1/projects/{project_id}/uploads/complete", {"slip": offer["slip"]})
    assert (answer.status_code, answer.json["code"]) == (422, "not_a_picture")


def test_a_slip_is_good_for_its_project_alone(ada, bob, folder, project_id):
    slip = ada.post(f"/v1/projects/{project_id}/uploads", WANTED).json["slip"]
    other = bob.post("/v1/projects", PROJECT).json["id"]
    assert bob.post(f"/v1/projects/{other}/uploads/complete", {"slip": slip}).json["code"] == "bad_slip"
    assert ada.post(f"/v1/projects/{project_id}/uploads/complete", {"slip": slip[:-9]}).json["code"] == "bad_slip"


@pytest.mark.servers
def test_the_store_takes_what_the_form_allows(ada, runtime, s3, project_id):
    runtime.settings = replace(
        runtime.settings,
        storage_url="s3://uploads",
        s3_endpoint=s3.endpoint,
        s3_access_key=s3.access_key,
        s3_secret_key=s3.secret_key,
    )
    runtime.storage = open_storage(runtime.settings)
    runtime.storage.prepare()
    offer = ada.post(f"/v1/projects/{project_id}/uploads", WANTED).json
    posted = requests.post(offer["url"], data=offer["fields"], files={"file": ("x.png", png())}, timeout=10)
    assert posted.ok, posted.text
    image = ada.post(f"/v1/projects/{project_id}/uploads/complete", {"slip": offer["slip"]}).json
    assert requests.get(image["url"], timeout=10).content.startswith(b"\x89PNG")
