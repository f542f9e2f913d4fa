"""Server-sent events: the same events as polling, as they come, and the progress of jobs in between.

A stream holds a thread of the server. So there are few of them, each for a while only: browsers come back by
themselves, with the `Last-Event-ID` they have, and miss nothing.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from flask import Response, request
from sqlalchemy import select

from api import context
from shared import events, users
from shared.errors import Invalid, TooMany
from shared.lifecycle import TERMINAL_JOB_STATES, JobState, ProjectState
from shared.models import Event, Job, Project
from shared.runtime import Runtime

LOOK_EVERY_SECONDS = 1.0
COMMENT_EVERY_SECONDS = 15.0  # keeps proxies from closing
MAX_SECONDS = 600.0
RETRY_MILLISECONDS = 5000
AT_ONCE = 100  # events of one look
ENDED = (ProjectState.COMPLETED, ProjectState.FAILED, ProjectState.CANCELLED)


class Desk:
    """Who listens in this process: few in all, fewer for each key."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_key: Counter[str] = Counter()

    def take(self, key_id: str, *, for_key: int, in_all: int) -> None:
        """Take a place.

        Raises:
            TooMany: all places are taken.
        """
        with self._lock:
            if self._by_key[key_id] >= for_key or self._by_key.total() >= in_all:
                raise TooMany(
                    "too many streams are open; close one, or ask for events now and then",
                    code="too_many_streams",
                    retry_after_seconds=30,
                )
            self._by_key[key_id] += 1

    def leave(self, key_id: str) -> None:
        with self._lock:
            self._by_key[key_id] -= 1


_desk = Desk()


@dataclass
class Look:
    """What is new: events, the progress of running jobs, and whether nothing more will come."""

    events: list[Event]
    progress: dict[str, Any] = field(default_factory=dict)
    is_last: bool = False


def of_project(project: Project, after: int | None) -> Response:
    """A project's events until it has ended."""
    project_id = project.id

    def look(runtime: Runtime, seq: int) -> Look:
        with runtime.db.reading() as session:
            # the state first: what was recorded with the end is then among the events
            ended = session.scalar(select(Project.state).where(Project.id == project_id)) in (*ENDED, None)
            found = events.after(session, project_id, seq, AT_ONCE)
            running = select(Job).where(Job.project_id == project_id, Job.state == JobState.RUNNING)
            progress = {job.id: job.progress for job in session.scalars(running) if job.progress}
        return Look(found, progress, is_last=ended and len(found) < AT_ONCE)

    return _stream(look, _seen(after))


def of_job(job: Job, after: int | None) -> Response:
    """A job's events until it has ended. `seq` counts the events of its project."""
    job_id, project_id = job.id, job.project_id

    def look(runtime: Runtime, seq: int) -> Look:
        with runtime.db.reading() as session:
            now = session.get(Job, job_id)
            found = events.after(session, project_id, seq, AT_ONCE)
        progress = {job_id: now.progress} if now and now.progress and now.state == JobState.RUNNING else {}
        ended = now is None or now.state in TERMINAL_JOB_STATES
        return Look(found, progress, is_last=ended and len(found) < AT_ONCE)

    return _stream(look, _seen(after), wanted=lambda event: event.data.get("job_id") == job_id)


def _seen(after: int | None) -> int:
    """The `seq` that the client has: what a browser sends when it comes back goes before the address."""
    last = request.headers.get("Last-Event-ID")
    if last is None:
        return after or 0
    if not last.isascii() or not last.isdigit() or len(last) > 15:
        raise Invalid("Last-Event-ID is the `id` of an event: a whole number", code="bad_last_event_id")
    return int(last)


def _stream(
    look: Callable[[Runtime, int], Look], seq: int, wanted: Callable[[Event], bool] = lambda _: True
) -> Response:
    runtime, key_id, connection = context.runtime(), context.api_key().id, context.connection()
    limits = runtime.settings
    _desk.take(key_id, for_key=limits.max_streams_per_key, in_all=limits.max_streams)

    def is_over() -> bool:
        return context.is_closed(connection) or not _is_good(runtime, key_id)

    lines = _lines(partial(look, runtime), seq, wanted, is_over)
    answer = Response(lines, content_type="text/event-stream; charset=utf-8")
    answer.headers["X-Accel-Buffering"] = "no"
    answer.call_on_close(lambda: _desk.leave(key_id))
    return answer


def _is_good(runtime: Runtime, key_id: str) -> bool:
    """A key that is revoked, or has expired, hears nothing more."""
    with runtime.db.reading() as session:
        return users.is_good(session, key_id)


def _lines(
    look: Callable[[int], Look], seq: int, wanted: Callable[[Event], bool], is_over: Callable[[], bool]
) -> Iterator[str]:
    yield f"retry: {RETRY_MILLISECONDS}\n\n"
    told: dict[str, Any] = {}
    ends_at = time.monotonic() + MAX_SECONDS
    comment_at = time.monotonic() + COMMENT_EVERY_SECONDS
    while time.monotonic() < ends_at and not is_over():
        news = look(seq)
        for event in news.events:
            seq = event.seq
            if wanted(event):
                yield f"id: {seq}\nevent: {event.type}\ndata: {json.dumps(events.payload(event))}\n\n"
        for job_id, progress in news.progress.items():
            if told.get(job_id) != progress:
                told[job_id] = progress
                yield f"event: progress\ndata: {json.dumps({'job_id': job_id, **progress})}\n\n"
        if news.is_last:
            return
        if time.monotonic() >= comment_at:
            comment_at = time.monotonic() + COMMENT_EVERY_SECONDS
            yield ": still here\n\n"
        if len(news.events) < AT_ONCE:
            time.sleep(LOOK_EVERY_SECONDS)
