"""What every store must do, asked of each: a folder, and a real S3 server."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
import threading
import urllib.parse
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import uuid4

import pytest
import requests
import stamina

from shared.errors import Invalid, NotFound, Unavailable
from shared.outside.storage import PROBE, Damaged, FolderStorage, S3Storage, Storage, attachment, storage_from_url
from tests.servers import S3
from tests.waiting import eventually

HOUR = timedelta(hours=1)


def s3_storage(s3: S3, bucket: str | None = None, prefix: str = "", **over: str) -> S3Storage:
    keys = {"access_key": s3.access_key, "secret_key": s3.secret_key, "region": s3.region, **over}
    endpoint = keys.pop("endpoint", s3.endpoint)
    return S3Storage(bucket or f"test-{uuid4().hex}", prefix, endpoint=endpoint, public_endpoint=endpoint, **keys)


SERVERS = pytest.mark.servers


@pytest.fixture(params=["folder", pytest.param("s3", marks=SERVERS), pytest.param("s3 with a prefix", marks=SERVERS)])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        storage: Storage = FolderStorage(tmp_path / "store")
    else:
        storage = s3_storage(request.getfixturevalue("s3"), prefix="team/a" if "prefix" in request.param else "")
    storage.prepare()
    return storage


@pytest.fixture(params=["", "team/a"], ids=["whole bucket", "prefix"])
def s3_store(s3: S3, request: pytest.FixtureRequest) -> S3Storage:
    storage = s3_storage(s3, prefix=request.param)
    storage.prepare()
    return storage


def test_what_was_put_is_got(storage: Storage, tmp_path: Path) -> None:
    content = os.urandom(100_000)
    stored = storage.put_bytes("projects/1/a.png", content, "image/png")
    assert stored.sha256 == hashlib.sha256(content).hexdigest()
    assert storage.stat("projects/1/a.png") == stored
    assert storage.get_bytes("projects/1/a.png") == content
    assert b"".join(storage.open("projects/1/a.png")) == content
    assert storage.get_to_file("projects/1/a.png", tmp_path / "new" / "a.png") == stored
    assert (tmp_path / "new" / "a.png").read_bytes() == content


def test_a_large_file_survives_the_way_in_parts(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(os.urandom(12 << 20))
    stored = storage.put_file("lora.safetensors", tmp_path / "in")
    assert storage.get_to_file("lora.safetensors", tmp_path / "out") == stored
    assert (tmp_path / "out").read_bytes() == (tmp_path / "in").read_bytes()


def test_an_open_file_is_put_from_its_beginning(storage: Storage, tmp_path: Path) -> None:
    with tempfile.TemporaryFile() as file:  # it has no name
        file.write(os.urandom(12 << 20))
        stored = storage.put_from("x.zip", file, "application/zip")
        file.seek(0)
        assert storage.get_bytes("x.zip") == file.read()
    assert storage.stat("x.zip") == stored


def test_an_empty_object_and_an_odd_name_are_fine(storage: Storage) -> None:
    storage.put_bytes("ünï 狐/a+b &c.txt", b"", "text/plain")
    assert storage.get_bytes("ünï 狐/a+b &c.txt") == b""
    assert [found.key for found in storage.list("ünï")] == ["ünï 狐/a+b &c.txt"]


def test_putting_again_replaces(storage: Storage) -> None:
    storage.put_bytes("a", b"old")
    storage.put_bytes("a", b"newer")
    assert storage.get_bytes("a") == b"newer"
    assert storage.stat("a").size_bytes == 5


def test_a_missing_object_is_not_found(storage: Storage, tmp_path: Path) -> None:
    for ask in (storage.get_bytes, storage.stat, storage.open, lambda key: storage.get_to_file(key, tmp_path / "out")):
        with pytest.raises(NotFound) as caught:
            ask("not/there")
        assert caught.value.code == "object_not_found"
    assert list(tmp_path.glob("*out*")) == []


def test_a_list_has_the_keys_under_a_prefix_in_order(storage: Storage) -> None:
    for key in ("a/2", "a/1", "a/b/3", "ab", "c"):
        storage.put_bytes(key, key.encode())
    assert [(found.key, found.size_bytes) for found in storage.list("a/")] == [("a/1", 3), ("a/2", 3), ("a/b/3", 5)]
    assert [found.key for found in storage.list("nothing")] == []


def test_deleting_is_done_once_and_harmless_twice(storage: Storage) -> None:
    storage.put_bytes("a", b"1")
    storage.delete("a")
    storage.delete("a")
    with pytest.raises(NotFound):
        storage.stat("a")


def test_a_prefix_is_deleted_with_all_below_and_nothing_beside(storage: Storage) -> None:
    for key in ("p/1/a", "p/1/b/c", "p/10", "q"):
        storage.put_bytes(key, b"1")
    storage.delete_prefix("p/1/")
    assert [found.key for found in storage.list("p")] == ["p/10"]
    storage.delete_prefix("p/1/")


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../out", "a/../b", "a//b", "a/", "a\\b", "a\nb", "x" * 1025])
def test_a_key_that_leads_elsewhere_is_refused(storage: Storage, key: str) -> None:
    with pytest.raises(Invalid) as caught:
        storage.put_bytes(key, b"1")
    assert caught.value.code == "bad_object_key"
    with pytest.raises(Invalid):
        storage.delete_prefix(key.rstrip("/") if key != "a/" else "")


def test_a_store_is_prepared_twice_without_harm(storage: Storage) -> None:
    storage.put_bytes("a", b"1")
    storage.prepare()
    storage.check()
    assert storage.get_bytes("a") == b"1"


def test_what_is_put_as_new_replaces_nothing(storage: Storage) -> None:
    assert storage.peek("a") is None
    storage.put_new("a", b"first")
    storage.put_new("a", b"second")
    assert storage.peek("a") == storage.get_bytes("a") == b"first"


def test_a_check_leaves_nothing_that_a_list_shows(storage: Storage) -> None:
    storage.check()
    storage.check()
    assert [found.key for found in storage.list("")] in ([], [PROBE])


@pytest.mark.servers
def test_all_that_is_done_with_a_prefix_stays_below_it(s3: S3, tmp_path: Path) -> None:
    whole = s3_storage(s3)
    whole.prepare()
    part, other = (s3_storage(s3, whole.bucket, prefix) for prefix in ("team", "team-b"))
    for storage in (whole, other):
        storage.put_bytes("projects/1/a", b"of others")
    part.check()
    (tmp_path / "large").write_bytes(os.urandom(12 << 20))
    part.put_file("projects/1/large", tmp_path / "large")  # in parts
    part.put_bytes("projects/1/a", b"ours")
    part.put_new("new", b"ours")
    form = part.presigned_post("incoming/a", "image/png", 100, HOUR)
    assert requests.post(form.url, data=form.fields, files={"file": b"x"}, timeout=10).status_code == 204
    ours = {"projects/1/large", "projects/1/a", "new", PROBE, "incoming/a"}
    assert {found.key for found in part.list("")} == ours
    theirs = {"projects/1/a", "team-b/projects/1/a"}
    assert {found.key for found in whole.list("")} == {*theirs, *(f"team/{key}" for key in ours)}
    assert requests.get(part.presigned_get("projects/1/a", HOUR), timeout=10).content == b"ours"
    part.delete("new")
    part.delete_prefix("projects/")
    assert {found.key for found in whole.list("")} == {*theirs, f"team/{PROBE}", "team/incoming/a"}


@pytest.mark.servers
def test_a_store_that_refuses_writes_is_noticed_and_is_well_again_when_it_takes_them(s3_store: S3Storage) -> None:
    refusal = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:PutObject",
        "Resource": f"arn:aws:s3:::{s3_store.bucket}/*",
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [refusal]})
    s3_store._client.set_bucket_policy(bucket_name=s3_store.bucket, policy=policy)
    for _ in range(2):
        with pytest.raises(Unavailable, match="AccessDenied"):
            s3_store.check()
    s3_store._client.delete_bucket_policy(bucket_name=s3_store.bucket)
    s3_store.check()
    s3_store._client.set_bucket_policy(bucket_name=s3_store.bucket, policy=policy)
    s3_store.check()  # a write went well a moment ago, so none is tried


def test_a_folder_that_takes_no_files_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "objects").symlink_to("/proc/self")  # where nobody can make a file, root included
    with pytest.raises(Unavailable, match="takes no files"):
        FolderStorage(tmp_path).check()


def test_a_server_without_conditions_gets_the_object_without_one() -> None:
    asked = []

    class Old(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            asked.append(self.headers["If-None-Match"])
            body = b"<Error><Code>NotImplemented</Code></Error>" if asked[-1] else b""
            self.send_response(501 if asked[-1] else 200)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Old) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        s3_storage(S3(f"http://127.0.0.1:{server.server_port}", "k", "s"), "bucket").put_new("a", b"1")
        server.shutdown()
    assert asked == ["*", None]


def test_a_failed_upload_leaves_what_was_there(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path)
    storage.put_bytes("a", b"good")
    with pytest.raises(FileNotFoundError):
        storage.put_file("a", tmp_path / "missing")
    assert storage.get_bytes("a") == b"good"


def test_damage_in_a_folder_is_noticed(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path)
    storage.put_bytes("a", b"good")
    (tmp_path / "objects" / "a").write_bytes(b"gooD")
    with pytest.raises(Damaged):
        storage.get_bytes("a")
    with pytest.raises(Damaged):
        list(storage.open("a"))
    with pytest.raises(Damaged):
        storage.get_to_file("a", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.servers
def test_damage_in_a_bucket_is_noticed(s3_store: S3Storage) -> None:
    s3_store._client.put_object(
        s3_store.bucket, s3_store._name("a"), **as_stream(b"bad"), metadata={"sha256": "0" * 64}
    )
    with stamina.set_testing(True, attempts=2), pytest.raises(Damaged):
        s3_store.get_bytes("a")


@pytest.mark.servers
def test_a_presigned_url_reads_one_object_under_a_name(s3_store: S3Storage) -> None:
    s3_store.put_bytes("a.png", b"picture", "image/png")
    url = s3_store.presigned_get("a.png", HOUR, '狐 "fox"\r\nX: 1.png')
    answer = requests.get(url, timeout=10)
    assert (answer.status_code, answer.content) == (200, b"picture")
    assert answer.headers["content-type"] == "image/png"
    assert "X" not in answer.headers
    assert urllib.parse.quote("狐") in answer.headers["content-disposition"]
    assert requests.get(url.replace("a.png", "b.png"), timeout=10).status_code == 403
    assert requests.delete(url, timeout=10).status_code == 403


@pytest.mark.servers
def test_a_presigned_url_expires(s3_store: S3Storage) -> None:
    s3_store.put_bytes("a", b"1")
    url = s3_store.presigned_get("a", timedelta(seconds=1))
    eventually(lambda: requests.get(url, timeout=10).status_code == 403, every_seconds=0.2)


@pytest.mark.servers
@pytest.mark.parametrize(
    ("content", "fields", "status"),
    [
        (b"x" * 100, {}, 204),
        (b"x" * 101, {}, 400),
        (b"x", {"key": "incoming/other"}, 403),
        (b"x", {"Content-Type": "text/html"}, 403),
    ],
    ids=["as signed", "too large", "another key", "another type"],
)
def test_a_presigned_form_takes_only_what_it_was_signed_for(
    s3_store: S3Storage, content: bytes, fields: dict[str, str], status: int
) -> None:
    form = s3_store.presigned_post("incoming/a", "image/png", 100, HOUR)
    answer = requests.post(form.url, data={**form.fields, **fields}, files={"file": content}, timeout=10)
    assert answer.status_code == status
    assert [found.key for found in s3_store.list("incoming/")] == (["incoming/a"] if status == 204 else [])


def test_a_folder_hands_out_file_urls_and_takes_no_forms(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path)
    storage.put_bytes("a b", b"1")
    assert storage.presigned_get("a b", HOUR) == (tmp_path / "objects" / "a b").as_uri()
    with pytest.raises(Unavailable) as caught:
        storage.presigned_post("a", "image/png", 1, HOUR)
    assert caught.value.code == "store_has_no_uploads"


@pytest.mark.servers
def test_a_wrong_secret_is_refused_and_not_retried(s3: S3, s3_store: S3Storage) -> None:
    stranger = s3_storage(s3, s3_store.bucket, secret_key="wrong")
    with stamina.set_testing(False), pytest.raises(Unavailable) as caught:
        stranger.get_bytes("a")
    assert caught.value.code == "store_unavailable"


def test_a_store_that_is_down_is_unavailable() -> None:
    dead = s3_storage(S3("http://127.0.0.1:9", "k", "s"))
    with stamina.set_testing(True, attempts=2):
        for ask in (lambda: dead.get_bytes("a"), dead.prepare, dead.check, lambda: dead.put_bytes("a", b"1")):
            with pytest.raises(Unavailable) as caught:
                ask()
            assert caught.value.code == "store_unavailable"


@pytest.mark.servers
def test_a_bucket_that_is_missing_is_noticed_by_the_check(s3: S3) -> None:
    with pytest.raises(Unavailable):
        s3_storage(s3).check()


def test_a_url_chooses_the_store(tmp_path: Path) -> None:
    folder = storage_from_url(f"file://{tmp_path}")
    assert isinstance(folder, FolderStorage)
    assert folder.folder == tmp_path
    bucket = storage_from_url("s3://pictures", endpoint="http://s3:9000", access_key="k", secret_key="s")
    assert isinstance(bucket, S3Storage)
    assert bucket.bucket == "pictures"
    part = storage_from_url("s3://pictures/team/a/", endpoint="http://s3:9000", access_key="k", secret_key="s")
    assert isinstance(part, S3Storage)
    assert part._name("x") == "team/a/x"
    for bad in ("gs://x", "s3://", "pictures"):
        with pytest.raises(ValueError, match="neither"):
            storage_from_url(bad)
    with pytest.raises(ValueError, match="endpoint"):
        storage_from_url("s3://pictures", endpoint="s3:9000")


def test_urls_are_signed_for_the_public_name() -> None:
    storage = storage_from_url(
        "s3://pictures",
        endpoint="http://s3:9000",
        public_endpoint="https://files.example.com",
        access_key="k",
        secret_key="s",
    )
    assert storage.presigned_get("a", HOUR).startswith("https://files.example.com/pictures/a?")
    assert storage.presigned_post("a", "image/png", 1, HOUR).url == "https://files.example.com/pictures"


@pytest.mark.parametrize(
    ("filename", "plain"),
    [("a.png", "a.png"), ("../../etc/passwd", "passwd"), ('a"b.png', "a_b.png"), ("狐.png", "_.png")],
)
def test_an_attachment_keeps_the_name_and_nothing_else(filename: str, plain: str) -> None:
    assert attachment(filename).startswith(f'attachment; filename="{plain}"; ')


def as_stream(content: bytes) -> dict[str, object]:
    return {"data": io.BytesIO(content), "length": len(content)}
