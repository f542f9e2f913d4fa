"""What a user has stored, has running and has used."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, func, literal, select
from sqlalchemy.orm import Session

from shared.catalog.kinds import LORA_FILES
from shared.errors import Conflict
from shared.lifecycle import JobState
from shared.models import Image, ImportedLora, Job, Lora, Project, User
from shared.settings import Settings


def of_user(session: Session, user: User) -> dict[str, Any]:
    """Counts of a user's projects, images and jobs, their bytes, and the GPU seconds used."""
    open_jobs = select(Job.state, func.count()).where(
        Job.user_id == user.id, Job.state.in_((JobState.QUEUED, JobState.RUNNING))
    )
    by_state = dict(iter(session.execute(open_jobs.group_by(Job.state))))
    images, image_bytes = _images(session, user.id)
    return {
        "projects": session.scalar(select(func.count()).where(Project.user_id == user.id)) or 0,
        "images": images,
        "image_bytes": image_bytes,
        "stored_bytes": image_bytes + _lora_bytes(session, user.id),
        "queued_jobs": by_state.get(JobState.QUEUED, 0),
        "running_jobs": by_state.get(JobState.RUNNING, 0),
        "gpu_seconds": user.gpu_seconds,
    }


def check_stored_bytes(session: Session, user_id: str, settings: Settings) -> None:
    """Raise `Conflict` (`too_many_stored_bytes`) when a user has stored as many bytes as allowed.

    Pictures and LoRAs in the making do not count, so a user may exceed the limit a little.
    """
    _, stored = _images(session, user_id)
    stored += _lora_bytes(session, user_id)
    allowed = settings.max_stored_bytes_per_user
    if stored >= allowed:
        raise Conflict(
            f"your pictures and LoRAs have {stored} bytes, and {allowed} are allowed; delete projects or LoRAs",
            code="too_many_stored_bytes",
        )


def _images(session: Session, user_id: str) -> tuple[int, int]:
    """The number of a user's pictures, and their bytes."""
    sums = select(func.count(), func.coalesce(func.sum(Image.size_bytes), 0))
    count, size_bytes = session.execute(sums.where(Image.project_id.in_(_projects(user_id)))).one()
    return count, int(size_bytes)


def _lora_bytes(session: Session, user_id: str) -> int:
    files = (Lora.files[name, "size_bytes"].as_integer() for name in LORA_FILES)
    each = sum((func.coalesce(size_bytes, 0) for size_bytes in files), start=literal(0))
    trained = session.scalar(select(func.sum(each)).where(Lora.project_id.in_(_projects(user_id))))
    imported = session.scalar(select(func.sum(ImportedLora.size_bytes)).where(ImportedLora.user_id == user_id))
    return int(trained or 0) + int(imported or 0)


def _projects(user_id: str) -> Select[Any]:
    return select(Project.id).where(Project.user_id == user_id)
