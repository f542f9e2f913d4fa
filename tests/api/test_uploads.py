"""Files that clients post directly to the store."""

from __future__ import annotations

import io
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import psutil
import pytest
import requests

from api import uploads
from shared import reconcile
from shared.errors import Unavailable
from shared.models import Job
from shared.outside.storage import FolderStorage, PresignedPost
from shared.queue import jobs
from shared.runtime import open_storage
from tests.api.bodies import PROJECT, upload
from tests.api.conftest import Caller
from tests.factories import png
from workers.runner import run_job

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


@pytest.fixture
def complete(ada, project_id):
    return partial(ada.post, f"/v1/projects/{project_id}/uploads/complete")


def posted(ada, folder, project_id, content, **wanted):
    """The slip of a file that has been posted, and its key."""
    offer = ada.post(f"/v1/projects/{project_id}/uploads", WANTED | wanted).json
    folder.put_bytes(offer["fields"]["key"], content)
    return offer["slip"], offer["fields"]["key"]


def work_on(runtime, job_id, attempt=1):
    run_job(runtime, job_id, attempt, "cpu@test", lambda: False)


def test_a_posted_file_becomes_an_image(ada, runtime, folder, project_id, complete):
    slip, _ = posted(ada, folder, project_id, png())
    accepted = complete({"slip": slip})
    assert (accepted.status_code, accepted.json["kind"], accepted.json["state"]) == (202, "upload", "queued")
    assert accepted.headers["Location"].endswith(f"/v1/jobs/{accepted.json['id']}")
    assert not ada.get(f"/v1/projects/{project_id}/images").json["items"], "nothing is usable before it is checked"

    work_on(runtime, accepted.json["id"])
    assert ada.get(accepted.headers["Location"]).json["state"] == "succeeded"
    (image,) = ada.get(f"/v1/jobs/{accepted.json['id']}/images").json["items"]
    assert (image["view"], image["framing"], image["width"]) == ("side", "portrait", 64)
    assert (image["source"], image["decision"]) == ("upload", "accepted")
    assert "smile" in image["tags"]
    assert not list(folder.list("incoming/"))


def test_a_slip_that_comes_twice_is_the_same_job(ada, runtime, folder, project_id, complete):
    slip, _ = posted(ada, folder, project_id, png())
    first = complete({"slip": slip}).json["id"]
    assert complete({"slip": slip}).json["id"] == first
    work_on(runtime, first)
    assert complete({"slip": slip}).json["id"] == first
    assert len(ada.get(f"/v1/projects/{project_id}/images").json["items"]) == 1


def test_nothing_is_taken_in_before_it_has_arrived(ada, folder, project_id, complete):
    slip = ada.post(f"/v1/projects/{project_id}/uploads", WANTED).json["slip"]
    answer = complete({"slip": slip})
    assert (answer.status_code, answer.json["code"]) == (409, "not_uploaded")


def test_a_posted_file_that_is_no_picture_fails_its_job_and_may_be_posted_again(
    ada, runtime, folder, project_id, complete
):
    slip, key = posted(ada, folder, project_id, b"no picture")
    first = complete({"slip": slip}).json["id"]
    work_on(runtime, first)
    failed = ada.get(f"/v1/jobs/{first}").json
    assert (failed["state"], failed["error"]["code"], failed["error"]["retryable"]) == (
        "failed",
        "not_a_picture",
        False,
    )
    folder.put_bytes(key, png())
    second = complete({"slip": slip}).json["id"]
    work_on(runtime, second)
    assert ada.get(f"/v1/jobs/{second}").json["state"] == "succeeded"


def test_an_attempt_that_was_lost_before_it_was_published_is_not_missed(
    ada, runtime, folder, project_id, complete, monkeypatch
):
    slip, _ = posted(ada, folder, project_id, png())
    job_id = complete({"slip": slip}).json["id"]
    with monkeypatch.context() as dying:
        dying.setattr("workers.runner.finish", lambda *_: None)
        work_on(runtime, job_id)
    assert not list(folder.list("incoming/")), "the file has gone, and the picture is kept"
    with runtime.transaction() as session:
        jobs.lose(session, session.get_one(Job, job_id), runtime.settings)
    work_on(runtime, job_id, attempt=2)
    assert len(ada.get(f"/v1/jobs/{job_id}/images").json["items"]) == 1
    assert reconcile.compare(runtime, grace_seconds=0, read=True).missing == []


