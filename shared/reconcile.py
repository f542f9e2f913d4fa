"""Compare rows with objects: find objects that are missing, and orphans, which no row names.

An object is stored before its row is written, and a rollback does not delete it. So a lost attempt leaves orphans.
They are deleted when no worker can still be using them. After a restore of a backup, rows and objects may come from
different times; then an operator checks and repairs them.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import structlog
from sqlalchemy import and_, or_, select, update
from sqlalchemy.orm import Session

from shared import ids, ownership
from shared.addresses import FOLDERS
from shared.errors import NotFound
from shared.lifecycle import TERMINAL_JOB_STATES, Decision, JobState, ProjectState
from shared.models import Image, ImportedLora, Job, Lora, Project
from shared.outside.db import clock
from shared.outside.storage import Damaged
from shared.ownership import WrongStore
from shared.queue.jobs import OPEN_STATES
from shared.runtime import Runtime

log = structlog.get_logger()

JOB_KEY = re.compile(r"projects/[^/]+/jobs/(?P<job>[^/]+)/")
AT_ONCE = 1_000  # rows fetched at a time; there may be a million
MISSING = "missing"  # the state of an image whose object is gone


@dataclass(frozen=True)
class Reference:
    """An object that a row names."""

    key: str
    sha256: str
    table: str
    row_id: str


@dataclass
class Differences:
    """The result of a comparison."""

    objects: int = 0
    missing: list[Reference] = field(default_factory=list)
    damaged: list[Reference] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)  # older than the grace time
    young: int = 0  # objects without a row that may still get one


def compare(runtime: Runtime, *, grace_seconds: float, read: bool = False) -> Differences:
    """Compare rows and objects. With `read`, also read every object and check its SHA-256.

    Lists the objects before it reads the rows, so that an object stored in between is not taken for an orphan.
    """
    stored = {found.key for folder in FOLDERS for found in runtime.storage.list(f"{folder}/")}
    with runtime.db.reading() as session:
        references = list(_references(session))
        to_be_read = (
            select(Job.inputs).where(Job.state.not_in(TERMINAL_JOB_STATES)).execution_options(yield_per=AT_ONCE)
        )
        awaited = {key for inputs in session.scalars(to_be_read) for key in _keys(inputs)}
        published = select(Job.result).where(Job.result.is_not(None)).execution_options(yield_per=AT_ONCE)
        results = {key for result in session.scalars(published) for key in _keys(result)}
        at_work = _at_work(session, grace_seconds)
    named = {reference.key for reference in references} | results | awaited
    found = Differences(objects=len(stored))
    for reference in references:
        if reference.key not in stored and not _exists(runtime, reference.key):
            found.missing.append(reference)
        elif read and not _is_intact(runtime, reference):
            found.damaged.append(reference)
    for key in sorted(stored - named):
        if _may_be_named_soon(key, at_work, grace_seconds):
            found.young += 1
        else:
            found.orphans.append(key)
    return found


def collect(runtime: Runtime, *, grace_seconds: float) -> int:
    """Delete orphans that no worker can still be using. Returns how many there were.

    Deletes nothing in a store that may belong to another installation, and logs why.
    """
    try:
        ownership.ensure(runtime)
    except WrongStore as error:
        log.error("orphans.not_collected", error=str(error))
        return 0
    orphans = compare(runtime, grace_seconds=grace_seconds).orphans
    for key in orphans:
        runtime.storage.delete(key)
    if orphans:
        log.info("orphans.collected", objects=len(orphans))
    return len(orphans)


def repair(runtime: Runtime, found: Differences) -> int:
    """Reject lost pictures and delete orphans. Returns how many rows were changed.

    Other damage stays in the report. A LoRA without its file must be trained again. A missing checkpoint is skipped
    when its job resumes.

    Raises:
        WrongStore: the store may belong to another installation; nothing was changed.
    """
    ownership.ensure(runtime)
    lost = {each.row_id for each in (*found.missing, *found.damaged) if each.table == Image.__tablename__}
    with runtime.transaction() as session:
        for image_id in sorted(lost):
            session.execute(update(Image).where(Image.id == image_id).values(state=MISSING, decision=Decision.REJECTED))
    for key in found.orphans:
        runtime.storage.delete(key)
    return len(lost)


def _references(session: Session) -> Iterator[Reference]:
    images = select(Image.key, Image.sha256, Image.id).where(Image.state != MISSING)
    for key, sha256, image_id in session.execute(images.execution_options(yield_per=AT_ONCE)):
        yield Reference(key, sha256, Image.__tablename__, image_id)
    for lora in session.scalars(select(Lora)):
        for file in lora.files.values():
            yield Reference(file["key"], file["sha256"], Lora.__tablename__, lora.id)
    for row in session.execute(select(ImportedLora.key, ImportedLora.sha256, ImportedLora.id)):
        yield Reference(row.key, row.sha256, ImportedLora.__tablename__, row.id)
    # A retry resumes from the last checkpoint and pictures of the failed or cancelled job.
    can_be_retried = and_(Job.state.in_((JobState.FAILED, JobState.CANCELLED)), Project.state == ProjectState.FAILED)
    kept = select(Job).join(Project).where(Job.checkpoint.is_not(None), or_(Job.state.in_(OPEN_STATES), can_be_retried))
    for job in session.scalars(kept):
        checkpoint: dict[str, Any] = job.checkpoint or {}
        for file in (*checkpoint.get("kept", []), *checkpoint.get("images", {}).values()):
            yield Reference(file["key"], file["sha256"], Job.__tablename__, job.id)


def _keys(value: Any) -> Iterator[str]:
    """Every `key` anywhere in a job's inputs or result: what it will read and what it has published aren't orphans."""
    if isinstance(value, dict):
        if isinstance(value.get("key"), str):
            yield value["key"]
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _keys(each)


def _at_work(session: Session, grace_seconds: float) -> set[str]:
    """Jobs that are open or ended so recently that a lost worker may still store objects for them."""
    late = Job.finished_at > clock(-grace_seconds)
    return set(session.scalars(select(Job.id).where(Job.state.not_in(TERMINAL_JOB_STATES) | late)))


def _may_be_named_soon(key: str, at_work: set[str], grace_seconds: float) -> bool:
    job = JOB_KEY.match(key)
    if job and job["job"] in at_work:
        return True
    return time.time() - ids.youngest_birth(key) < grace_seconds


def _exists(runtime: Runtime, key: str) -> bool:
    """Check a single object again: it may have been stored after the listing."""
    try:
        runtime.storage.stat(key)
    except NotFound:
        return False
    return True


def _is_intact(runtime: Runtime, reference: Reference) -> bool:
    try:
        digest = hashlib.sha256()
        for piece in runtime.storage.open(reference.key):
            digest.update(piece)
    except (Damaged, NotFound):
        return False
    return digest.hexdigest() == reference.sha256
