"""Following a project: when it ends, when it waits for a person, and the duration of each stage."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from bootlora import Bootlora
from bootlora.display import Display, between, time_left
from bootlora.following import Stage, follow, stages
from tests.client.service import Answer, Request, Service


def event(seq: int, type_: str, second: int = 0, **data: Any) -> dict[str, Any]:
    stamp = f"2026-11-22T10:00:{second:02d}+00:00"
    return {"type": type_, "timestamp": stamp, "data": {"seq": seq, "number": 1, "kind": "style", **data}}


class Story:
    """A project that moves on one step each time its events are asked for."""

    def __init__(self, curation: str, *steps: tuple[str, str, list[dict[str, Any]]]):
        self.curation, self.steps = curation, list(steps)
        self.now = self.steps[0]

    def answer(self, request: Request) -> Answer:
        path = request.path.partition("?")[0]
        if path.endswith("/events"):
            after = int(request.path.partition("after=")[2].partition("&")[0])
            self.now = self.steps.pop(0) if self.steps else (*self.now[:2], [])
            return Answer({"items": [each for each in self.now[2] if each["data"]["seq"] > after], "has_more": False})
        if path.endswith("/rounds"):
            return Answer({"items": [{"number": 1, "state": self.now[1]}], "has_more": False})
        if "/jobs/" in path:
            return Answer({"id": path.rpartition("/")[2], "state": "running"})
        return Answer({"id": "prj_1", "state": self.now[0], "curation": self.curation})


def test_it_ends_with_the_project(bootlora: Bootlora, service: Service) -> None:
    begun = [event(1, "round.training_started", round_id="rnd_1", job_id="job_1")]
    story = Story("auto", ("running", "training", begun), ("completed", "completed", [event(2, "project.completed")]))
    service.answer = story.answer
    first, last = follow(bootlora, "prj_1", every_seconds=0)
    assert first.job is not None
    assert first.job["id"] == "job_1"
    assert [each["type"] for each in last.news] == ["project.completed"]
    assert last.waits_for is None


def test_it_ends_where_a_person_must_curate(bootlora: Bootlora, service: Service) -> None:
    service.answer = Story("manual", ("running", "curating", [event(1, "round.candidates_ready")])).answer
    (last,) = follow(bootlora, "prj_1", every_seconds=0)
    assert last.waits_for == "round 1: accept or reject its candidates"


def test_the_scorer_is_not_waited_for(bootlora: Bootlora, service: Service) -> None:
    story = Story(
        "auto",
        ("running", "curating", [event(1, "round.candidates_ready")]),
        ("failed", "failed", [event(2, "project.failed")]),
    )
    service.answer = story.answer
    moments = list(follow(bootlora, "prj_1", every_seconds=0))
    assert [moment.is_last for moment in moments] == [False, True]


def test_stages_are_timed_by_their_events() -> None:
    told = [
        event(1, "project.started", 0),
        event(2, "round.training_started", 1),
        event(3, "job.started", 2),
        event(4, "round.generating_started", 11),
        event(5, "round.candidates_ready", 14),
        event(6, "round.completed", 16),
        event(7, "round.training_started", 16, number=2, kind="character"),
    ]
    assert stages(told) == [
        Stage(1, "style", "training", 10.0),
        Stage(1, "style", "drawing", 3.0),
        Stage(1, "style", "choosing", 2.0),
    ]


def test_the_bar_says_what_a_job_of_any_kind_does() -> None:
    display = Display(Console(file=StringIO()))
    display.show_job({"id": "job_1", "kind": "tag", "verb": "tagging", "state": "running"})
    display.show_job({"id": "job_2", "kind": "tag", "state": "running"})  # a service of an earlier version
    assert [task.description for task in display._progress.tasks] == ["tag"]
    display.show_job({"id": "job_1", "kind": "tag", "verb": "tagging", "state": "running"})
    assert [task.description for task in display._progress.tasks] == ["tagging"]


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (250, 350, "about 4 to 6 minutes"),
        (240, 240, "about 4 minutes"),
        (30, 150, "less than 3 minutes"),
        (40, 80.5, "about 40 to 81 seconds"),
        (0, 0.4, "less than 1 second"),
        (2 * 3600, 3.5 * 3600, "about 2 to 4 hours"),
    ],
)
def test_a_range_is_told_in_its_unit(low: float, high: float, words: str) -> None:
    assert between(low, high) == words


def test_the_time_left_is_that_of_the_whole_job() -> None:
    progress: Any = {"stage": "drawing others", "seconds_left": 18.0}
    bounds: Any = {"low": 400.0, "high": 500.0}
    assert time_left({"id": "job_1", "progress": progress, "seconds_to_finish_range": bounds}) == (
        "about 6 to 9 minutes left"
    )
    assert time_left({"id": "job_1", "progress": progress, "seconds_to_finish_range": None}) == ""
    assert time_left({"id": "job_1", "progress": progress}) == ""  # a service of an earlier version


def test_the_bar_says_what_a_job_waits_for() -> None:
    display = Display(Console(file=StringIO()))
    display.show_job({"id": "job_1", "kind": "train", "state": "queued", "waits_for": "no worker has it"})
    assert [task.description for task in display._progress.tasks] == ["waiting: no worker has it"]