def test_what_waits_to_be_taken_in_is_no_orphan(ada, runtime, folder, project_id, complete):
    slip, key = posted(ada, folder, project_id, png())
    assert reconcile.compare(runtime, grace_seconds=0).orphans == [key]
    complete({"slip": slip})
    assert reconcile.compare(runtime, grace_seconds=0).orphans == []


def test_a_project_waits_for_its_pictures(ada, runtime, folder, project_id, complete):
    slip, _ = posted(ada, folder, project_id, png())
    job_id = complete({"slip": slip}).json["id"]
    assert ada.post(f"/v1/projects/{project_id}/start").json["code"] == "still_uploading"
    work_on(runtime, job_id)
    assert ada.post(f"/v1/projects/{project_id}/start").json["code"] == "too_few_references"


def test_pictures_on_their_way_take_up_room(ada, runtime, folder, project_id, complete):
    runtime.settings = replace(runtime.settings, max_images_per_project=1)
    complete({"slip": posted(ada, folder, project_id, png())[0]})
    assert complete({"slip": posted(ada, folder, project_id, png())[0]}).json["code"] == "too_many_images"


def test_many_pictures_of_one_user_leave_room_for_other_users(app, ada, bob, project_id):
    """A few of her requests are served at a time; the others are told to come back. Nobody else is."""
    large = png(4000, 3000)
    address = f"/v1/projects/{project_id}/images"

    def send(_):
        sent = {"file": (io.BytesIO(large), "x.png")}
        return Caller(app.test_client(), ada.key, ada.user_id).post(address, data=sent)

    with ThreadPoolExecutor(3 * uploads.EACH + 1) as pool:
        others = pool.submit(lambda: upload(bob, bob.post("/v1/projects", PROJECT).json["id"]))
        answers = list(pool.map(send, range(3 * uploads.EACH)))
    busy = [answer for answer in answers if answer.status_code == 503]
    assert {answer.status_code for answer in answers} == {201, 503}
    assert {(answer.json["code"], answer.headers["Retry-After"]) for answer in busy} == {("busy_with_pictures", "5")}
    assert len(answers) - len(busy) >= uploads.EACH
    assert others.result().status_code == 201


def test_a_picture_that_nobody_waits_for_is_not_decoded_to_its_end(ada, project_id):
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours:
        sent = {"file": (io.BytesIO(png(6300, 6300)), "x.png")}
        gone = {"gunicorn.socket": ours}
        answer = ada.post(f"/v1/projects/{project_id}/images", data=sent, environ_overrides=gone)
    assert answer.json["code"] == "hung_up"
    assert not [child for child in psutil.Process().children() if "shared.outside" in " ".join(child.cmdline())]
    assert ada.get(f"/v1/projects/{project_id}/images").json["items"] == []


def test_a_user_holds_a_few_places_and_leaves_the_others_to_others():
    places = uploads.Places(at_once=3, each=2)
    with places.held("ada"), places.held("ada"):
        with pytest.raises(Unavailable), places.held("ada"):
            pass
        with places.held("bob"), pytest.raises(Unavailable), places.held("cleo"):
            pass
        with places.held("cleo"):
            pass
    with places.held("ada"):
        pass


def test_a_slip_is_good_for_its_project_alone(ada, bob, folder, project_id):
    slip = ada.post(f"/v1/projects/{project_id}/uploads", WANTED).json["slip"]
    other = bob.post("/v1/projects", PROJECT).json["id"]
    assert bob.post(f"/v1/projects/{other}/uploads/complete", {"slip": slip}).json["code"] == "bad_slip"
    assert ada.post(f"/v1/projects/{project_id}/uploads/complete", {"slip": slip[:-9]}).json["code"] == "bad_slip"


@pytest.mark.servers
def test_the_store_takes_what_the_form_allows(ada, runtime, s3, project_id):
    runtime.settings = replace(runtime.settings, **s3.settings("uploads"))
    runtime.storage = open_storage(runtime.settings)
    runtime.storage.prepare()
    offer = ada.post(f"/v1/projects/{project_id}/uploads", WANTED).json
    posted = requests.post(offer["url"], data=offer["fields"], files={"file": ("x.png", png())}, timeout=10)
    assert posted.ok, posted.text
    job_id = ada.post(f"/v1/projects/{project_id}/uploads/complete", {"slip": offer["slip"]}).json["id"]
    work_on(runtime, job_id)
    (image,) = ada.get(f"/v1/jobs/{job_id}/images").json["items"]
    assert requests.get(image["url"], timeout=10).content.startswith(b"\x89PNG")
