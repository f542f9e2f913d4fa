"""Import and export of datasets."""

from __future__ import annotations

import errno
import io
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image as Pixels

from api import uploads
from shared import archives, reconcile, rounds
from shared.errors import TooLarge, Unavailable
from shared.models import Job, Project
from shared.outside import pictures
from shared.queue import jobs
from tests.api.bodies import PROJECT, upload, zipped
from tests.api.conftest import ON_BOTH, Caller
from tests.api.problems import problem
from tests.factories import png
from workers.runner import run_job

CASES = Path(__file__).parents[1] / "data" / "zips"


def noise(side: int) -> bytes:
    """A picture that can't be packed: about 3 bytes a pixel."""
    target = io.BytesIO()
    Pixels.frombytes("RGB", (side, side), os.urandom(3 * side * side)).save(target, "PNG")
    return target.getvalue()


def send(caller: Caller, project_id: str, content: bytes) -> Any:
    return caller.post(f"/v1/projects/{project_id}/imports", data={"file": (io.BytesIO(content), "x.zip")})


@dataclass
class Imported:
    """A zip that has been taken in: its job, the images, and what became of each file."""

    job: dict[str, Any]
    images: list[dict[str, Any]]
    files: dict[str, dict[str, Any]]

    def outcomes(self) -> dict[str, str]:
        return {name: file["outcome"] for name, file in self.files.items()}


@pytest.fixture
def take_in(ada, runtime, project_id) -> Callable[..., Imported]:
    def take_in(content: bytes, project_id: str = project_id) -> Imported:
        accepted = send(ada, project_id, content)
        assert (accepted.status_code, accepted.json["kind"]) == (202, "import"), accepted.json
        run_job(runtime, accepted.json["id"], 1, "cpu@test", lambda: False)
        path = accepted.headers["Location"]
        listed = ada.get(f"{path}/files").json["items"]
        images = ada.get(f"{path}/images?limit=100").json["items"]
        assert not list(runtime.storage.list("incoming/")) or ada.get(path).json["state"] == "failed"
        return Imported(ada.get(path).json, images, {file.pop("name"): file for file in listed})

    return take_in


@pytest.fixture
def project_id(ada):
    return ada.post("/v1/projects", PROJECT).json["id"]


def test_a_dataset_is_imported_with_its_captions(take_in):
    caption = b"eiei21girl, 1girl, solo, fox ears, from side, upper body, sword"
    first, second = take_in(
        zipped({"10_eiei/a.png": png(), "10_eiei/a.txt": caption, "1_more/b.webp": png(format="WEBP")})
    ).images
    assert (first["view"], first["framing"], first["repeats"]) == ("side", "upper_body", 10)
    assert first["tags"] == ["fox ears", "from side", "upper body", "sword"]
    assert (second["tags"], second["repeats"]) == (["fox ears", "yellow eyes"], 1)


def test_the_outcome_of_each_file_of_a_zip_is_listed(take_in):
    came = take_in(
        zipped(
            {
                "a.png": png(),
                "a.txt": b"fox ears",
                "b.png": b"no picture",
                "c.bmp": png(format="BMP"),
                "readme.md": b"hello",
                "alone.txt": b"fox ears",
            }
        )
    )
    assert came.job["state"] == "succeeded"
    (image,) = came.images
    assert came.files["a.png"] == {"outcome": "taken", "reason": None, "code": None, "image_id": image["id"]}
    assert (came.files["b.png"]["outcome"], came.files["b.png"]["code"]) == ("refused", "not_a_picture")
    assert came.files["c.bmp"]["reason"] == "a picture as BMP; save it as PNG, JPEG or WebP"
    assert came.files["readme.md"]["reason"] == "neither a picture nor a caption"
    assert came.files["alone.txt"]["reason"] == "a caption without a picture"


def test_one_broken_picture_of_thirty_is_named_and_the_others_are_taken(take_in):
    came = take_in((CASES / "one-broken-of-30.zip").read_bytes())
    refused = [name for name, file in came.files.items() if file["outcome"] == "refused"]
    assert (len(came.images), len(refused)) == (29, 1)
    assert came.files[refused[0]]["code"] == "not_a_picture"


SMALL = {"max_upload_bytes": 20_000, "max_import_bytes": 250_000, "max_body_bytes": 100_000}


