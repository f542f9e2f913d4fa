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

FIRST = "bootlora.first"  # in the WSGI environment of a request that is asked again: the wait that came first


class JobWait(Held):
    """The answer to a request for a job, once the job has ended or the time is up.

    The request is then put to the app again, without the wait. So the answer is what any request would get.
    """

    look_every_seconds: ClassVar[float] = 0.25

    def __init__(self, job_id: str, seconds: float):
        super().__init__(seconds)
        self.job_id = job_id
        self.began: float = g.began
        self.request_id: str = g.request_id
        self._ask = current_app.wsgi_app
        self._again: dict[str, Any] | None = None

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
        self._again = self._asked_again(environ)

    def last_words(self) -> bytes:
        if self._again is None:
            return b""  # the server's thread answers
        answer = self._answer(self._again)
        return head(answer.status, answer.headers.to_wsgi_list()) + answer.get_data()

    def in_this_thread(self, held: socket.socket, environ: Any, start_response: Any) -> Iterable[bytes]:
        with held:
            held.recv(1)
        return self._answer(self._asked_again(environ))(environ, start_response)

    def _asked_again(self, environ: dict[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in environ.items() if isinstance(value, str | bool | tuple)}
        for name in ("HTTP_PREFER", "CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING"):
            kept.pop(name, None)
        return kept | {"wsgi.input": io.BytesIO(), "wsgi.errors": environ["wsgi.errors"], FIRST: self}

    def _answer(self, environ: dict[str, Any]) -> WerkzeugResponse:
        answer = WerkzeugResponse.from_app(self._ask, environ, buffered=True)
        for name, value in self.headers:
            if name.startswith("RateLimit"):  # it was counted when it came
                answer.headers.setdefault(name, value)
        return answer


def first() -> JobWait | None:
    """The wait that this request has ended, if it is one that is asked again."""
    found = request.environ.get(FIRST)
    return found if isinstance(found, JobWait) else None
