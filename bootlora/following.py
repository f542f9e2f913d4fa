"""Follow a project by its events until it ends or waits for a person."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from bootlora.client import Bootlora
from bootlora.types import Event, Job, Project, Round

EVERY_SECONDS = 0.5
# The stage that each of these events begins. It lasts until the round's next event.
STAGES = {
    "round.training_started": "training",
    "round.generating_started": "drawing",
    "round.candidates_ready": "choosing",
    "round.evaluating_started": "trying out",
}


@dataclass(frozen=True)
class Moment:
    """A project's state and the events since the previous moment."""

    project: Project
    round: Round | None  # the open round, or else the last
    job: Job | None  # the latest job of a round
    news: list[Event]

    @property
    def waits_for(self) -> str | None:
        """What the project waits for a person to do; None if it does not wait."""
        if self.project["state"] == "draft":
            return "it is a draft; start it"
        if self.round is None or self.round["state"] != "curating":
            return None
        if self.round.get("needs_attention"):
            return f"round {self.round['number']}: {self.round['needs_attention']}"
        if self.project["curation"] == "manual":
            return f"round {self.round['number']}: accept or reject its candidates"
        return None

    @property
    def is_last(self) -> bool:
        return self.project["state"] != "running" or self.waits_for is not None


def follow(
    bootlora: Bootlora, project_id: str, *, after: int = 0, every_seconds: float = EVERY_SECONDS
) -> Iterator[Moment]:
    """Yield a moment every `every_seconds`, until the project has ended or waits for a person.

    The first moment's news start after the sequence number `after`.
    """
    seq, job_id = after, None
    project, round_ = _standing(bootlora, project_id)
    while True:
        news = list(bootlora.projects.events(project_id, after=seq))
        if news:
            project, round_ = _standing(bootlora, project_id)
            seq = news[-1]["data"]["seq"]
            job_id = _latest_job(news) or job_id
        moment = Moment(project, round_, bootlora.jobs.get(job_id) if job_id else None, news)
        if moment.is_last:
            news += bootlora.projects.events(project_id, after=seq)  # events recorded since the first request
        yield moment
        if moment.is_last:
            return
        time.sleep(every_seconds)


@dataclass(frozen=True)
class Stage:
    """One stage of a round and how long it took."""

    number: int
    kind: str
    name: str
    seconds: float


def stages(events: Iterable[Event]) -> list[Stage]:
    """The finished stages of all rounds, in order."""
    done: list[Stage] = []
    begun: Event | None = None
    for event in events:
        if not event["type"].startswith("round."):
            continue
        if begun is not None:
            seconds = (_time(event) - _time(begun)).total_seconds()
            done.append(Stage(begun["data"]["number"], begun["data"]["kind"], STAGES[begun["type"]], seconds))
        begun = event if event["type"] in STAGES else None
    return done


def _standing(bootlora: Bootlora, project_id: str) -> tuple[Project, Round | None]:
    rounds = bootlora.rounds.all(project_id)
    under_way = [each for each in rounds if each["state"] not in ("pending", "completed", "cancelled")]
    ended = [each for each in rounds if each["state"] != "pending"]
    round_ = next(iter(under_way or ended[-1:]), None)
    return bootlora.projects.get(project_id), round_


def _latest_job(news: list[Event]) -> str | None:
    of_rounds = [each["data"] for each in news if each["data"].get("round_id") and each["data"].get("job_id")]
    return of_rounds[-1]["job_id"] if of_rounds else None


def _time(event: Event) -> datetime:
    return datetime.fromisoformat(event["timestamp"])
