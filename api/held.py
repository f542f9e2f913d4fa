"""Requests that are answered over time. One thread holds all their connections, so they occupy no thread of the server.

A thread of the server finds the caller, counts the request and checks what it asks for. Then it hands the client's
connection to the holder and is free for the next request. The holder waits for all connections at once, asks the
database about all of them at once, and writes what is new. A held request costs a socket and some kilobytes.
`docs/decisions/0013-held-requests.md` says why.
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
LAST_READ_SECONDS = 60.0  # for a client to read the rest, when its time is up
RETRY_AFTER_SECONDS = 30
MOST_FILES = 8192


class Held(Response):
    """An answer that comes over time. A view returns it, and Flask calls it as a WSGI app: then it moves to the holder.

    Each subclass is a kind of answer. It says how often to look for news, and looks for all its answers at once.
    """

    look_every_seconds: ClassVar[float] = 1.0

    def __init__(self, seconds: float, **given: Any):
        """Hold the request for so many seconds at most.

        Raises:
            TooMany: the user has taken all places.
        """
        super().__init__(**given)
        self.holder = holder()
        self.user_id = context.user().id
        self.ends_at = time.monotonic() + seconds
        self.is_over = False  # nothing more will be found
        self.is_behind = False  # the last query did not return everything
        self.unsent = bytearray()
        self.extra_bytes = 0
        self.ending: Future[bytes] | None = None
        self.is_complete = False  # `unsent` has all that is left to send
        self.connection = cast(socket.socket, None)
        self.holder.take(self.user_id)
        # Frees the place, also if the request fails after its view.
        self.leave = weakref.finalize(self, self.holder.leave, self.user_id)

    @classmethod
    def look(cls, runtime: Runtime, open_: list[Self]) -> None:
        """Query what is new for all of these: add it to `unsent`, and set `is_over` and `is_behind`."""
        raise NotImplementedError

    def last_words(self) -> bytes:
        """The bytes that end the answer. Computing them may take a while."""
        return b""

    def say(self, text: str) -> None:
        self.unsent += text.encode()

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        connection = _taken_from(environ)
        if connection is None:
            ours, theirs = socket.socketpair()
            self.holder.hold(self, theirs)
            return self.in_this_thread(ours, environ, start_response)
        self.begin(environ)
        self.holder.hold(self, connection)
        start_response(self.status, list(self.headers))  # the server now writes to a socket that nobody reads
        return []

    def begin(self, environ: dict[str, Any]) -> None:
        """Prepare the answer for a connection that only the holder writes to."""
        raise NotImplementedError

    def in_this_thread(self, held: socket.socket, environ: Any, start_response: Any) -> Iterable[bytes]:
        """Answer in the server's thread, for servers that do not expose their connections.

        `held` is the other end of the connection that the holder writes to.
        """
        raise NotImplementedError


class Holder:
    """Holds the requests of this process. Each user has a number of places."""

    def __init__(self, runtime: Runtime):
        self._runtime = runtime
        self._for_user = runtime.settings.max_held_per_user
        self._in_all = _most_files() // 2
        self._lock = threading.RLock()  # a place may be given back in the middle of anything: see `Held.leave`
        self._places: Counter[str] = Counter()
        self._arrivals: list[Held] = []
        self._thread: threading.Thread | None = None  # None while nothing is held
        self._pool = ThreadPoolExecutor(ENDING_THREADS, "held")
        self._bell, self._button = socket.socketpair()
        self._bell.setblocking(False)
        self._button.setblocking(False)
        self._is_closing = False
        # What follows belongs to the thread.
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._held: set[Held] = set()
        self._due: dict[type[Held], float] = {}

    def take(self, user_id: str) -> None:
        """Take a place.

        Raises:
            TooMany: the user has taken all theirs, or this process holds as many as it can.
        """
        with self._lock:
            mine = self._places[user_id]
            if mine >= self._for_user or self._places.total() >= self._in_all:
                raise TooMany(
                    f"you have {mine} streams and waiting requests open; close one, or ask for events now and then",
                    code="too_many_streams",
                    retry_after_seconds=RETRY_AFTER_SECONDS,
                )
            self._places[user_id] += 1

    def hold(self, held: Held, connection: socket.socket) -> None:
        """Write to this connection from now on, and close it in the end."""
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
        """End the streams, and answer waiting requests with the present state: the process ends."""
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
        with suppress(OSError):  # the buffer is full, which wakes the thread too; or the holder is closed
            self._button.send(b"!")

    # --- what the thread does ----------------------------------------------------------------------------------

    def _run(self) -> None:
        while self._admit():
            try:
                self._turn()
            except Exception:
                log.exception("held.crashed")
                for held in list(self._held):  # their clients reconnect; otherwise the loop could fail forever
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
        """Take over the new requests. Returns False when none is left: then the thread ends."""
        with self._lock:
            arrivals, self._arrivals = self._arrivals, []
            is_over = self._is_closing or not (arrivals or self._held)
            if is_over:
                self._thread = None
        if is_over:
            for held in (*self._held, *arrivals):
                _say_goodbye(held)
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
        """Query for the requests that are behind, and for all of a kind whose interval is over."""
        now = time.monotonic()
        for kind in self._kinds():
            is_due = now >= self._due.get(kind, 0.0)
            if is_due:
                self._due[kind] = now + kind.look_every_seconds
            open_ = [
                each
                for each in self._held
                # A client that reads too slowly gets no more until it has read what there is.
                if type(each) is kind and (is_due or each.is_behind) and not each.is_over and not each.unsent
            ]
            for held in open_:
                held.is_behind = False
            try:
                if open_:
                    kind.look(self._runtime, open_)
            except Exception as error:  # such as a database that is away: look again next time
                log.warning("held.look_failed", kind=kind.__name__, error=str(error))

    def _kinds(self) -> set[type[Held]]:
        return {type(held) for held in self._held}

    def _patience(self) -> float:
        """Seconds until the next look."""
        if any(held.is_behind and not held.unsent for held in self._held):
            return 0.0
        due = min((self._due.get(kind, 0.0) for kind in self._kinds()), default=0.0)
        return max(0.0, due - time.monotonic())

    def _advance(self, held: Held) -> None:
        """End it if it is over, send what there is to send, and close it after that."""
        if time.monotonic() >= held.ends_at:
            held.is_over = True
        if held.is_over and held.ending is None:
            held.ending = self._pool.submit(held.last_words)
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
        with suppress(KeyError, ValueError):  # it was not watched
            self._selector.unregister(held.connection)
        held.connection.close()
        self._held.discard(held)
        held.leave()


def register(app: Flask, runtime: Runtime) -> Holder:
    """Give the app a holder."""
    made = app.extensions["bootlora.holder"] = Holder(runtime)
    return made


def holder() -> Holder:
    return cast(Holder, current_app.extensions["bootlora.holder"])


def head(status: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """The head of an HTTP answer on a connection that is closed after it."""
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers), "Connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1")


def _taken_from(environ: dict[str, Any]) -> socket.socket | None:
    """Take the client's connection away from the server. Returns None if the server does not expose it.

    The server continues with a socket whose other end is closed. It writes its answer there, fails as if the client had
    hung up, and closes the socket.
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


def _say_goodbye(held: Held) -> None:
    with suppress(Exception), held.connection:
        held.connection.settimeout(LAST_SEND_SECONDS)
        held.connection.sendall(held.unsent + (b"" if held.is_complete else held.last_words()))


def _most_files() -> int:
    """How many files this process may have open. The soft limit is often 1024, for programs older than `poll`."""
    if resource is None:
        return 512
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if 0 <= soft < most:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            return most
    return min(soft, MOST_FILES) if soft >= 0 else MOST_FILES
