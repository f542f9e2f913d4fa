"""What dry runs answer: the work of a plan or of a drawing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.context import base_models
from api.schemas.estimates import shown
from shared import plans, projects, rounds
from shared.catalog import kinds
from shared.catalog.kinds import JobKind
from shared.catalog.params import GenerateParams, Original, Plan
from shared.lifecycle import Decision, RoundKind
from shared.models import Image, Project, User
from shared.queue import jobs, speeds
from shared.queue.speeds import Seconds
from shared.settings import Settings


def of_plan(
    session: Session, project: Project, plan: Plan, user: User, settings: Settings, *, first: int = 1
) -> dict[str, Any]:
    """Steps, pictures and seconds of each round of a plan, if its candidates are drawn once.

    Args:
        first: the number of its first round.
    """
    have = max(projects.MIN_REFERENCES, _references(session, project))
    per_round, seconds = [], list[Seconds]()
    for number, round_ in enumerate(plan.rounds, first):
        style = round_.kind == RoundKind.STYLE
        wanted = plans.candidates(max(0, round_.target - have), round_)
        pictures = wanted if style else rounds.EVALUATION_PICTURES
        training = _seconds(session, kinds.TRAIN, project, kinds.train_stages(round_.train, have))
        drawing = _seconds(session, kinds.GENERATE, project, kinds.generate_stages(round_.generate, pictures))
        seconds.append(training + drawing)
        per_round.append(
            {
                "number": number,
                "kind": round_.kind,
                "train_images": have,
                "train_steps": round_.train.train_steps,
                "pictures": pictures,
                **shown("seconds", seconds[-1]),
            }
        )
        have = max(have, round_.target) if style else have
    return {
        "plan": plan,
        "rounds": per_round,
        "train_steps": sum(each["train_steps"] for each in per_round),
        "pictures": sum(each["pictures"] for each in per_round),
        **shown("seconds", sum(seconds, speeds.NO_TIME)),
        "warnings": projects.warnings(project, base_models),
        "quota": _quota(session, user, settings, 2 * len(per_round)),
    }


def of_drawing(
    session: Session,
    project: Project,
    params: GenerateParams,
    pictures: int,
    user: User,
    settings: Settings,
    originals: Sequence[Original] = (),
) -> dict[str, Any]:
    """Pictures and seconds of one drawing. `originals` are what some pictures are drawn from."""
    stages = kinds.generate_stages(params, pictures, originals)
    return {
        "pictures": pictures,
        **shown("seconds", _seconds(session, kinds.GENERATE, project, stages)),
        "quota": _quota(session, user, settings, 1),
    }


def _seconds(session: Session, kind: JobKind[Any, Any, Any], project: Project, stages: dict[str, float]) -> Seconds:
    return speeds.expected(session, kind.name, project.base_model, stages)


def _quota(session: Session, user: User, settings: Settings, new_jobs: int) -> dict[str, Any]:
    return {
        "queued_jobs": jobs.waiting(session, user),
        "max_queued_jobs": jobs.max_waiting(user, settings),
        "new_jobs": new_jobs,
    }


def _references(session: Session, project: Project) -> int:
    if project.id is None:
        return 0
    query = select(func.count()).where(Image.project_id == project.id, Image.decision == Decision.ACCEPTED)
    return session.scalar(query) or 0
