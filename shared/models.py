"""The tables. Rows are only data; the functions that change them are in the module of each noun."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, String, Table, UniqueConstraint, desc, text, true
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from shared.catalog import BaseModel
from shared.catalog.kinds import DatasetEntry, Terms
from shared.catalog.params import Plan, RoundPlan
from shared.ids import new_id
from shared.outside.db import Json, Record, Time, utcnow


class Base(DeclarativeBase):
    __table__: ClassVar[Table]
    type_annotation_map: ClassVar = {
        datetime: Time,
        dict[str, Any]: Json,
        list[str]: Json,
        list[Any]: Json,
        str: String,
    }


def _id(prefix: str) -> Mapped[str]:
    return mapped_column(primary_key=True, default=lambda: new_id(prefix))


class Installation(Base):
    """This installation. A migration creates the only row. An object in the store holds the same id."""

    __tablename__ = "installation"
    id: Mapped[str] = mapped_column(primary_key=True)


class User(Base):
    """A user. `served_at` is the time when a job of theirs was last dispatched, or their creation; it decides turns."""

    __tablename__ = "users"
    id: Mapped[str] = _id("usr")
    name: Mapped[str] = mapped_column(unique=True)
    role: Mapped[str] = mapped_column(default="member")  # admin or member
    max_running_jobs: Mapped[int | None]  # None: the installation's setting
    max_queued_jobs: Mapped[int | None]
    gpu_seconds: Mapped[float] = mapped_column(default=0.0)
    served_at: Mapped[datetime] = mapped_column(default=utcnow)
    in_line: Mapped[bool] = mapped_column(default=True, server_default=true())  # False: no open jobs; see turns.py
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    disabled_at: Mapped[datetime | None]  # set: all their keys are refused
    __table_args__ = (Index("users_by_turn", "in_line", "served_at", "id"),)


class ApiKey(Base):
    """An API key, which is shown only once. The row has its prefix, to find it by, and its HMAC."""

    __tablename__ = "api_keys"
    id: Mapped[str] = _id("key")
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    parent_id: Mapped[str | None] = mapped_column(index=True)  # the key that made it; both are revoked together
    name: Mapped[str]
    prefix: Mapped[str] = mapped_column(unique=True)
    digest: Mapped[str]
    scopes: Mapped[list[str]]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    user: Mapped[User] = relationship(lazy="joined")


class Project(Base):
    """A project, which makes a LoRA of one character."""

    __tablename__ = "projects"
    id: Mapped[str] = _id("prj")
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    name: Mapped[str]
    trigger_word: Mapped[str]
    subject_tags: Mapped[list[str]]
    feature_tags: Mapped[list[str]]
    base_model: Mapped[str]
    intended_use: Mapped[str | None]  # one of INTENDED_USES
    plan: Mapped[Plan] = mapped_column(Record(Plan))  # fully explicit: see plans.resolve
    curation: Mapped[str]
    state: Mapped[str] = mapped_column(default="draft")
    error: Mapped[dict[str, Any] | None]
    labels: Mapped[dict[str, Any]] = mapped_column("metadata", default=dict)  # the client's own ids
    seq: Mapped[int] = mapped_column(default=0)  # of its last event
    gpu_seconds: Mapped[float] = mapped_column(default=0.0)
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    updated_at: Mapped[datetime] = mapped_column(default=utcnow, onupdate=utcnow)
    __table_args__ = (Index("projects_by_user", "user_id", "created_at", "id"),)


class Round(Base):
    """A round: train, generate, curate. The start of the training freezes the dataset with its captions."""

    __tablename__ = "rounds"
    id: Mapped[str] = _id("rnd")
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    number: Mapped[int]
    kind: Mapped[str]
    target: Mapped[int]  # pictures in the dataset when the round ends
    plan: Mapped[RoundPlan] = mapped_column(Record(RoundPlan))  # this round's part of the project's plan
    state: Mapped[str] = mapped_column(default="pending")
    dataset: Mapped[list[DatasetEntry]] = mapped_column(Record(list[DatasetEntry]), default=list)
    lora_id: Mapped[str | None]
    generations: Mapped[int] = mapped_column(default=0)  # how often candidates were drawn
    needs_attention: Mapped[str | None]  # why it waits for a person, if it does
    failed_in: Mapped[str | None]  # the state that a retry goes back to
    error: Mapped[dict[str, Any] | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    project: Mapped[Project] = relationship(lazy="joined")
    __table_args__ = (UniqueConstraint("project_id", "number"),)


class Image(Base):
    """A picture. The object is written once and never changed; an edit is another image."""

    __tablename__ = "images"
    id: Mapped[str] = _id("img")
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    round_id: Mapped[str | None] = mapped_column(ForeignKey("rounds.id", ondelete="CASCADE"), index=True)
    job_id: Mapped[str | None]
    parent_id: Mapped[str | None]  # the image that it was cropped, edited or drawn from
    role: Mapped[str]  # an ImageRole
    source: Mapped[str]  # an ImageSource
    state: Mapped[str] = mapped_column(default="ready")  # ready, or missing once the store has lost it
    decision: Mapped[str] = mapped_column(default="pending")
    view: Mapped[str | None]
    framing: Mapped[str | None]
    tags: Mapped[list[str]] = mapped_column(default=list)
    variants: Mapped[list[Any] | None]  # its other captions, as lists of tags
    repeats: Mapped[int] = mapped_column(default=1, server_default="1")  # how often it is drawn in an epoch
    box: Mapped[list[Any] | None]  # of a crop, in pixels of its parent: left, top, right, bottom
    prompt: Mapped[str | None]
    seed: Mapped[int | None] = mapped_column(BigInteger().with_variant(Integer(), "sqlite"))
    scores: Mapped[dict[str, Any] | None]
    key: Mapped[str]
    sha256: Mapped[str]
    size_bytes: Mapped[int]
    width: Mapped[int]
    height: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    __table_args__ = (Index("images_by_project", "project_id", "created_at", "id"),)


class Job(Base):
    """A job. The table is the queue; a message over Redis only wakes a worker."""

    __tablename__ = "jobs"
    id: Mapped[str] = _id("job")
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    round_id: Mapped[str | None] = mapped_column(ForeignKey("rounds.id", ondelete="CASCADE"), index=True)
    kind: Mapped[str]
    queue: Mapped[str]
    state: Mapped[str] = mapped_column(default="queued")
    priority: Mapped[int] = mapped_column(default=0)  # within one user
    params: Mapped[dict[str, Any]]
    inputs: Mapped[dict[str, Any]]
    base_model: Mapped[str | None]  # that its inputs name
    # [[name, size], ...] as its kind says; once it has succeeded in one go, [[name, size, seconds], ...].
    # None: unknown, because an earlier version wrote the row, or the job goes on from the checkpoint of another.
    stages: Mapped[list[Any] | None]
    labels: Mapped[dict[str, Any]] = mapped_column("metadata", default=dict)
    progress: Mapped[dict[str, Any] | None]
    checkpoint: Mapped[dict[str, Any] | None]  # where the next attempt resumes
    result: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]
    attempt: Mapped[int] = mapped_column(default=1)  # increases with each requeue, so that older messages are void
    lost_attempts: Mapped[int] = mapped_column(default=0)
    lease_token: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    worker: Mapped[str | None]
    dispatched_at: Mapped[datetime | None]  # when a message was last sent for this attempt
    cancel_requested_at: Mapped[datetime | None]
    queued_at: Mapped[datetime] = mapped_column(default=utcnow)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    __table_args__ = (
        Index("jobs_waiting", "state", "queue", "user_id", desc("priority"), "id"),  # as turns.take_next takes them
        Index("jobs_dispatched", "state", "queue", "dispatched_at"),
        Index("jobs_latest", "state", "queue", "id"),
        Index("jobs_by_project", "project_id", "created_at", "id"),
        Index("jobs_by_user", "user_id", "created_at", "id"),
        Index("jobs_by_user_and_state", "user_id", "state", "created_at", "id"),
        Index(
            "jobs_lost",
            "lost_attempts",
            sqlite_where=text("lost_attempts > 0"),
            postgresql_where=text("lost_attempts > 0"),
        ),
    )


class Worker(Base):
    """A worker process that checks in. It gets as many jobs at once as it has slots; worker-io has none."""

    __tablename__ = "workers"
    name: Mapped[str] = mapped_column(primary_key=True)
    queue: Mapped[str]
    slots: Mapped[int]
    seen_at: Mapped[datetime]


class WorkerModel(Base):
    """A base model as a worker has reported it. The row stays for some days after the worker has gone."""

    __tablename__ = "worker_models"
    worker: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[BaseModel] = mapped_column(Record(BaseModel))
    usable: Mapped[bool]  # False: the model has a problem
    reported_at: Mapped[datetime]


class Lora(Base):
    """A trained LoRA, as a file in kohya's format (ComfyUI, A1111, Forge) and one in that of diffusers."""

    __tablename__ = "loras"
    source: ClassVar[str] = "trained"
    id: Mapped[str] = _id("lor")
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), index=True)
    round_id: Mapped[str] = mapped_column(ForeignKey("rounds.id", ondelete="CASCADE"))
    job_id: Mapped[str]
    kind: Mapped[str]
    trigger_word: Mapped[str]
    base_model: Mapped[str]
    rank: Mapped[int]
    alpha: Mapped[float]
    train_steps: Mapped[int]
    metrics: Mapped[dict[str, Any]]
    terms: Mapped[Terms | None] = mapped_column(Record(Terms))  # None: trained by an earlier version
    files: Mapped[dict[str, Any]]  # by name of LORA_FILES: {key, sha256, size_bytes, filename}
    created_at: Mapped[datetime] = mapped_column(default=utcnow)