@pytest.mark.parametrize("settings", [SMALL])
def test_a_zip_may_be_larger_than_a_picture(ada, project_id, take_in):
    pictures = {f"{number:02}.png": noise(60) for number in range(20)}
    content = zipped(pictures)
    assert SMALL["max_upload_bytes"] * 10 < len(content) < SMALL["max_import_bytes"]
    assert len(take_in(content).images) == 20
    larger = zipped(pictures | {f"{number:02}.png": noise(60) for number in range(20, 28)})
    problem(send(ada, project_id, larger), 413, "zip_too_large")
    problem(send(ada, project_id, b"x" * 400_000), 413, "too_large")


@pytest.mark.parametrize("settings", [SMALL])
def test_only_an_import_may_be_so_large(ada, project_id):
    image_id = ada.post(f"/v1/projects/{project_id}/images", data={"file": (io.BytesIO(noise(60)), "x")}).json["id"]
    for method, path in (
        ("POST", f"/v1/projects/{project_id}/images"),
        ("POST", f"/v1/images/{image_id}/versions"),
        ("POST", f"/v1/projects/{project_id}/exports"),
        ("POST", "/v1/projects"),
    ):
        answer = ada.change(method, path, None, data={"file": (io.BytesIO(b"x" * 200_000), "x")})
        problem(answer, 413, "too_large")


@pytest.mark.parametrize("settings", [{"max_upload_bytes": 10_000}])
def test_a_picture_of_a_zip_may_be_no_larger_than_one_alone(ada, project_id):
    problem(send(ada, project_id, zipped({"a.png": png(), "b.png": noise(60)})), 413, "zip_too_large")


@pytest.mark.parametrize("settings", [{"max_queued_imports": 2}])
def test_only_so_many_imports_of_a_user_wait(ada, bob, runtime, project_id):
    other = ada.post("/v1/projects", PROJECT).json["id"]
    queued = [send(ada, each, zipped({"a.png": png()})) for each in (project_id, other)]
    assert [answer.status_code for answer in queued] == [202, 202]
    refused = send(ada, project_id, zipped({"a.png": png()}))
    assert problem(refused, 429, "too_many_queued_imports")["detail"].startswith("2 of your imports are waiting")
    assert int(refused.headers["Retry-After"]) > 0
    assert len(list(runtime.storage.list("incoming/"))) == 2
    bobs = bob.post("/v1/projects", PROJECT).json["id"]
    assert send(bob, bobs, zipped({"a.png": png()})).status_code == 202
    run_job(runtime, queued[0].json["id"], 1, "cpu@test", lambda: False)
    assert send(ada, project_id, zipped({"a.png": png()})).status_code == 202


def test_a_caption_says_nothing_denied_together_with_its_project(ada, take_in):
    project_id = ada.post("/v1/projects", PROJECT | {"feature_tags": ["child"]}).json["id"]
    captions = {"a": b"porn", "b": b"fox ears", "c": b"porn actor\nfox ears"}
    names = {f"{name}.png": png() for name in captions} | {f"{name}.txt": text for name, text in captions.items()}
    came = take_in(zipped(names), project_id)
    assert {name: file["code"] for name, file in came.files.items()} == {
        "a.png": "denied_tag",
        "b.png": None,
        "c.png": "denied_tag",
    }


def test_the_variants_of_a_caption_are_not_read_together(take_in):
    came = take_in(zipped({"a.png": png(), "a.txt": b"a child\nporn\n"}))
    assert came.outcomes() == {"a.png": "taken"}


def test_an_import_without_valid_pictures_fails_and_names_the_first(take_in):
    came = take_in(zipped({"a.png": b"no picture", "b.png": b"no picture"}))
    assert (came.job["state"], came.job["error"]["code"]) == ("failed", "not_a_picture")
    assert "a.png" in came.job["error"]["message"]
    assert came.images == []


def test_files_of_macos_and_windows_are_left_out(take_in):
    came = take_in((CASES / "macos.zip").read_bytes())
    assert came.outcomes() == {
        "10_x/1.png": "taken",
        "__MACOSX/10_x/._1.png": "left_out",
        "__MACOSX/10_x/._1.txt": "left_out",
    }
    came = take_in(zipped({r"10_x\b.png": png(), r"10_x\b.txt": b"sword", "Thumbs.db": b"x", "10_x/.DS_Store": b"x"}))
    assert came.outcomes() == {"10_x/b.png": "taken", "Thumbs.db": "left_out", "10_x/.DS_Store": "left_out"}
    assert (came.images[0]["tags"], came.images[0]["repeats"]) == (["sword"], 10)


