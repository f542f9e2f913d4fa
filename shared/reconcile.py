"""Rows and objects, compared: what rows name and the store lacks, and what the store keeps and no row names.

An object is put before the row that names it is written, and nothing undoes a put. So an attempt that was lost
leaves objects behind, which are collected once nobody can be at work on them any more. After a backup has been
restored, rows and objects may be of different days; then an operator looks, and repairs.
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
from shared.catalog import kinds
from shared.errors import NotFound
from shared.lifecycle import TERMINAL_JOB_STATES, Decision, JobState, ProjectState
from shared.models import Image, Job, Lora, Project
from shared.outside.db import clock
from shared.outside.storage import Damaged
from shared.ownership import WrongStore
from shared.queue.jobs import OPEN_STATES
from shared.runtime import Runtime

log = structlog.get_logger()

JOB_KEY = re.compile(r"projects/[^/]+/jobs/(?P<job>[^/]+)/")
_TO_BE_TAKEN_IN = (Job.kind.in_((kinds.UPLOAD.name, kinds.IMPORT.name)), Job.state.not_in(TERMINAL_JOB_STATES))
AT_ONCE = 1_000  # rows in memory: there may be a million
MISSING = "missing"  # the state of an image whose object is gone


@dataclass(frozen=True)
class Reference:
    """An object that a row counts on."""

    key: str
    sha256: str
    table: str
    row_id: str


@dataclass
class Differences:
    """What a comparison has found."""

    objects: int = 0
    missing: list[Reference] = field(default_factory=list)
    damaged: list[Reference] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)  # older than the grace time
    young: int = 0  # objects that no row names yet, but may soon


def compare(runtime: Runtime, *, grace_seconds: float, read: bool = False) -> Differences:
    """Compare rows and objects. With `read`, every object is read and its SHA-256 checked as well.

    The objects are listed before the rows are read: what is put and named in between is then no orphan.
    """
    stored = {found.key for folder in FOLDERS for found in runtime.storage.list(f"{folder}/")}
    with runtime.db.reading() as session:
        references = list(_references(session))
        awaited = set(session.scalars(select(Job.inputs["key"].as_string()).where(*_TO_BE_TAKEN_IN)))
        published = select(Job.result).where(Job.result.is_not(None)).execution_options(yield_per=AT_ONCE)
        results = {key for result in session.scalars(published) for key in _keys(result)}
        at_work = _at_work(session, grace_seconds)
    named = {reference.key for reference in references} | results | awaited
    found = Differences(objects=len(stored))
    for reference in references:
        if reference.key not in stored and not _is_there(runtime, reference.key):
            found.missing.append(reference)
        elif read and not _is_whole(runtime, reference):
            found.damaged.append(reference)
    for key in sorted(stored - named):
        if _may_be_named_soon(key, at_work, grace_seconds):
            found.young += 1
        else:
            found.orphans.append(key)
    return found


def collect(runtime: Runtime, *, grace_seconds: float) -> int:
    """Delete the objects that no row names and nobody is at work on. Returns how many there were.

    In a store that is not known to be this installation's, nothing is deleted, and one line of the log says why.
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
    """Take lost pictures out of every dataset, and delete orphans. Returns how many rows were changed.

    What can't be mended is left as it is, and stays in the report: a LoRA without its file must be trained again;
    a checkpoint that is gone is passed over by itself.

    Raises:
        WrongStore: the store is not known to be this installation's; nothing was changed.
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
    # A retry goes on from the last checkpoint and pictures of the job that failed, or was cancelled.
    can_be_retried = and_(Job.state.in_((JobState.FAILED, JobState.CANCELLED)), Project.state == ProjectState.FAILED)
    kept = select(Job).join(Project).where(Job.checkpoint.is_not(None), or_(Job.state.in_(OPEN_STATES), can_be_retried))
    for job in session.scalars(kept):
        checkpoint: dict[str, Any] = job.checkpoint or {}
        for file in (*checkpoint.get("kept", []), *checkpoint.get("images", {}).values()):
            yield Reference(file["key"], file["sha256"], Job.__tablename__, job.id)


def _keys(value: Any) -> Iterator[str]:
    """Every `key` in a result, whatever its shape: what a job has published is never an orphan."""
    if isinstance(value, dict):
        if isinstance(value.get("key"), str):
            yield value["key"]
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _keys(each)


def _at_work(session: Session, grace_seconds: float) -> set[str]:
    """Jobs that are open, or that ended so lately that a lost worker may still be putting objects for them."""
    late = Job.finished_at > clock(-grace_seconds)
    return set(session.scalars(select(Job.id).where(Job.state.not_in(TERMINAL_JOB_STATES) | late)))


def _may_be_named_soon(key: str, at_work: set[str], grace_seconds: float) -> bool:
    job = JOB_KEY.match(key)
    if job and job["job"] in at_work:
        return True
    return time.time() - ids.youngest_birth(key) < grace_seconds


def _is_there(runtime: Runtime, key: str) -> bool:
    """Asked again: the row may have been written after the objects were listed."""
    try:
        runtime.storage.stat(key)
    except NotFound:
        return False
    return True


def _is_whole(runtime: Runtime, reference: Reference) -> bool:
    try:
        digest = hashlib.sha256()
        for piece in runtime.storage.open(reference.key):
            digest.update(piece)
    except (Damaged, NotFound):
        return False
    return digest.hexdigest() == reference.sha256
