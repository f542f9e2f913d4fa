"""Server-sent events: the same events as by polling, as they happen, with the progress of jobs in between.

A stream ends after some minutes. Browsers reconnect by themselves with their `Last-Event-ID`, and miss nothing.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Self

from flask import Response, request
from sqlalchemy import select
from sqlalchemy.orm import Session

from api import context
from api.held import Held, head
from shared import events, users
from shared.errors import Invalid
from shared.lifecycle import TERMINAL_JOB_STATES, JobState, ProjectState
from shared.models import ApiKey, Event, Job, Project
from shared.runtime import Runtime

COMMENT_EVERY_SECONDS = 15.0  # so that proxies keep the connection open
MAX_SECONDS = 600.0
RETRY_MILLISECONDS = 5000
AT_ONCE = 100  # events of one query
READ_BYTES = 65_536
ENDED = (ProjectState.COMPLETED, ProjectState.FAILED, ProjectState.CANCELLED)
CONTENT_TYPE = "text/event-stream; charset=utf-8"
# OpenAPI 3.1 has no words for the events of a stream, and tools disagree whether a schema is of one event or of all.
EVENTS = {"description": "Server-sent events. `data` of each is JSON, like an item of the list of events."}


class Stream(Held):
    """The events of a project, or of one of its jobs, until that has ended. `seq` counts the events of the project."""

    look_every_seconds: ClassVar[float] = 1.0

    def __init__(self, project_id: str, job_id: str | None, seq: int):
        super().__init__(MAX_SECONDS, content_type=CONTENT_TYPE)
        self.headers["X-Accel-Buffering"] = "no"
        self.key_id = context.api_key().id
        self.project_id = project_id
        self.job_id = job_id
        self.seq = seq
        self.sent_progress: dict[str, Any] = {}  # by job
        self.comment_at = time.monotonic() + COMMENT_EVERY_SECONDS

    @classmethod
    def look(cls, runtime: Runtime, open_: list[Self]) -> None:
        with runtime.db.reading() as session:
            news = News(session, open_)
            for stream in open_:
                stream.send(news)

    def begin(self, environ: dict[str, Any]) -> None:
        self.unsent += head(self.status, self.headers)
        self.write(f"retry: {RETRY_MILLISECONDS}\n\n")

    def in_this_thread(self, held: socket.socket, environ: Any, start_response: Any) -> Iterable[bytes]:
        self.response = _read(held)
        return super(Held, self).__call__(environ, start_response)

    def send(self, news: News) -> None:
        """Send the news of this stream's project or job."""
        if self.key_id not in news.good_keys:
            self.is_over = True
            return
        found = news.events_after(self.project_id, self.seq)
        for event in found:
            self.seq = event.seq
            if self.job_id is None or event.data.get("job_id") == self.job_id:
                self.write(f"id: {event.seq}\nevent: {event.type}\ndata: {json.dumps(events.payload(event))}\n\n")
        for job_id, progress in news.progress.get(self.project_id, {}).items():
            if self.job_id in (None, job_id) and self.sent_progress.get(job_id) != progress:
                self.sent_progress[job_id] = progress
                self.write(f"event: progress\ndata: {json.dumps({'job_id': job_id, **progress})}\n\n")
        self.is_behind = len(found) == AT_ONCE
        self.is_over = not self.is_behind and news.has_ended(self)
        if time.monotonic() >= self.comment_at:
            self.comment_at = time.monotonic() + COMMENT_EVERY_SECONDS
            self.write(": still here\n\n")


class News:
    """States, events and progress for many streams, read in a few queries.

    States are read before events, so that the events include those that were recorded with an end.
    """

    def __init__(self, session: Session, streams: Iterable[Stream]):
        self._session = session
        self.good_keys = _good_keys(session, {stream.key_id for stream in streams})
        jobs = {stream.job_id for stream in streams if stream.job_id is not None}
        projects = {stream.project_id for stream in streams}
        self._open_jobs = set(
            session.scalars(select(Job.id).where(Job.id.in_(jobs), Job.state.not_in(TERMINAL_JOB_STATES)))
        )
        rows = session.execute(select(Project.id, Project.state, Project.seq).where(Project.id.in_(projects)))
        self._projects = {id_: (state, seq) for id_, state, seq in rows}
        self._events: dict[tuple[str, int], list[Event]] = {}
        self.progress: dict[str, dict[str, Any]] = {}
        running = select(Job.project_id, Job.id, Job.progress).where(
            Job.project_id.in_(projects), Job.state == JobState.RUNNING
        )
        for project_id, job_id, progress in session.execute(running):
            if progress:
                self.progress.setdefault(project_id, {})[job_id] = progress

    def events_after(self, project_id: str, seq: int) -> list[Event]:
        """At most `AT_ONCE` events. Streams at the same `seq` share one query."""
        _, last = self._projects.get(project_id, (None, 0))
        if seq >= last:
            return []
        if (project_id, seq) not in self._events:
            self._events[project_id, seq] = events.after(self._session, project_id, seq, AT_ONCE)
        return self._events[project_id, seq]

    def has_ended(self, stream: Stream) -> bool:
        if stream.job_id is not None:
            return stream.job_id not in self._open_jobs
        state, _ = self._projects.get(stream.project_id, (None, 0))
        return state in (*ENDED, None)


def of_project(project: Project, after: int | None) -> Response:
    """A project's events until it has ended."""
    return _stream(project.id, None, after)


def of_job(job: Job, after: int | None) -> Response:
    """A job's events until it has ended. `seq` counts the events of its project."""
    return _stream(job.project_id, job.id, after)


def _stream(project_id: str, job_id: str | None, after: int | None) -> Response:
    seq = _seen(after)
    if request.method == "HEAD":
        return Response(content_type=CONTENT_TYPE)
    return Stream(project_id, job_id, seq)


def _seen(after: int | None) -> int:
    """The `seq` of the client's last event. `Last-Event-ID`, which reconnecting browsers send, overrides `after`."""
    last = request.headers.get("Last-Event-ID")
    if last is None:
        return after or 0
    if not last.isascii() or not last.isdigit() or len(last) > 15:
        raise Invalid(
            "Last-Event-ID is not the `id` of an event, a whole number; send it or none", code="bad_last_event_id"
        )
    return int(last)


def _good_keys(session: Session, ids: set[str]) -> set[str]:
    """The ids of the keys that are still good: neither revoked nor expired."""
    rows = session.scalars(select(ApiKey).where(ApiKey.id.in_(ids)), execution_options={"populate_existing": True})
    return {row.id for row in rows if users.is_good_row(row)}


def _read(held: socket.socket) -> Iterator[bytes]:
    with held:
        yield f"retry: {RETRY_MILLISECONDS}\n\n".encode()
        while piece := held.recv(READ_BYTES):
            yield piece
