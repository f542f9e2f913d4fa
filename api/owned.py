"""All look-ups by id for requests. They find only rows of the request's user; for others they raise `NotFound`.

Functions whose names begin with `locked_` are for writes. They begin the request's transaction and lock a row: the
project's, for any part of a project, or the user's, for a key. So writes to one project run one after the other, and
what a view has checked still holds when it writes.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar, cast

from sqlalchemy import Select, bindparam, inspect, select

from api import context
from shared import loras, users
from shared.errors import Conflict, NotFound
from shared.lifecycle import TERMINAL_JOB_STATES
from shared.models import ApiKey, Image, ImportedLora, Job, Lora, Project, Round, Webhook

# The queries are built once, because building takes longer than running them.
_PROJECT = select(Project).where(Project.id == bindparam("wanted"), Project.user_id == bindparam("owner"))
_PROJECT_LOCKED = _PROJECT.with_for_update()
_WEBHOOK = select(Webhook).where(Webhook.id == bindparam("wanted"), Webhook.user_id == bindparam("owner"))
_WEBHOOK_LOCKED = _WEBHOOK.with_for_update(key_share=True)
_KEY = select(ApiKey).where(ApiKey.id == bindparam("wanted"), ApiKey.user_id == bindparam("owner"))
_ROUND = select(Round).where(Round.project_id == bindparam("project_id"), Round.number == bindparam("number"))
_MY_JOB = (Job.id == bindparam("wanted"), Project.id == Job.project_id, Project.user_id == bindparam("owner"))
_JOB = {column.key: getattr(Job, column.key).label(column.key) for column in inspect(Job).column_attrs}
_OPEN_JOB = select(*_JOB.values()).where(*_MY_JOB)
# The inputs and the result may list hundreds of pictures, and no answer shows them. Those of an open job are read too,
# because they name the base model that it may lack.
_ENDED_JOB = select(*(_JOB[name] for name in _JOB if name not in ("inputs", "result", "checkpoint"))).where(*_MY_JOB)

Row = TypeVar("Row")
Part = TypeVar("Part", Image, Job, Lora)


def project(project_id: str) -> Project:
    found = context.reading().scalar(_PROJECT, _named(project_id))
    return _there(found, f"there is no project {project_id}")


def locked_project(project_id: str) -> Project:
    found = context.begin_transaction().scalar(_PROJECT_LOCKED, _named(project_id))
    return _there(found, f"there is no project {project_id}")


def image(image_id: str) -> Image:
    return _part(Image, image_id, "image")


def locked_image(image_id: str) -> Image:
    _lock_project_of(Image, image_id)
    return image(image_id)


def job(job_id: str) -> Job:
    return _part(Job, job_id, "job")


def locked_job(job_id: str) -> Job:
    _lock_project_of(Job, job_id)
    return job(job_id)


def shown_job(job_id: str) -> Job:
    """The values of a job for an answer, read without a session, because this is the most frequent request."""
    db = context.runtime().db
    found = db.row(_ENDED_JOB, **_named(job_id))
    if found is not None and found.state not in TERMINAL_JOB_STATES:
        found = db.row(_OPEN_JOB, **_named(job_id))
    return cast(Job, _there(found, f"there is no job {job_id}"))


def lora(lora_id: str) -> Lora | ImportedLora:
    """A LoRA that was trained in one of the user's projects, or that the user has brought."""
    return loras.imported_of(context.reading(), context.user().id, lora_id) or _part(Lora, lora_id, "LoRA")


def imported_lora(lora_id: str) -> ImportedLora:
    found = loras.imported_of(context.reading(), context.user().id, lora_id)
    if found is None and _part(Lora, lora_id, "LoRA"):
        raise Conflict("this LoRA was trained here; it is deleted with its project", code="lora_of_a_project")
    return _there(found, f"there is no LoRA {lora_id}")


def round_(project_id: str, number: int) -> Round:
    return _round_of(project(project_id), number)


def locked_round(project_id: str, number: int) -> Round:
    return _round_of(locked_project(project_id), number)


def key(key_id: str) -> ApiKey:
    return _there(context.reading().scalar(_KEY, _named(key_id)), f"there is no key {key_id}")


def locked_key(key_id: str) -> ApiKey:
    users.lock_keys(context.begin_transaction(), context.user().id)
    return key(key_id)


def webhook(webhook_id: str) -> Webhook:
    found = context.reading().scalar(_WEBHOOK, _named(webhook_id))
    return _there(found, f"there is no webhook {webhook_id}")


def locked_webhook(webhook_id: str) -> Webhook:
    found = context.begin_transaction().scalar(_WEBHOOK_LOCKED, _named(webhook_id))
    return _there(found, f"there is no webhook {webhook_id}")


def projects() -> Select[Project]:
    return select(Project).where(Project.user_id == context.user().id)


def jobs() -> Select[Job]:
    return select(Job).where(Job.user_id == context.user().id)


def _named(id_: str) -> dict[str, str]:
    return {"wanted": id_, "owner": context.user().id}


def _there(found: Row | None, missing: str) -> Row:
    if found is None:
        raise NotFound(missing)
    return found


def _part(model: type[Part], id_: str, noun: str) -> Part:
    found: Part | None = context.reading().scalar(_mine(model), _named(id_))
    return _there(found, f"there is no {noun} {id_}")


def _round_of(owner: Project, number: int) -> Round:
    found = context.reading().scalar(_ROUND, {"project_id": owner.id, "number": number})
    return _there(found, f"the project has no round {number}")


def _lock_project_of(model: type[Image] | type[Job], id_: str) -> None:
    context.begin_transaction().scalar(_lock_of(model), _named(id_))


@cache
def _mine(model: Any) -> Select[Any]:
    """A query for a part of one of the user's projects."""
    return select(model).where(*_is_mine(model))


@cache
def _lock_of(model: Any) -> Select[Any]:
    """A query that locks the project of a part."""
    return select(Project.id).where(*_is_mine(model)).with_for_update(of=Project)


def _is_mine(model: Any) -> tuple[Any, ...]:
    return (
        model.id == bindparam("wanted"),
        Project.id == model.project_id,
        Project.user_id == bindparam("owner"),
    )