class ImportedLora(Base):
    """A LoRA file that a user has brought. It belongs to no project, round or job."""

    __tablename__ = "imported_loras"
    source: ClassVar[str] = "imported"
    project_id: ClassVar[None] = None
    round_id: ClassVar[None] = None
    job_id: ClassVar[None] = None
    kind: ClassVar[None] = None
    alpha: ClassVar[None] = None
    train_steps: ClassVar[None] = None
    metrics: ClassVar[None] = None
    terms: ClassVar[None] = None
    id: Mapped[str] = _id("lor")
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    name: Mapped[str]
    family: Mapped[str]  # of the base models that it fits
    kinds: Mapped[list[str]]  # of changes that it makes: lora, locon, loha, lokr, tucker, dora
    parts: Mapped[dict[str, Any]]  # how many modules of each part it changes
    rank: Mapped[int]  # the largest; 0 if it has none
    trigger_word: Mapped[str]  # these three: empty if neither the file nor the user says
    base_model: Mapped[str]  # that it was trained on
    license: Mapped[str]
    key: Mapped[str]
    filename: Mapped[str]
    sha256: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger().with_variant(Integer(), "sqlite"))
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    __table_args__ = (
        UniqueConstraint("user_id", "sha256"),
        Index("imported_loras_by_user", "user_id", "created_at", "id"),
    )

    @property
    def files(self) -> dict[str, Any]:
        return {"original": {name: getattr(self, name) for name in ("key", "filename", "sha256", "size_bytes")}}


