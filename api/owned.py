"""The one place that says what is whose: every look-up of a request goes through here. A foreign id does not exist.

For a write the project's row is locked first, whatever is looked up. So all writes to one project stand in a
queue, and what was checked still holds when it is written.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar, cast

from sqlalchemy import Select, bindparam, inspect, select
from sqlalchemy.orm import Session

from api import context
from shared import webhooks
from shared.errors import NotFound
from shared.lifecycle import TERMINAL_JOB_STATES
from shared.models import ApiKey, Image, Job, Lora, Project, Round, Webhook

# Putting a query together takes longer than to ask it.
_PROJECT = select(Project).where(Project.id == bindparam("wanted"), Project.user_id == bindparam("owner"))
_PROJECT_LOCKED = _PROJECT.with_for_update()
_MY_JOB = (Job.id == bindparam("part"), Project.id == Job.project_id, Project.user_id == bindparam("owner"))
_JOB = {column.key: getattr(Job, column.key).label(column.key) for column in inspect(Job).column_attrs}
_OPEN_JOB = select(*_JOB.values()).where(*_MY_JOB)
# What it was given and has made, hundreds of pictures maybe, is not shown; of an open job it tells how long it takes.
_ENDED_JOB = select(*(_JOB[name] for name in _JOB if name not in ("inputs", "result", "checkpoint"))).where(*_MY_JOB)

Row = TypeVar("Row", Project, Image, Job, Lora, Round)


def project(session: Session, project_id: str) -> Project:
    query = _PROJECT_LOCKED if session is context.current_writing() else _PROJECT
    found = session.scalar(query, {"wanted": project_id, "owner": context.user().id})
    if found is None:
        raise NotFound(f"there is no project {project_id}")
    return found


def image(session: Session, image_id: str) -> Image:
    return _part(session, Image, image_id, "image")


def job(session: Session, job_id: str) -> Job:
    return _part(session, Job, job_id, "job")


def shown_job(job_id: str) -> Job:
    """A job to be shown, as plain values. It is what clients ask for most."""
    db, named = context.runtime().db, {"part": job_id, "owner": context.user().id}
    found = db.row(_ENDED_JOB, **named)
    if found is not None and found.state not in TERMINAL_JOB_STATES:
        found = db.row(_OPEN_JOB, **named)
    if found is None:
        raise NotFound(f"there is no job {job_id}")
    return cast(Job, found)


def lora(session: Session, lora_id: str) -> Lora:
    return _part(session, Lora, lora_id, "LoRA")


def round_(session: Session, project_id: str, number: int) -> Round:
    owner = project(session, project_id)
    found = session.scalar(select(Round).where(Round.project_id == owner.id, Round.number == number))
    if found is None:
        raise NotFound(f"the project has no round {number}")
    return found


def key(session: Session, key_id: str) -> ApiKey:
    found = session.scalar(select(ApiKey).where(ApiKey.id == key_id, ApiKey.user_id == context.user().id))
    if found is None:
        raise NotFound(f"there is no key {key_id}")
    return found


def webhook(session: Session, webhook_id: str) -> Webhook:
    return webhooks.get(session, context.user(), webhook_id, lock=session is context.current_writing())


def projects() -> Select[Project]:
    return select(Project).where(Project.user_id == context.user().id)


def jobs() -> Select[Job]:
    return select(Job).where(Job.user_id == context.user().id)


def _part(session: Session, model: type[Row], id_: str, noun: str) -> Row:
    named = {"part": id_, "owner": context.user().id}
    if session is context.current_writing():
        session.scalar(_mine(model, lock=True), named)
    found = session.scalar(_mine(model), named)
    if found is None:
        raise NotFound(f"there is no {noun} {id_}")
    return found


@cache
def _mine(model: Any, *, lock: bool = False) -> Select[Any]:
    """A part of a project of its owner, or that project's lock."""
    query = select(Project.id).with_for_update(of=Project) if lock else select(model)
    return query.where(
        model.id == bindparam("part"), Project.id == model.project_id, Project.user_id == bindparam("owner")
    )