def test_pictures_of_others_and_masks_are_left_out_and_named(take_in):
    came = take_in((CASES / "with-reg.zip").read_bytes())
    assert "regularisation" in came.files["reg/1_girl/r1.png"]["reason"]
    assert [image["repeats"] for image in came.images] == [10]
    came = take_in(zipped({"a.png": png(), "a-masklabel.png": png()}))
    assert "mask" in came.files["a-masklabel.png"]["reason"]
    assert len(came.images) == 1


@pytest.mark.parametrize("text", ["fox.txt", "fox.caption", "Fox.png.txt", "FOX.TXT"])
def test_a_caption_is_found_by_each_of_its_names(take_in, text):
    (image,) = take_in(zipped({"Fox.png": png(), text: b"sword"})).images
    assert image["tags"] == ["sword"]


def test_an_exact_caption_name_goes_before_one_in_another_case(take_in):
    came = take_in(zipped({"Fox.png": png(), "Fox.txt": b"sword", "fox.png": png(), "fox.txt": b"shield"}))
    assert [image["tags"] for image in came.images] == [["sword"], ["shield"]]


@pytest.mark.parametrize(
    ("caption", "tags"),
    [
        (b"\xef\xbb\xbffox ears,\tfrom side\r\n", ["fox ears", "from side"]),
        ("fox ears, café".encode("utf-16"), ["fox ears", "café"]),
        ("fox ears, café, naïve".encode("latin-1"), ["fox ears", "café", "naïve"]),
        ("狐耳, 黄色い目".encode("shift_jis"), ["狐耳", "黄色い目"]),
        ("狐狸耳朵, 黄色眼睛".encode("gbk"), ["狐狸耳朵", "黄色眼睛"]),
    ],
    ids=["BOM", "UTF-16", "latin-1", "Shift-JIS", "GBK"],
)
def test_a_caption_may_be_as_editors_leave_it(take_in, caption, tags):
    (image,) = take_in(zipped({"a.png": png(), "a.txt": caption})).images
    assert image["tags"] == tags


def test_a_caption_in_another_encoding_is_taken_with_a_remark(take_in):
    came = take_in(zipped({"a.png": png(), "a.txt": "狐耳, 黄色い目".encode("shift_jis")}))
    assert "read as cp932" in came.files["a.png"]["reason"]


@pytest.mark.parametrize(
    ("caption", "code"),
    [
        (b"fox ears, a\0b", "bad_caption"),
        ("fox ears, a\u202eb".encode(), "bad_caption"),
        (b"\x81\x9d\xff\x90", "bad_caption"),
        (b"fox ears, nude", "denied_tag"),
    ],
    ids=["NUL", "right to left", "no text", "denied"],
)
def test_a_picture_with_a_bad_caption_is_refused_by_its_name(take_in, caption, code):
    came = take_in(zipped({"a.png": png(), "a.txt": caption, "b.png": png()}))
    assert (came.files["a.png"]["outcome"], came.files["a.png"]["code"]) == ("refused", code)
    assert len(came.images) == 1


def test_the_lines_of_a_caption_are_variants(ada, runtime, take_in):
    lines = b"eiei21girl, 1girl, solo, fox ears, sword\neiei21girl, 1girl, solo, a girl with a sword\n"
    came = take_in(zipped({"a.png": png(), "a.txt": lines}))
    (image,) = came.images
    assert (image["tags"], image["variants"]) == (["fox ears", "sword"], [["a girl with a sword"]])
    assert "2 lines" in came.files["a.png"]["reason"]
    with runtime.db.transaction() as session:
        project = session.get_one(Project, image["project_id"])
        (entry,) = rounds.present_dataset(session, project, "prune")
    assert entry.captions == ["eiei21girl, 1girl, solo, sword", "eiei21girl, 1girl, solo, a girl with a sword"]
    changed = ada.patch(f"/v1/images/{image['id']}", {"tags": ["shield"]}).json
    assert (changed["tags"], changed["variants"]) == (["shield"], None)


