"""Requests that are answered over time. One thread serves all of them, so that they occupy no thread of the server.

A thread of the server authenticates, counts and checks such a request. Then it hands the client's connection to the
holder, and is free for the next request. The holder waits on all connections together, queries the database for all of
them together, and writes the news. A held request costs a socket and some kilobytes.
`docs/decisions/0013-held-requests.md` explains the choice.
"""

from __future__ import annotations

import os
import selectors
import socket
import ssl
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, ClassVar, Self, cast

import structlog
from flask import Flask, Response, current_app

from api import context
from shared.errors import TooMany
from shared.runtime import Runtime

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

log = structlog.get_logger()

READ_BYTES = 4096
MAX_EXTRA_BYTES = 65_536  # that a client may send while it waits
ENDING_THREADS = 2
CLOSE_SECONDS = 10.0  # to answer waiting requests before the process ends
LAST_SEND_SECONDS = 0.5
LAST_READ_SECONDS = 60.0  # for a client to read the rest, after the request has ended
RETRY_AFTER_SECONDS = 30
MOST_FILES = 8192


class Held(Response):
    """A response that is sent over time. A view returns it; Flask calls it as a WSGI app, and it moves to the holder.

    Each subclass is a kind of held response. It sets the interval of its queries, and queries for all its instances at
    once.
    """

    look_every_seconds: ClassVar[float] = 1.0

    def __init__(self, seconds: float, **given: Any):
        """Hold the request for at most `seconds`.

        Raises:
            TooMany: the user has no free place.
        """
        super().__init__(**given)
        self.holder = holder()
        self.user_id = context.user().id
        self.ends_at = time.monotonic() + seconds
        self.is_over = False  # there will be no more news
        self.is_behind = False  # the last query did not return everything
        self.unsent = bytearray()
        self.extra_bytes = 0
        self.ending: Future[bytes] | None = None
        self.is_complete = False  # nothing will be added to `unsent`
        self.connection = cast(socket.socket, None)
        self.holder.take(self.user_id)
        # Gives the place back, also if the request fails after its view.
        self.leave = weakref.finalize(self, self.holder.leave, self.user_id)

    @classmethod
    def look(cls, runtime: Runtime, open_: list[Self]) -> None:
        """Query the news of all of these. Add it to their `unsent`, and set `is_over` and `is_behind`."""
        raise NotImplementedError

    def ending_bytes(self) -> bytes:
        """The bytes that end the response. Computing them may take a while."""
        return b""

    def write(self, text: str) -> None:
        self.unsent += text.encode()

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        connection = _taken_from(environ)
        if connection is None:
            ours, theirs = socket.socketpair()
            self.holder.hold(self, theirs)
            return self.in_this_thread(ours, environ, start_response)
        self.begin(environ)
        self.holder.hold(self, connection)
        start_response(self.status, list(self.headers))  # the server's copy of the socket leads nowhere
        return []

    def begin(self, environ: dict[str, Any]) -> None:
        """Prepare the response for a connection to which only the holder writes."""
        raise NotImplementedError

    def in_this_thread(self, held: socket.socket, environ: Any, start_response: Any) -> Iterable[bytes]:
        """Respond in the server's thread, for servers that do not expose their connections.

        `held` is the other end of the connection to which the holder writes.
        """
        raise NotImplementedError


