"""What a user has, runs and has used."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.lifecycle import JobState
from shared.models import Image, Job, Project, User


def of_user(session: Session, user: User) -> dict[str, Any]:
    """Counts of a user's things, and the GPU seconds spent on them."""
    open_jobs = select(Job.state, func.count()).where(
        Job.user_id == user.id, Job.state.in_((JobState.QUEUED, JobState.RUNNING))
    )
    by_state = dict(iter(session.execute(open_jobs.group_by(Job.state))))
    mine = select(Project.id).where(Project.user_id == user.id)
    images, size_bytes = session.execute(
        select(func.count(), func.coalesce(func.sum(Image.size_bytes), 0)).where(Image.project_id.in_(mine))
    ).one()
    return {
        "projects": session.scalar(select(func.count()).where(Project.user_id == user.id)) or 0,
        "images": images,
        "image_bytes": int(size_bytes),
        "queued_jobs": by_state.get(JobState.QUEUED, 0),
        "running_jobs": by_state.get(JobState.RUNNING, 0),
        "gpu_seconds": user.gpu_seconds,
    }
