"""Requests that wait for the end of a job (`Prefer: wait`, RFC 7240)."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterable
from typing import Any, ClassVar, Self

from flask import current_app, g, request
from sqlalchemy import select
from werkzeug.wrappers import Response as WerkzeugResponse

from api.held import Held, head
from shared.lifecycle import TERMINAL_JOB_STATES
from shared.models import Job
from shared.runtime import Runtime

FIRST = "bootlora.first"  # key in the WSGI environment of a repeated request: the wait that has ended


class JobWait(Held):
    """The response to a request for a job, once the job has ended or the time is up.

    The request is then run again without `Prefer`, so that the client gets the same answer as without a wait.
    """

    look_every_seconds: ClassVar[float] = 0.25

    def __init__(self, job_id: str, seconds: float):
        super().__init__(seconds)
        self.job_id = job_id
        self.began: float = g.began
        self.request_id: str = g.request_id
        self._app = current_app.wsgi_app
        self._repeated: dict[str, Any] | None = None

    @classmethod
    def look(cls, runtime: Runtime, open_: list[Self]) -> None:
        wanted = {wait.job_id for wait in open_}
        with runtime.db.reading() as session:
            going_on = set(
                session.scalars(select(Job.id).where(Job.id.in_(wanted), Job.state.not_in(TERMINAL_JOB_STATES)))
            )
        for wait in open_:
            wait.is_over = wait.job_id not in going_on

    def begin(self, environ: dict[str, Any]) -> None:
        self._repeated = self._without_wait(environ)

    def ending_bytes(self) -> bytes:
        if self._repeated is None:
            return b""  # the server's thread responds
        answer = self._answer(self._repeated)
        return head(answer.status, answer.headers.to_wsgi_list()) + answer.get_data()

    def in_this_thread(self, held: socket.socket, environ: Any, start_response: Any) -> Iterable[bytes]:
        with held:
            held.recv(1)
        return self._answer(self._without_wait(environ))(environ, start_response)

    def _without_wait(self, environ: dict[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in environ.items() if isinstance(value, str | bool | tuple)}
        for name in ("HTTP_PREFER", "CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING"):
            kept.pop(name, None)
        return kept | {"wsgi.input": io.BytesIO(), "wsgi.errors": environ["wsgi.errors"], FIRST: self}

    def _answer(self, environ: dict[str, Any]) -> WerkzeugResponse:
        answer = WerkzeugResponse.from_app(self._app, environ, buffered=True)
        for name, value in self.headers:
            if name.startswith("RateLimit"):  # the first request was counted, the repeated one is not
                answer.headers.setdefault(name, value)
        return answer


def first() -> JobWait | None:
    """The wait that has ended, if this is a repeated request."""
    found = request.environ.get(FIRST)
    return found if isinstance(found, JobWait) else None