class Event(Base):
    """An event. `seq` counts the events of a project without a gap."""

    __tablename__ = "events"
    id: Mapped[str] = _id("evt")
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    project_id: Mapped[str | None] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    seq: Mapped[int]
    type: Mapped[str]
    data: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    __table_args__ = (UniqueConstraint("project_id", "seq"), Index("events_by_user", "user_id", "created_at"))


class Webhook(Base):
    """An endpoint for events of one project, or without a project, of all projects of its user."""

    __tablename__ = "webhooks"
    id: Mapped[str] = _id("whk")
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    project_id: Mapped[str | None] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    url: Mapped[str]
    description: Mapped[str] = mapped_column(default="")
    event_types: Mapped[list[str]]  # empty: all of them
    sealed_secret: Mapped[str]
    sealed_old_secret: Mapped[str | None]  # signs too, until old_secret_until
    old_secret_until: Mapped[datetime | None]
    disabled_at: Mapped[datetime | None]
    disabled_reason: Mapped[str | None]
    failing_since: Mapped[datetime | None]  # the first failure after the last success
    failures: Mapped[int] = mapped_column(default=0)  # since the last success
    paused_until: Mapped[datetime | None]  # a failing endpoint gets no requests for a while
    lease_token: Mapped[str | None]  # of the sender that has taken it; it gets one request at a time
    lease_until: Mapped[datetime | None]  # in the past: when it was last served
    created_at: Mapped[datetime] = mapped_column(default=utcnow)


class Delivery(Base):
    """The delivery of one event to one webhook, tried until it succeeds or the tries are used up."""

    __tablename__ = "deliveries"
    id: Mapped[str] = _id("dlv")
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    event_id: Mapped[str] = mapped_column(ForeignKey("events.id", ondelete="CASCADE"))
    state: Mapped[str] = mapped_column(default="pending")  # pending, delivered or failed
    tries: Mapped[int] = mapped_column(default=0)
    due_at: Mapped[datetime] = mapped_column(default=utcnow)
    attempts: Mapped[list[Any]] = mapped_column(default=list)  # [{at, status, seconds, answer, error}]
    delivered_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    event: Mapped[Event] = relationship(lazy="joined")
    webhook: Mapped[Webhook] = relationship(lazy="joined")
    __table_args__ = (
        Index("deliveries_due", "state", "due_at"),
        Index("deliveries_next", "webhook_id", "state", "due_at"),
        Index("deliveries_of_event", "event_id"),
        Index("deliveries_by_webhook", "webhook_id", "created_at", "id"),
    )


class IdempotencyKey(Base):
    """The stored answer to a request, for repetitions with the same key."""

    __tablename__ = "idempotency_keys"
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    route: Mapped[str] = mapped_column(primary_key=True)  # method and path
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str]
    status: Mapped[int | None]  # None while the first request runs
    body: Mapped[str | None]
    headers: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime] = mapped_column(default=utcnow, index=True)


class AuditEntry(Base):
    """An entry of the audit log."""

    __tablename__ = "audit"
    id: Mapped[str] = _id("aud")
    user_id: Mapped[str]  # or audit.OPERATOR
    api_key_id: Mapped[str | None]
    action: Mapped[str]
    target: Mapped[str]
    request_id: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=utcnow, index=True)
