"""Server-sent events are the same events as by polling, as they happen."""

from __future__ import annotations

import gc
import json
import socket
from collections.abc import Callable

import pytest
from sqlalchemy import select

from api import held, streams
from shared import events, users
from shared.models import ApiKey, Job, Project
from tests.factories import make_job, make_project
from tests.waiting import eventually


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    monkeypatch.setattr(streams.Stream, "look_every_seconds", 0.02)


def told(text: str) -> list[tuple[str, str, dict]]:
    """(event, id, data) of each message."""
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in lines:
            found.append((lines["event"], lines.get("id", ""), json.loads(lines["data"])))
    return found


def heard(answer, until: bytes, then: Callable[[], None]) -> str:
    """All of a stream, of which something is done once so much has been heard."""
    text, done = b"", False
    for piece in answer.iter_encoded():
        text += piece
        if until in text and not done:
            then()
            done = True
    return text.decode()


@pytest.fixture
def scene(ada, session_of):
    with session_of() as session:
        project = make_project(session, ada.user_id, state="running")
        job = make_job(session, project, state="running", progress={"step": 3})
        events.record(session, project, "project.started")
        events.of_job(session, job, "job.started")
        events.record(session, project, "image.added")
    return project, job


def end(session_of, project, job):
    with session_of() as session:
        held = session.get_one(Job, job.id)
        held.state = "succeeded"
        events.of_job(session, held, "job.succeeded")
        owner = session.get_one(Project, project.id)
        owner.state = "completed"
        events.record(session, owner, "project.completed")


def test_a_stream_tells_all_and_ends_with_the_project(ada, session_of, scene):
    project, job = scene
    answer = ada.get(f"/v1/projects/{project.id}/events/stream")
    assert answer.content_type == "text/event-stream; charset=utf-8"
    assert answer.headers["X-Accel-Buffering"] == "no"
    messages = told(heard(answer, b"event: progress", lambda: end(session_of, project, job)))
    assert [id_ for _, id_, _ in messages if id_] == ["1", "2", "3", "4", "5"]
    assert messages[-1][0] == "project.completed"
    polled = ada.get(f"/v1/projects/{project.id}/events").json["items"]
    assert [data for _, id_, data in messages if id_] == polled
    assert ("progress", "", {"job_id": job.id, "step": 3}) in messages


def test_a_listener_who_comes_back_misses_nothing_and_hears_nothing_twice(ada, session_of, scene):
    project, job = scene
    end(session_of, project, job)
    path = f"/v1/projects/{project.id}/events/stream"
    again = told(ada.get(path, headers={"Last-Event-ID": "3"}).text)
    assert [id_ for _, id_, _ in again] == ["4", "5"]
    assert [id_ for _, id_, _ in told(ada.get(f"{path}?after=4").text)] == ["5"]
    assert ada.get(path, headers={"Last-Event-ID": "x"}).json["code"] == "bad_last_event_id"


def test_a_stream_of_a_job_tells_only_of_it(ada, session_of, scene):
    project, job = scene
    end(session_of, project, job)
    kinds = [kind for kind, _, _ in told(ada.get(f"/v1/jobs/{job.id}/events/stream").text)]
    assert kinds == ["job.started", "job.succeeded"]


@pytest.mark.parametrize("settings", [{"max_held_per_user": 1}])
def test_a_user_may_hold_only_so_many_requests_whatever_the_key(ada, bob, app, session_of, scene):
    project, job = scene
    path = f"/v1/projects/{project.id}/events/stream"
    first = ada.get(path)
    another_key = {"Authorization": f"Bearer {ada.post('/v1/keys', {'name': 'another'}).json['key']}"}
    refused = app.test_client().get(path, headers=another_key)
    assert (refused.status_code, refused.json["code"]) == (429, "too_many_streams")
    assert ada.get(f"/v1/jobs/{job.id}", headers={"Prefer": "wait=30"}).json["state"] == "running"  # at once
    with session_of() as session:
        his = make_project(session, bob.user_id, state="completed")
    assert bob.get(f"/v1/projects/{his.id}/events/stream").status_code == 200
    first.close()
    end(session_of, project, job)
    eventually(lambda: ada.get(path).status_code == 200)