class Holder:
    """Serves the held requests of this process. Each user has a limited number of places."""

    def __init__(self, runtime: Runtime):
        self._runtime = runtime
        self._for_user = runtime.settings.max_held_per_user
        self._in_all = _most_files() // 2
        self._lock = (
            threading.RLock()
        )  # reentrant, because a finalizer may give a place back at any time: see `Held.leave`
        self._places: Counter[str] = Counter()
        self._arrivals: list[Held] = []
        self._thread: threading.Thread | None = None  # None while nothing is held
        self._pool = ThreadPoolExecutor(ENDING_THREADS, "held")
        self._bell, self._button = socket.socketpair()
        self._bell.setblocking(False)
        self._button.setblocking(False)
        self._is_closing = False
        # Only the thread uses the following.
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._held: set[Held] = set()
        self._due: dict[type[Held], float] = {}

    def take(self, user_id: str) -> None:
        """Take a place.

        Raises:
            TooMany: the user has no free place, or this process has none.
        """
        with self._lock:
            mine = self._places[user_id]
            if mine >= self._for_user or self._places.total() >= self._in_all:
                raise TooMany(
                    f"you have {mine} streams and waiting requests open; close one, or poll the events instead",
                    code="too_many_streams",
                    retry_after_seconds=RETRY_AFTER_SECONDS,
                )
            self._places[user_id] += 1

    def hold(self, held: Held, connection: socket.socket) -> None:
        """Write to this connection from now on, and close it at the end."""
        connection.setblocking(False)
        held.connection = connection
        with self._lock:
            self._arrivals.append(held)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="holder", daemon=True)
                self._thread.start()
        self._ring()

    def leave(self, user_id: str) -> None:
        """Give a place back."""
        with self._lock:
            self._places[user_id] -= 1
            if not self._places[user_id]:
                del self._places[user_id]

    def close(self) -> None:
        """End the streams and answer waiting requests with the present state, because the process ends."""
        self._is_closing = True
        self._ring()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join(CLOSE_SECONDS)
        self._pool.shutdown(wait=False)
        self._selector.close()
        self._bell.close()
        self._button.close()

    def _ring(self) -> None:
        with suppress(OSError):  # the buffer is full, so the thread is awake; or the holder is closed
            self._button.send(b"!")

    # --- the thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while self._admit():
            try:
                self._turn()
            except Exception:
                log.exception("held.crashed")
                for held in list(self._held):  # clients reconnect; without this, the loop could fail forever
                    self._drop(held)

    def _turn(self) -> None:
        self._look()
        for held in list(self._held):
            self._guard(self._advance, held)
        for key, events in self._selector.select(self._patience()):
            if key.data is None:
                self._bell.recv(READ_BYTES)
            elif events & selectors.EVENT_READ and _has_hung_up(key.data):
                self._drop(key.data)

    def _admit(self) -> bool:
        """Take over the new requests. Returns False when no request is left, and the thread ends."""
        with self._lock:
            arrivals, self._arrivals = self._arrivals, []
            is_over = self._is_closing or not (arrivals or self._held)
            if is_over:
                self._thread = None
        if is_over:
            for held in (*self._held, *arrivals):
                _end_now(held)
            return False
        for held in arrivals:
            held.is_behind = True  # nothing has been sent yet
            self._held.add(held)
            self._guard(self._watch, held)
        return True

    def _watch(self, held: Held) -> None:
        self._selector.register(held.connection, selectors.EVENT_READ, held)

    def _guard(self, act: Callable[[Held], None], held: Held) -> None:
        """Do something for one request. If it fails, only this request is dropped."""
        try:
            act(held)
        except Exception:
            log.exception("held.dropped")
            self._drop(held)

    def _look(self) -> None:
        """Query for the requests that are behind, and for all of each kind whose interval has passed."""
        now = time.monotonic()
        for kind in self._kinds():
            is_due = now >= self._due.get(kind, 0.0)
            if is_due:
                self._due[kind] = now + kind.look_every_seconds
            open_ = [
                each
                for each in self._held
                # A slow client gets no more until it has read what was sent.
                if type(each) is kind and (is_due or each.is_behind) and not each.is_over and not each.unsent
            ]
            for held in open_:
                held.is_behind = False
            try:
                if open_:
                    kind.look(self._runtime, open_)
            except Exception as error:  # such as a database that is down: query again next time
                log.warning("held.look_failed", kind=kind.__name__, error=str(error))

    def _kinds(self) -> set[type[Held]]:
        return {type(held) for held in self._held}

    def _patience(self) -> float:
        """Seconds until the next query."""
        if any(held.is_behind and not held.unsent for held in self._held):
            return 0.0
        due = min((self._due.get(kind, 0.0) for kind in self._kinds()), default=0.0)
        return max(0.0, due - time.monotonic())

    def _advance(self, held: Held) -> None:
        """End the request if it is over, send what is unsent, and then close the connection."""
        if time.monotonic() >= held.ends_at:
            held.is_over = True
        if held.is_over and held.ending is None:
            held.ending = self._pool.submit(held.ending_bytes)
            held.ending.add_done_callback(lambda _: self._ring())
        if held.ending is not None and held.ending.done() and not held.is_complete:
            held.is_complete = True
            if held.ending.exception() is not None:
                log.error("held.no_answer", exc_info=held.ending.exception())
            else:
                held.unsent += held.ending.result()
        if held.unsent:
            try:
                del held.unsent[: held.connection.send(held.unsent)]
            except BlockingIOError:
                pass
            except OSError:
                self._drop(held)
                return
            interest = selectors.EVENT_READ | (selectors.EVENT_WRITE if held.unsent else 0)
            if self._selector.get_key(held.connection).events != interest:
                self._selector.modify(held.connection, interest, held)
        if held.is_complete and not held.unsent:
            with suppress(OSError):
                held.connection.shutdown(socket.SHUT_WR)
            self._drop(held)
        elif time.monotonic() >= held.ends_at + LAST_READ_SECONDS:
            self._drop(held)

    def _drop(self, held: Held) -> None:
        with suppress(KeyError, ValueError):  # it was not registered
            self._selector.unregister(held.connection)
        held.connection.close()
        self._held.discard(held)
        held.leave()


def register(app: Flask, runtime: Runtime) -> Holder:
    """Create the app's holder."""
    made = app.extensions["bootlora.holder"] = Holder(runtime)
    return made


def holder() -> Holder:
    return cast(Holder, current_app.extensions["bootlora.holder"])


def head(status: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """The head of an HTTP response, after which the connection is closed."""
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers), "Connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1")


def _taken_from(environ: dict[str, Any]) -> socket.socket | None:
    """Take over the client's connection from the server. Returns None if the server does not expose it.

    The server continues with a socket whose other end is closed. When it writes its response, it fails as if the client
    had hung up, and closes the socket.
    """
    theirs = environ.get("gunicorn.socket")
    if theirs is None or isinstance(theirs, ssl.SSLSocket) or not environ["SERVER_PROTOCOL"].startswith("HTTP/1"):
        return None
    ours = cast(socket.socket, theirs.dup())
    nowhere, end = socket.socketpair()
    end.close()
    os.dup2(nowhere.fileno(), theirs.fileno(), inheritable=False)
    nowhere.close()
    return ours


def _has_hung_up(held: Held) -> bool:
    """Whether the client has hung up, or sends more than it should."""
    try:
        read = held.connection.recv(READ_BYTES)
    except BlockingIOError:
        return False
    except OSError:
        return True
    held.extra_bytes += len(read)
    return not read or held.extra_bytes > MAX_EXTRA_BYTES


def _end_now(held: Held) -> None:
    """Send the rest and the end of the response, and close the connection. Waits for a short time only."""
    with suppress(Exception), held.connection:
        held.connection.settimeout(LAST_SEND_SECONDS)
        held.connection.sendall(held.unsent + (b"" if held.is_complete else held.ending_bytes()))


def _most_files() -> int:
    """How many files this process may open. Raises the soft limit, which is often 1024, for programs with `select`."""
    if resource is None:
        return 512
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if 0 <= soft < most:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            return most
    return min(soft, MOST_FILES) if soft >= 0 else MOST_FILES
