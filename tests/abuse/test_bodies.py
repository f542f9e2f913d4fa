"""Small bodies that name far too much cost little, are answered in few words, and keep nobody else from an answer."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import urllib3

from api.problems import MAX_ERRORS
from shared import users
from shared.settings import Settings
from tests.abuse.memory import watched
from tests.factories import make_curating, make_image
from tests.factories import make_project as make_draft
from tests.faults.service import Service

pytestmark = [
    pytest.mark.servers,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]

PROJECT = {"name": "Eiei", "trigger_word": "eiei21girl", "feature_tags": ["fox ears"]}
SIZE = Settings.max_body_bytes - 1_000  # of what fills a body; the rest stands around it
BELOW_THE_BRACKETS = 9_900  # items: more lists and objects in one body are refused by their count
AT_ONCE, BODIES = 16, 96  # all threads of the API, and six bodies for each
SHORT = 10.0  # seconds; the answer that another user waited for took half a minute
MOST_BYTES = 2_000  # of an answer to one body with one list that is too long
MOST_GROWTH = 10 * AT_ONCE * SIZE  # bytes of memory, while bodies are read; a loaded item would take a thousand

# Where a list or an object can be filled: its route, the rest of the body, the place, and what an item may look like.
PLACES: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "rounds": ("/projects", PROJECT, "/plan/rounds", "{}"),
    "feature tags": ("/projects", PROJECT, "/feature_tags", '""'),
    "subject tags": ("/projects", PROJECT, "/subject_tags", "0"),
    "views": ("/projects/{done}/rounds", {"kind": "character"}, "/views", '"front"'),
    "prompt tags": ("/projects/{done}/rounds", {"kind": "character"}, "/prompt_tags", '""'),
    "boxes": ("/images/{image}/crops", {"mode": "boxes"}, "/boxes", "{}"),
    "pictures": ("/projects/{done}/generations", {}, "/pictures", "{}"),
    "loras": ("/projects/{done}/generations", {"pictures": [{"prompt": "x"}]}, "/loras", "{}"),
    "views of candidates": ("/projects/{done}/rounds/1/candidates", {"count": 1}, "/views", "null"),
    "scopes": ("/keys", {"name": "x"}, "/scopes", '""'),
    "event types": ("/webhooks", {"url": "https://a.example"}, "/event_types", "[]"),
}


class Attacker:
    """A user who has something of each kind, and sends bodies that are made by hand."""

    def __init__(self, service: Service, name: str):
        self.service = service
        with service.runtime.db.transaction() as session:
            user = users.create(session, name)
            scopes = users.scopes_of("member")
            _, self.key = users.create_key(session, user, service.runtime.settings.secret_key, name="x", scopes=scopes)
            done, _ = make_curating(session, user.id)
            image = make_image(session, make_draft(session, user.id))
            self.things = {"done": done.id, "image": image.id}

    def send(self, path: str, body: bytes) -> urllib3.BaseHTTPResponse:
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        url = f"{self.service.url}/v1{path.format(**self.things)}"
        return urllib3.request("POST", url, body=body, headers=headers, retries=False, timeout=90)

    def me(self) -> urllib3.BaseHTTPResponse:
        headers = {"Authorization": f"Bearer {self.key}"}
        return urllib3.request("GET", f"{self.service.url}/v1/me", headers=headers, retries=False, timeout=SHORT)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.fixture(scope="module")
def ada(service: Service) -> Attacker:
    return Attacker(service, "ada")


def filled(place: str, count: int) -> tuple[str, bytes]:
    """A route, and a body for it with so many items in one place, or as many as fit."""
    path, rest, pointer, item = PLACES[place]
    items = f"[{','.join([item] * min(count, SIZE // (len(item) + 1)))}]"
    mark, (name, *inner) = "the place of the items", pointer.strip("/").split("/")
    value: Any = {inner[0]: mark} if inner else mark
    return path, json.dumps(rest | {name: value}).replace(json.dumps(mark), items).encode()


@pytest.mark.parametrize("place", PLACES)
def test_a_list_that_is_too_long_is_one_error_however_many_items_it_has(ada: Attacker, place: str) -> None:
    _, _, pointer, item = PLACES[place]
    answers = {count: ada.send(*filled(place, count)) for count in (BELOW_THE_BRACKETS, 10**6)}
    for answer in answers.values():
        assert (answer.status, len(answer.json()["errors"])) == (422, 1), answer.data[:500]
        assert len(answer.data) < MOST_BYTES
    assert answers[BELOW_THE_BRACKETS].json()["errors"][0]["pointer"] == pointer
    has_brackets = item in ("{}", "[]")
    assert answers[10**6].json()["errors"][0]["pointer"] == ("" if has_brackets else pointer)


def test_a_body_with_something_wrong_everywhere_is_told_so_fifty_times(ada: Attacker) -> None:
    """Every list is as long as it may be, and each of its items is wrong."""
    framings = dict.fromkeys(("full_body", "upper_body", "portrait"), 0)
    round_ = {
        "kind": "x" * 400,
        "framings": framings,
        "prompt_tags": [""] * 30,
        "train": dict.fromkeys(map(str, range(90))),
    }
    tags = {"feature_tags": ["\u200b"] * 100, "subject_tags": [""] * 20}
    body = PROJECT | tags | {"plan": {"rounds": [round_] * 8}, "metadata": {f"{n} ": 0 for n in range(16)}}
    answer = ada.send("/projects", json.dumps(body).encode())
    assert (answer.status, len(answer.json()["errors"])) == (422, MAX_ERRORS)
    assert len(answer.data) < 10_000


def test_many_bodies_at_once_keep_nobody_from_an_answer_and_leave_no_memory_taken(
    service: Service, ada: Attacker
) -> None:
    bob = Attacker(service, "bob")
    sent = [filled(place, count) for place in PLACES for count in (BELOW_THE_BRACKETS, 10**6)]
    sent = [sent[number % len(sent)] for number in range(BODIES)]
    with watched(service.supervisor, "api") as growth, ThreadPoolExecutor(AT_ONCE) as pool:
        answers = pool.map(lambda each: ada.send(*each), sent)
        seen = [bob.me().status for _ in range(20)]
        assert seen == [200] * 20
        assert {answer.status for answer in answers} == {422}
        assert growth() < MOST_GROWTH
