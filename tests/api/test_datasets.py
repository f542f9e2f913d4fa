"""Datasets go out as zips and come back in."""

from __future__ import annotations

import errno
import io
import os
import threading
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from api import uploads
from shared import archives
from shared.errors import TooLarge
from tests.api.bodies import PROJECT, upload, zipped
from tests.factories import png


def send(caller, project_id: str, content: bytes) -> Any:
    return caller.post(f"/v1/projects/{project_id}/imports", data={"file": (io.BytesIO(content), "x.zip")})


@pytest.fixture
def project_id(ada):
    return ada.post("/v1/projects", PROJECT).json["id"]


def test_a_dataset_comes_in_with_its_captions(ada, project_id):
    caption = b"eiei21girl, 1girl, solo, fox ears, from side, upper body, sword"
    answer = send(ada, project_id, zipped({"10_eiei/a.png": png(), "10_eiei/a.txt": caption, "10_eiei/b.webp": png()}))
    assert answer.status_code == 201, answer.json
    first, second = answer.json["items"]
    assert (first["view"], first["framing"]) == ("side", "upper_body")
    assert first["tags"] == ["fox ears", "from side", "upper body", "sword"]
    assert second["tags"] == ["fox ears", "yellow eyes"]


def test_a_caption_may_be_as_editors_leave_it(ada, project_id):
    caption = b"\xef\xbb\xbffox ears,\tfrom side\r\nsword\n"  # a byte-order mark, a tab, an end of line
    (image,) = send(ada, project_id, zipped({"a.png": png(), "a.txt": caption})).json["items"]
    assert image["tags"] == ["fox ears", "from side sword"]


def test_a_dataset_that_went_out_comes_in_the_same(ada, project_id):
    for view in ("front", "behind"):
        upload(ada, project_id, view=view)
    made = ada.post(f"/v1/projects/{project_id}/exports", {})
    assert made.status_code == 201, made.json
    assert made.json["images"] == 2
    content = Path(urlsplit(made.json["url"]).path).read_bytes()
    names = zipfile.ZipFile(io.BytesIO(content)).namelist()
    assert names == [f"1_eiei21girl/{name}" for name in ("001.png", "001.txt", "002.png", "002.txt")]
    other = ada.post("/v1/projects", PROJECT).json["id"]
    came = send(ada, other, content).json["items"]
    went = ada.get(f"/v1/projects/{project_id}/images").json["items"]
    assert [(each["sha256"], each["tags"], each["view"]) for each in came] == [
        (each["sha256"], each["tags"], each["view"]) for each in went
    ]


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"no zip", 422, "not_a_zip"),
        (zipped({"a.png": png()})[:-30], 422, "not_a_zip"),
        (zipped({"a.txt": b"only text"}), 422, "empty_zip"),
        (zipped({"../a.png": png()}), 422, "bad_zip_name"),
        (zipped({"/etc/a.png": png()}), 422, "bad_zip_name"),
        (zipped({"C:\\a.png": png()}), 422, "bad_zip_name"),
        (zipped({"a.png": b"\0" * 5_000_000}, compression=zipfile.ZIP_DEFLATED), 413, "zip_too_large"),
        (zipped({f"{n}.png": b"x" for n in range(101)}), 413, "zip_too_large"),
        (zipped({"a.png": png(), "a.txt": b"x" * 20_000}), 413, "zip_too_large"),
        (zipped({"a.png": png(), "a.txt": b"fox ears, a\0b"}), 422, "bad_caption"),
        (zipped({"a.png": png(), "a.txt": "fox ears, a\u202eb".encode()}), 422, "bad_caption"),
        (zipped({"a.png": png(), "a.txt": "fox ears".encode("utf-16")}), 422, "bad_caption"),
        (zipped({"a.png": png(), "b.png": b"no picture"}), 422, "not_a_picture"),
    ],
    ids=[
        *("text", "cut off", "empty", "up", "root", "drive", "bomb", "many", "long caption"),
        *("NUL", "right to left", "UTF-16", "one is no picture"),
    ],
)
def test_a_bad_zip_is_refused_as_a_whole(ada, runtime, project_id, content, status, code):
    answer = send(ada, project_id, content)
    assert (answer.status_code, answer.json["code"]) == (status, code), answer.json
    assert ada.get(f"/v1/projects/{project_id}/images").json["items"] == []
    assert list(runtime.storage.list("projects/")) == []


def test_pictures_that_are_each_small_enough_may_not_be_too_much_together():
    picture = os.urandom(1_000) + b"\0" * 79_000
    content = zipped({f"{n}.png": picture for n in range(10)}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(TooLarge):
        archives.unpack(io.BytesIO(content), max_pictures=100, max_picture_bytes=100_000)


def test_who_took_a_dataset_is_written_down(ada, admin, project_id):
    upload(ada, project_id)
    assert ada.post(f"/v1/projects/{project_id}/exports", {}).status_code == 201
    actions = [entry["action"] for entry in admin.get("/v1/audit").json["items"]]
    assert "export_dataset" in actions


def test_a_full_disk_is_told_as_one(ada, project_id, monkeypatch):
    upload(ada, project_id)

    def pack(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(archives, "pack", pack)
    answer = ada.post(f"/v1/projects/{project_id}/exports", {})
    assert (answer.status_code, answer.json["code"]) == (503, "disk_full")


def test_few_exports_are_made_at_once(ada, project_id, monkeypatch):
    upload(ada, project_id)
    monkeypatch.setattr(uploads, "_counter", threading.BoundedSemaphore(1))
    with uploads.admitted():
        busy = ada.post(f"/v1/projects/{project_id}/exports", {})
    assert (busy.status_code, busy.json["code"]) == (503, "busy_with_pictures")
    assert ada.post(f"/v1/projects/{project_id}/exports", {}).status_code == 201
