"""How fast this installation has been lately: what estimates are made of."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.lifecycle import JobState
from shared.models import Job, Project

LATEST = 20  # jobs that an estimate looks back at


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Seconds for one step of training and for one picture, loading and storing included. None: not known yet."""

    train_step: float | None
    picture: float | None

    def seconds(self, *, train_steps: int = 0, pictures: int = 0) -> float | None:
        """How long so much work would take."""
        if (train_steps and self.train_step is None) or (pictures and self.picture is None):
            return None
        return round(train_steps * (self.train_step or 0.0) + pictures * (self.picture or 0.0), 1)

    def of_job(self, kind: str, params: dict[str, Any], inputs: dict[str, Any]) -> float | None:
        """How long a whole job takes."""
        if kind == "train":
            return self.seconds(train_steps=params["train_steps"])
        if kind == "generate":
            return self.seconds(pictures=len(inputs["pictures"]))
        return None


def measured(session: Session, base_model: str) -> Speed:
    """From the latest jobs on this base model that went well."""
    return Speed(
        train_step=_mean(
            (job.started_at, job.finished_at, job.params["train_steps"])
            for job in _latest(session, base_model, "train")
        ),
        picture=_mean(
            (job.started_at, job.finished_at, len(job.inputs["pictures"]))
            for job in _latest(session, base_model, "generate")
        ),
    )


def _latest(session: Session, base_model: str, kind: str) -> list[Job]:
    query = (
        select(Job)
        .join(Project, Project.id == Job.project_id)
        .where(Job.kind == kind, Job.state == JobState.SUCCEEDED, Project.base_model == base_model, Job.attempt == 1)
    )
    return list(session.scalars(query.order_by(Job.id.desc()).limit(LATEST)))


def _mean(runs: Any) -> float | None:
    spent, done = 0.0, 0
    for started_at, finished_at, amount in runs:
        if isinstance(started_at, datetime) and isinstance(finished_at, datetime) and amount:
            spent += (finished_at - started_at).total_seconds()
            done += amount
    return spent / done if done else None
