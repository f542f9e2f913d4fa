"""Events: one table for polling, streams and webhooks. An event is written in the transaction of its change."""

from __future__ import annotations

from typing import Any

from sqlalchemy import bindparam, or_, select, update
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from shared.models import Delivery, Event, Job, Project, Round, Webhook
from shared.outside.db import clock, utcnow

LAST_SEQ = 2**31 - 1  # the column's maximum

# Every event type with its meaning. The API's contract tells clients to ignore unknown types.
TYPES = {
    "project.started": "The first round has started.",
    "project.completed": "The character LoRA is ready: `data.lora_id`.",
    "project.failed": "A job has failed. `data.error` says why. Retry continues from the failed stage.",
    "project.cancelled": "The project was cancelled.",
    "round.training_started": "The dataset is frozen and the round's LoRA is being trained.",
    "round.generating_started": "The round's LoRA is ready, and candidates are being drawn.",
    "round.candidates_ready": "Candidates wait for a decision (`manual`) or are being chosen (`auto`).",
    "round.attention_needed": "Too few candidates were good enough; a person must look. `data.reason` says why.",
    "round.evaluating_started": "The character LoRA is ready, and test pictures from every side are being drawn.",
    "round.completed": "The round's pictures are chosen, or its character LoRA is evaluated.",
    "round.failed": "A job of this round has failed.",
    "image.added": "An upload, a crop or an edited picture is ready. `data.notes` lists what was ignored in its file.",
    "job.started": "A worker has claimed the job.",
    "prompt.cut": "Some prompts or captions are longer than the base model reads. `data.unread` has the ignored text.",
    "job.requeued": "The worker was lost or shut down. The job resumes from its checkpoint.",
    "job.succeeded": "The job's result is stored.",
    "job.failed": "The job has failed. `data.error` says why.",
    "job.cancelled": "The job was cancelled.",
    "webhook.test": "A test event, sent on request.",
}

_projects = Project.__table__
_NEXT = (
    update(_projects)
    .where(_projects.c.id == bindparam("of"))
    .values(seq=_projects.c.seq + 1)
    .returning(_projects.c.seq)
)
# Locks the webhooks: if one were deleted before its delivery is written, the whole transaction would be rolled back.
_LISTENING = (
    select(Webhook)
    .where(
        Webhook.user_id == bindparam("whose"),
        Webhook.disabled_at.is_(None),
        or_(Webhook.project_id.is_(None), Webhook.project_id == bindparam("of")),
    )
    .with_for_update(read=True, key_share=True)
)


def record(session: Session, project: Project, type_: str, **data: Any) -> Event:
    """Append an event to a project, and a delivery for each webhook that subscribes to it."""
    if type_ not in TYPES:
        raise ValueError(f"unknown event type {type_!r}")
    session.flush()  # a new project must exist before _NEXT updates it
    now = utcnow()
    seq = session.scalar(_NEXT, {"of": project.id, "updated_at": now})
    set_committed_value(project, "seq", seq)
    set_committed_value(project, "updated_at", now)
    event = Event(user_id=project.user_id, project_id=project.id, seq=seq, type=type_, data=data)
    session.add(event)
    session.flush()
    for webhook in session.scalars(_LISTENING, {"whose": project.user_id, "of": project.id}):
        if not webhook.event_types or type_ in webhook.event_types:
            session.add(Delivery(webhook_id=webhook.id, event_id=event.id, due_at=clock()))
    return event


def of_job(session: Session, job: Job, type_: str, **data: Any) -> Event:
    """Record an event about a job in its project."""
    project = session.get_one(Project, job.project_id)
    return record(
        session,
        project,
        type_,
        job_id=job.id,
        kind=job.kind,
        round_id=job.round_id,
        attempt=job.attempt,
        metadata=job.labels,
        **data,
    )


def of_round(session: Session, round_: Round, type_: str, **data: Any) -> Event:
    """Record an event about a round in its project."""
    return record(session, round_.project, type_, round_id=round_.id, number=round_.number, kind=round_.kind, **data)


def after(session: Session, project_id: str, seq: int, limit: int) -> list[Event]:
    """The events of a project that follow `seq`, oldest first."""
    seq = min(seq, LAST_SEQ)
    query = select(Event).where(Event.project_id == project_id, Event.seq > seq).order_by(Event.seq).limit(limit)
    return list(session.scalars(query))


def latest(session: Session, project_id: str, type_: str) -> Event:
    """The last event of a type, ordered by `seq` because hosts' clocks may differ."""
    query = select(Event).where(Event.project_id == project_id, Event.type == type_).order_by(Event.seq.desc())
    return session.scalars(query.limit(1)).one()


def payload(event: Event) -> dict[str, Any]:
    """An event as clients get it from polling, streams and webhooks."""
    return {
        "type": event.type,
        "timestamp": event.created_at.isoformat(),
        "data": {"id": event.id, "project_id": event.project_id, "seq": event.seq, **event.data},
    }
