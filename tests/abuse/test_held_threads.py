"""Many streams and long waits hold no thread of the API, so that other requests are answered at once."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
import requests

from embedded.stack import Stack
from shared import events, users
from shared.models import Job, Project
from shared.outside.db import Database, utcnow
from tests.factories import make_job, make_project

pytestmark = [pytest.mark.servers, pytest.mark.slow]

CROWD, STREAMS, WAITS = 3, 20, 10  # users, and what each of them opens: all places that a user has
SHORT = 10.0  # seconds; a request that waits for a thread would wait for most of a minute


class Member(NamedTuple):
    key: str
    project_id: str
    job_id: str


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("held")) as stack:
        yield stack


@pytest.fixture
def database(stack: Stack) -> Iterator[Database]:
    database = Database(stack.database_url)
    yield database
    database.dispose()


@pytest.fixture
def crowd(stack: Stack, database: Database, request: pytest.FixtureRequest) -> list[Member]:
    """Users with a project and a job that runs for longer than the test."""
    return [_member(stack, database, f"{request.node.name} {number}") for number in range(CROWD)]


def _member(stack: Stack, database: Database, name: str) -> Member:
    secret = json.loads((stack.data_dir / "secrets.json").read_text())["secret_key"]
    with database.transaction() as session:
        user = users.create(session, name)
        _, key = users.create_key(session, user, secret, name="test")
        project = make_project(session, user.id, state="running")
        job = make_job(session, project, state="running", lease_until=utcnow() + timedelta(hours=1))
        return Member(key, project.id, job.id)


class Request:
    """A GET whose answer may come late, on a connection of its own."""

    def __init__(self, stack: Stack, member: Member, path: str, *headers: str):
        where = urlsplit(stack.url)
        self.socket = socket.create_connection((where.hostname, where.port), timeout=60)
        lines = [f"GET {path} HTTP/1.1", f"Host: {where.netloc}", f"Authorization: Bearer {member.key}", *headers]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())

    def __enter__(self) -> Request:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def heard(self, until: bytes = b"") -> bytes:
        """What has come when `until` has, or the connection has ended."""
        text = b""
        while not (until and until in text) and (piece := self.socket.recv(65536)):
            text += piece
        return text


def stream(stack: Stack, member: Member) -> Request:
    return Request(stack, member, f"/v1/projects/{member.project_id}/events/stream")


def wait(stack: Stack, member: Member) -> Request:
    return Request(stack, member, f"/v1/jobs/{member.job_id}", "Prefer: wait=60")


def test_a_crowd_that_listens_and_waits_keeps_nobody_from_an_answer(
    stack: Stack, database: Database, crowd: list[Member]
) -> None:
    with ExitStack() as open_:
        streams = [open_.enter_context(stream(stack, member)) for member in crowd for _ in range(STREAMS)]
        for each in streams:
            assert each.heard(b"retry: ").startswith(b"HTTP/1.1 200 OK")
        waits = [open_.enter_context(wait(stack, member)) for member in crowd for _ in range(WAITS)]
        mine = {"Authorization": f"Bearer {stack.api_key}"}
        for _ in range(20):
            assert requests.get(f"{stack.url}/v1/me", headers=mine, timeout=SHORT).status_code == 200
            assert requests.get(f"{stack.url}/healthz", timeout=SHORT).status_code == 200
        # Only those who have taken all their places are refused.
        assert b'"too_many_streams"' in open_.enter_context(stream(stack, crowd[0])).heard(b"too_many_streams")
        another = _member(stack, database, "another")
        assert open_.enter_context(stream(stack, another)).heard(b"retry: ").startswith(b"HTTP/1.1 200 OK")
        with database.transaction() as session:
            for member in crowd:
                events.record(session, session.get_one(Project, member.project_id), "image.added")
                session.get_one(Job, member.job_id).state = "succeeded"
        assert sum(b"event: image.added" in each.heard(b"event: image.added") for each in streams) == CROWD * STREAMS
        assert sum(b'"state":"succeeded"' in each.heard().replace(b": ", b":") for each in waits) == CROWD * WAITS


def test_the_api_stops_in_time_and_answers_those_who_wait(stack: Stack, crowd: list[Member], tmp_path: Path) -> None:
    member = crowd[0]
    with stream(stack, member) as listener, wait(stack, member) as waiter:
        assert listener.heard(b"retry: ")
        api = stack.supervisor.processes["api"].popen
        stack.restart("api")
        assert api.returncode == 0  # it was not killed
        listener.heard()  # ends
        assert b'"state":"running"' in waiter.heard().replace(b": ", b":")
