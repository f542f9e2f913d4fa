"""Common mistakes in requests get errors that say what is wrong and what to do."""

from __future__ import annotations

import io
import socket
from pathlib import Path

import pytest

from benchmarks.http import gunicorn
from shared import users
from shared.outside.db import Database
from tests.api.bodies import PROJECT, upload
from tests.api.conftest import SECRET
from tests.api.problems import problem
from tests.factories import png

FORM = "multipart/form-data"


@pytest.fixture
def project_id(ada):
    return ada.post("/v1/projects", PROJECT).json["id"]


@pytest.mark.parametrize("route", ["projects/{}/images", "projects/{}/imports"])
def test_text_instead_of_a_file_is_refused(ada, project_id, route):
    told = problem(
        ada.post(f"/v1/{route.format(project_id)}", data={"file": "x.png"}, content_type=FORM), 422, "invalid"
    )
    assert told["errors"] == [{"pointer": "/file", "detail": "must be a file, not text; with curl: -F file=@PATH"}]


def test_text_in_place_of_an_edited_picture_is_refused(ada, project_id):
    image_id = upload(ada, project_id).json["id"]
    form = {"data": {"file": "x.png"}, "content_type": FORM, "headers": {"If-Match": "*"}}
    problem(ada.post(f"/v1/images/{image_id}/versions", **form), 422, "invalid")


def test_a_file_instead_of_text_is_refused(ada, project_id):
    form = {"file": (io.BytesIO(png()), "x.png"), "tags": (io.BytesIO(b"smile"), "tags.txt")}
    told = problem(ada.post(f"/v1/projects/{project_id}/images", data=form), 422, "invalid")
    assert [each["pointer"] for each in told["errors"]] == ["/tags"]


def test_two_files_for_one_field_are_refused(ada, project_id):
    files = [(io.BytesIO(png()), "a.png"), (io.BytesIO(png()), "b.png")]
    told = problem(ada.post(f"/v1/projects/{project_id}/images", data={"file": files}), 422, "invalid")
    assert [each["pointer"] for each in told["errors"]] == ["/file"]


def test_an_upload_with_a_wrong_content_type_is_explained(ada, project_id):
    told = problem(ada.post(f"/v1/projects/{project_id}/images", {"file": "x.png"}), 415, "unsupported_media_type")
    assert "multipart/form-data" in told["detail"]
    assert "the request has application/json" in told["detail"]


def test_a_json_body_with_a_wrong_content_type_is_explained(ada):
    told = problem(ada.post("/v1/projects", data={"name": "x"}), 415, "unsupported_media_type")
    assert told["detail"] == "this route takes application/json; the request has application/x-www-form-urlencoded"


@pytest.mark.parametrize("path", ["projects/prj_xyz", "jobs/1", "projects/PRJ_06H09DDK6TKQQA7BY0MYRR1NRM/images"])
def test_a_malformed_id_is_named(ada, path):
    told = problem(ada.get(f"/v1/{path}"), 404, "not_found")
    assert f"{path.split('/')[1]!r} is not an id" in told["detail"]


def test_unknown_query_parameters_are_refused_at_every_route(ada, app, project_id):
    checked = 0
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        if not rule.rule.startswith("/v1") or getattr(view, "scope", None) is None:
            continue
        values = {name: 1 if name == "number" else project_id for name in rule.arguments}
        with app.test_request_context():
            path = app.url_map.bind("localhost").build(rule.endpoint, values)
        for method in rule.methods & {"GET", "POST", "PUT", "PATCH", "DELETE"}:
            answer = ada.answer(method, f"{path}?colour=red", headers={"If-Match": "*"})
            if answer.status_code != 403:
                told = problem(answer, 422, "invalid")
                assert {"parameter": "colour", "detail": "Unknown field."} in told["errors"], (method, path)
                checked += 1
    assert checked > 40


@pytest.mark.parametrize("query", ["limit=1&limit=2", "metadata.a=1&metadata.a=2"])
def test_a_repeated_query_parameter_is_refused(ada, query):
    told = problem(ada.get(f"/v1/projects?{query}"), 422, "invalid")
    assert [each["parameter"] for each in told["errors"]] == [query.split("=")[0]]


@pytest.mark.servers
@pytest.mark.parametrize("body", [b"zz\r\n{}\r\n0\r\n\r\n", b"2\r\n{}xx0\r\n\r\n", b"5;\x00\r\n{}\r\n0\r\n\r\n"])
def test_malformed_chunks_are_a_bad_request(tmp_path: Path, empty_database: Path, body: bytes) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "bootlora.db").write_bytes(empty_database.read_bytes())
    url = f"sqlite:///{tmp_path}/bootlora.db"
    database = Database(url)
    with database.transaction() as session:
        _, key = users.create_key(session, users.create(session, "ada"), SECRET, name="test")
    database.dispose()
    environment = {
        "BOOTLORA_DATABASE_URL": url,
        "BOOTLORA_BROKER_URL": "memory://",
        "BOOTLORA_STORAGE_URL": (tmp_path / "store").as_uri(),
        "BOOTLORA_SECRET_KEY": SECRET,
    }
    head = "POST /v1/projects HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
    with gunicorn("api.wsgi:app", environment) as port, socket.create_connection(("127.0.0.1", port), 30) as there:
        there.sendall(f"{head}Authorization: Bearer {key}\r\n\r\n".encode() + body)
        answer = b""
        while piece := there.recv(65_536):  # until the server closes: what follows can't be told from the body
            answer += piece
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert answer.count(b"HTTP/1.1 ") == 1