@pytest.mark.parametrize("trigger_word", ["eiei21girl", "Eiei_21_girl", "eiei  girl", "eiei (21)"])
def test_an_exported_dataset_is_imported_unchanged(ada, take_in, trigger_word):
    lines = f"{trigger_word}, 1girl, solo, fox ears, from side\n{trigger_word}, 1girl, solo, a fox".encode()
    ours = PROJECT | {"trigger_word": trigger_word}
    project_id, other = (ada.post("/v1/projects", ours).json["id"] for _ in range(2))
    for view in ("front", "behind"):
        upload(ada, project_id, view=view)
    take_in(zipped({"5_x/a.png": png(), "5_x/a.txt": lines}), project_id)
    made = ada.post(f"/v1/projects/{project_id}/exports", {})
    assert made.status_code == 201, made.json
    assert made.json["images"] == 3
    content = Path(urlsplit(made.json["url"]).path).read_bytes()
    names = [name.split("/")[1] for name in zipfile.ZipFile(io.BytesIO(content)).namelist()]
    assert names == [f"{stem}.{end}" for stem in ("001", "002", "003", "003-caption-2") for end in ("png", "txt")]
    with zipfile.ZipFile(io.BytesIO(content)) as made_zip:
        written = [made_zip.read(name).decode() for name in made_zip.namelist() if name.endswith(".txt")]
    assert written[2:] == lines.decode().splitlines(), "sd-scripts reads one line of each caption"
    came = take_in(content, other).images
    went = ada.get(f"/v1/projects/{project_id}/images").json["items"]
    shown = ("sha256", "tags", "variants", "repeats", "view", "framing")
    as_shown = lambda images: sorted([each[name] for name in shown] for each in images)  # noqa: E731
    assert as_shown(came) == as_shown(went)


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"no zip", 422, "not_a_zip"),
        (zipped({"a.png": png()})[:-30], 422, "not_a_zip"),
        (zipped({"a.txt": b"only text"}), 422, "empty_zip"),
        (zipped({"../a.png": png()}), 422, "bad_zip_name"),
        (zipped({"/etc/a.png": png()}), 422, "bad_zip_name"),
        (zipped({"C:\\a.png": png()}), 422, "bad_zip_name"),
        (zipped({"..\\a.png": png()}), 422, "bad_zip_name"),
        ((CASES / "nul-name.zip").read_bytes(), 422, "bad_zip_name"),
        (zipped({"a.png": b"\0" * 5_000_000}, compression=zipfile.ZIP_DEFLATED), 413, "zip_too_large"),
        (zipped({f"{n}.png": b"x" for n in range(101)}), 413, "zip_too_large"),
        (zipped({f"{n}.md": b"x" for n in range(20_000)}), 413, "zip_too_large"),
        (zipped({"a.png": png(), "a.txt": b"x" * 20_000}), 413, "zip_too_large"),
    ],
    ids=[
        "text",
        "cut off",
        "empty",
        "up",
        "root",
        "drive",
        "up with a backslash",
        "NUL",
        "bomb",
        "many",
        "very many",
        "long caption",
    ],
)
def test_a_bad_zip_is_refused_as_a_whole(ada, runtime, project_id, content, status, code):
    answer = send(ada, project_id, content)
    assert (answer.status_code, answer.json["code"]) == (status, code), answer.json
    assert ada.get(f"/v1/jobs?project_id={project_id}").json["items"] == []
    assert [*runtime.storage.list("projects/"), *runtime.storage.list("incoming/")] == []