def test_many_more_streams_than_threads_are_told_side_by_side(ada, session_of, scene):
    project, job = scene
    open_ = [handed_over(ada, f"/v1/projects/{project.id}/events/stream") for _ in range(25)]
    end(session_of, project, job)
    for client in open_:
        head, _, body = everything(client).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\nContent-Type: text/event-stream; charset=utf-8\r\n" in head
        assert [id_ for _, id_, _ in told(body.decode()) if id_] == ["1", "2", "3", "4", "5"]


def test_a_long_history_is_told_whole(ada, session_of, scene):
    project, job = scene
    with session_of() as session:
        for _ in range(2 * streams.AT_ONCE):
            events.record(session, session.get_one(Project, project.id), "image.added")
    end(session_of, project, job)
    messages = told(ada.get(f"/v1/projects/{project.id}/events/stream").text)
    assert [int(id_) for _, id_, _ in messages] == list(range(1, 2 * streams.AT_ONCE + 6))


@pytest.mark.parametrize("settings", [{"max_held_per_user": 1}])
def test_a_request_that_fails_after_its_view_keeps_no_place(ada, scene, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError("no more files")

    path = f"/v1/projects/{scene[0].id}/events/stream"
    with monkeypatch.context() as patched:
        patched.setattr(held, "_taken_from", fail)
        with pytest.raises(OSError, match="no more files"):
            ada.get(path)
    gc.collect()
    assert ada.get(path).status_code == 200


@pytest.mark.parametrize("settings", [{"max_held_per_user": 1}])
def test_who_does_not_read_loses_the_place_when_the_time_is_up(ada, session_of, scene, monkeypatch):
    monkeypatch.setattr(streams, "MAX_SECONDS", 0.1)
    monkeypatch.setattr(held, "LAST_READ_SECONDS", 0.1)
    with session_of() as session:
        for _ in range(60):  # more than the connection buffers
            events.record(session, session.get_one(Project, scene[0].id), "image.added", text="x" * 10_000)
    path = f"/v1/projects/{scene[0].id}/events/stream"
    with handed_over(ada, path):
        eventually(lambda: ada.get(path).status_code == 200, seconds=10)


def test_a_connection_that_can_not_be_watched_takes_no_other_down(app, ada, scene, monkeypatch):
    holder = app.extensions["bootlora.holder"]
    path = f"/v1/projects/{scene[0].id}/events/stream"

    def fail(*_):
        raise OSError("too many watched files")

    with monkeypatch.context() as patched:
        patched.setattr(holder._selector, "register", fail)
        assert everything(handed_over(ada, path)) == b""
    with handed_over(ada, path) as client:
        said = b""
        while b"event: project.started" not in said:
            said += client.recv(65536)


def handed_over(caller, path: str) -> socket.socket:
    """The client's end of a request whose connection the server gives away, as gunicorn does."""
    server, client = socket.socketpair()
    with server:
        assert caller.get(path, environ_overrides={"gunicorn.socket": server}).data == b""
    client.settimeout(20)
    return client


def everything(client: socket.socket) -> bytes:
    with client:
        return b"".join(iter(lambda: client.recv(65536), b""))


def test_a_stream_ends_after_a_while(ada, scene, monkeypatch):
    monkeypatch.setattr(streams, "MAX_SECONDS", 0.1)
    monkeypatch.setattr(streams, "COMMENT_EVERY_SECONDS", 0.01)
    assert ": still here" in ada.get(f"/v1/projects/{scene[0].id}/events/stream").text


@pytest.mark.parametrize("settings", [{"max_held_per_user": 1}])
def test_who_hangs_up_makes_room_before_the_next_comment(ada, scene):
    path = f"/v1/projects/{scene[0].id}/events/stream"
    handed_over(ada, path).close()
    eventually(lambda: ada.get(path).status_code == 200, seconds=10)


def test_a_stream_ends_when_its_key_is_revoked(ada, runtime, scene):
    def revoke():
        with runtime.transaction() as session:
            users.revoke(session, session.scalars(select(ApiKey).where(ApiKey.user_id == ada.user_id)).one())

    answer = ada.get(f"/v1/projects/{scene[0].id}/events/stream")
    messages = told(heard(answer, b"id: 3", revoke))
    assert [id_ for _, id_, _ in messages if id_] == ["1", "2", "3"]
