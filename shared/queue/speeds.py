"""How fast this installation has been lately: seconds for one unit of each stage of a job, by kind and base model."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared import figures
from shared.catalog.kinds import KINDS
from shared.lifecycle import JobState
from shared.models import Job

LATEST = 20  # jobs that a speed is computed from
RECENT = 1_000  # the latest jobs of a queue, among which these are searched
KEEP_SECONDS = 15.0  # how long a speed is kept before it is computed again
FEW = 5  # with fewer measurements, the bounds are wider
WIDER = 2.0  # by this factor


@dataclass(frozen=True, slots=True)
class Seconds:
    """An estimate: a middle value, and bounds within which four of five measurements lie."""

    low: float
    middle: float
    high: float

    def __add__(self, other: Seconds) -> Seconds:
        return Seconds(self.low + other.low, self.middle + other.middle, self.high + other.high)

    def __mul__(self, factor: float) -> Seconds:
        return Seconds(self.low * factor, self.middle * factor, self.high * factor)

    @property
    def is_known(self) -> bool:
        return isfinite(self.high)

    def after(self, spent: float) -> Seconds:
        """What is left of it. If it should have been over by now, it may last as long again."""
        if spent >= self.high:
            return Seconds(0.0, spent / 2, spent)
        high = self.high - spent
        middle = self.middle - spent if self.middle > spent else high / 2
        return Seconds(max(0.0, self.low - spent), middle, high)


NO_TIME = Seconds(0.0, 0.0, 0.0)
UNKNOWN = Seconds(0.0, inf, inf)


def expected(session: Session, kind: str, base_model: str | None, stages: Mapping[str, float]) -> Seconds:
    """How long a job with stages of these sizes takes from its start to its end."""
    return sum(of_stages(session, kind, base_model, stages.items()).values(), NO_TIME)


def of_stages(
    session: Session, kind: str, base_model: str | None, stages: Iterable[tuple[str, float]]
) -> dict[str, Seconds]:
    """How long each stage of a job takes, in their order. Those without work are left out."""
    each = figures.kept(session, f"{kind} {base_model}", KEEP_SECONDS, lambda: _of_units(session, kind, base_model))
    return {name: each.get(name, UNKNOWN) * size for name, size in stages if size}


def _of_units(session: Session, kind: str, base_model: str | None) -> dict[str, Seconds]:
    """Seconds for one unit of each stage, by the latest jobs that have succeeded in one go."""
    measured = defaultdict(list)
    for stages in _latest(session, kind, base_model):
        for name, size, *seconds in stages or ():
            if seconds and size:
                measured[name].append(seconds[0] / size)
    return {name: of_measurements(found) for name, found in measured.items()}


def of_measurements(found: list[float]) -> Seconds:
    """The median, and the 10th and 90th percentile. If they are few: half the least, and twice the greatest."""
    middle = statistics.median(found)
    if len(found) < FEW:
        return Seconds(min(found) / WIDER, middle, max(found) * WIDER)
    tenths = statistics.quantiles(found, n=10, method="inclusive")
    return Seconds(tenths[0], middle, tenths[-1])


def _latest(session: Session, kind: str, base_model: str | None) -> Iterable[Any]:
    ended = select(Job.id).where(Job.queue == KINDS[kind].queue, Job.state == JobState.SUCCEEDED)
    recent = ended.order_by(Job.id.desc()).limit(RECENT).subquery()
    query = select(Job.stages).join(recent, recent.c.id == Job.id)
    same = query.where(Job.kind == kind, Job.base_model == base_model, Job.stages.is_not(None))
    return session.scalars(same.order_by(Job.id.desc()).limit(LATEST))