def test_the_total_size_of_an_unpacked_zip_is_limited():
    picture = os.urandom(1_000) + b"\0" * 79_000
    content = zipped({f"{n}.png": picture for n in range(10)}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(TooLarge, match="unpacks to"):
        archives.Archive(io.BytesIO(content), max_pictures=100, max_picture_bytes=100_000, max_bytes=500_000)


def test_a_long_list_of_files_is_refused_before_it_is_read():
    content = zipped({f"{n}.md": b"" for n in range(20_000)})
    with pytest.raises(TooLarge, match="far too many files"):
        archives.Archive(io.BytesIO(content), max_pictures=100, max_picture_bytes=100_000, max_bytes=10**7)


@pytest.mark.parametrize("settings", [{"max_pixels_per_import": 3 * 64 * 64, "max_image_pixels": 100_000}])
def test_the_pixels_of_one_import_are_bounded(take_in):
    came = take_in(zipped({f"{n}.png": png() for n in range(5)}))
    assert [file["code"] for file in came.files.values()] == [None] * 3 + ["too_many_pixels"] * 2


@pytest.mark.parametrize("settings", [{"max_pixels_per_import": 250_000, "max_image_pixels": 100_000}])
def test_a_broken_picture_counts_as_one_of_the_largest(take_in, monkeypatch):
    decoded = []
    real = pictures._decoded
    monkeypatch.setattr(pictures, "_decoded", lambda *given: decoded.append(int(given[1][0])) or real(*given))
    came = take_in(zipped({f"{n}.png": b"no picture" for n in range(5)} | {"z.png": png()}))
    assert came.job["state"] == "failed"
    assert decoded == [100_000, 100_000, 50_000], "then nothing more is decoded"


@pytest.mark.parametrize("settings", [{"max_images_per_project": 3}])
def test_a_zip_beyond_the_limit_of_pictures_is_refused(ada, runtime, project_id):
    answer = send(ada, project_id, zipped({f"{n}.png": png() for n in range(4)}))
    assert (answer.status_code, answer.json["code"]) == (409, "too_many_images")
    assert list(runtime.storage.list("incoming/")) == []


@ON_BOTH
def test_a_requeued_import_keeps_the_pictures_that_it_has(ada, runtime, project_id, monkeypatch):
    names = ["a-2.png", "b.png", "c.png"]  # Postgres keeps the names of an object by their length
    job_id = send(ada, project_id, zipped({name: png() for name in names})).json["id"]
    assert reconcile.compare(runtime, grace_seconds=0).orphans == [], "what waits to be taken in is no orphan"
    decoded = []
    real = pictures.clean

    def clean(content: bytes, **limits: Any) -> Any:
        decoded.append(content)
        if len(decoded) == 3:
            raise Unavailable("the store is away")
        return real(content, **limits)

    with monkeypatch.context() as dying:
        dying.setattr("workers.runner.finish", lambda *_: None)
        monkeypatch.setattr(pictures, "clean", clean)
        run_job(runtime, job_id, 1, "cpu@test", lambda: False)
    with runtime.transaction() as session:
        jobs.lose(session, session.get_one(Job, job_id), runtime.settings)
    run_job(runtime, job_id, 2, "cpu@test", lambda: False)
    image_of = {file["name"]: file["image_id"] for file in ada.get(f"/v1/jobs/{job_id}/files").json["items"]}
    images = [image["id"] for image in ada.get(f"/v1/jobs/{job_id}/images").json["items"]]
    assert images == [image_of[name] for name in names]
    assert len(decoded) == 4, "two before, and the third twice"
    assert reconcile.compare(runtime, grace_seconds=0, read=True).missing == []


def test_a_project_waits_for_its_import(ada, project_id):
    send(ada, project_id, zipped({"a.png": png()}))
    assert ada.post(f"/v1/projects/{project_id}/start").json["code"] == "still_importing"


def test_an_export_is_in_the_audit_log(ada, admin, project_id):
    upload(ada, project_id)
    assert ada.post(f"/v1/projects/{project_id}/exports", {}).status_code == 201
    actions = [entry["action"] for entry in admin.get("/v1/audit").json["items"]]
    assert "export_dataset" in actions


def test_a_full_disk_is_reported(ada, project_id, monkeypatch):
    upload(ada, project_id)

    def pack(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(archives, "pack", pack)
    answer = ada.post(f"/v1/projects/{project_id}/exports", {})
    assert (answer.status_code, answer.json["code"]) == (503, "disk_full")


def test_the_number_of_simultaneous_exports_is_limited(ada, project_id, monkeypatch):
    upload(ada, project_id)
    places = uploads.Places(at_once=1)
    monkeypatch.setattr(uploads, "_places", places)
    with places.held("somebody"):
        busy = ada.post(f"/v1/projects/{project_id}/exports", {})
    assert (busy.status_code, busy.json["code"]) == (503, "busy_with_pictures")
    assert ada.post(f"/v1/projects/{project_id}/exports", {}).status_code == 201
