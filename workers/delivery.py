"""Sends webhooks: to addresses that were checked, for a bounded time, one request at a time to each endpoint.

No HTTP library stands between the check of an address and the connection to it: the name is resolved once, every
answer must pass, and the socket goes to one of them. There are no redirects, no proxies, no cookies and no decoding.
"""

from __future__ import annotations

import functools
import http.client
import queue
import re
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime

import certifi
import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from shared import webhooks
from shared.errors import BootloraError
from shared.outside.db import utcnow
from shared.outside.destinations import Destination, Destinations
from shared.runtime import Runtime
from shared.settings import Settings
from shared.webhooks import Answer, Telling

log = structlog.get_logger()

MAX_READ = 64 * 1024  # of an answer; more is not read
TURN_SECONDS = 5.0  # after which a thread lets another endpoint have its turn
SLOW_SECONDS = 1.0
USER_AGENT = "Bootlora-Webhooks/1"


class Blocked(Exception):
    """The name leads to an address that we don't send to."""


class DeliverySender:
    """Tells what is due. Several may run, in one process or in many: an endpoint is held by one of them at a time.

    A clock calls `tick` each second. Endpoints that fail or are slow share half of the threads, so however many of
    them there are, the others find a thread free.
    """

    def __init__(self, runtime: Runtime):
        self._runtime = runtime
        self._settings = runtime.settings
        self._destinations = Destinations.from_settings(runtime.settings)
        self._tls = functools.cache(tls_context)  # made when the first https URL comes
        self._pool = ThreadPoolExecutor(runtime.settings.webhook_threads, thread_name_prefix="webhook")
        self._lock = threading.Lock()
        self._busy: dict[str, bool] = {}  # endpoints in hand, and whether they are of the slow kind
        self._slow: set[str] = set()
        self._requests: set[Request] = set()
        self._closing = threading.Event()

    def tick(self) -> None:
        """Start on what is due, and return. A database that is down is asked again at the next tick."""
        try:
            self.deliver_due()
        except SQLAlchemyError as error:
            log.warning("delivery.no_database", error=str(error))

    def deliver_due(self) -> int:
        """Start on every endpoint that is due, as far as threads go. Returns how many were started."""
        if self._closing.is_set():
            return 0
        with self._lock:
            not_now = set(self._busy) | (self._slow if self._is_full_of_slow_ones() else set())
        with self._runtime.db.reading() as session:
            found = webhooks.due(session, limit=4 * self._settings.webhook_threads, but=not_now)
        return sum(self._start(each) for each in found)

    @property
    def idle(self) -> bool:
        with self._lock:
            return not self._busy

    def close(self, grace_seconds: float = 5.0) -> None:
        """Start nothing more, let requests under way end, and cut what takes longer: it will be sent again."""
        self._closing.set()
        give_up = time.monotonic() + grace_seconds
        while not self.idle and time.monotonic() < give_up:
            time.sleep(0.02)
        with self._lock:
            requests = list(self._requests)
        for request in requests:
            request.cut()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _start(self, due: webhooks.Due) -> bool:
        with self._lock:
            slow = due.failing or due.webhook_id in self._slow
            if len(self._busy) >= self._settings.webhook_threads or (slow and self._is_full_of_slow_ones()):
                return False
            self._busy[due.webhook_id] = slow
        try:
            self._pool.submit(self._serve, due.webhook_id)
        except RuntimeError:  # closed in the meantime
            self._done(due.webhook_id)
            return False
        return True

    def _is_full_of_slow_ones(self) -> bool:
        return sum(self._busy.values()) >= max(1, self._settings.webhook_threads // 2)

    def _serve(self, webhook_id: str) -> None:
        """Tell an endpoint what is due to it, oldest first, until there's no more, it fails, or its turn is over."""
        token = secrets.token_hex(16)
        turn_ends = time.monotonic() + TURN_SECONDS
        try:
            with self._runtime.db.transaction() as session:
                telling = webhooks.take(session, webhook_id, token, self._settings)
            while telling and (answer := self._tell(telling)):
                with self._runtime.db.transaction() as session:
                    go_on = self._record(session, telling, answer) and time.monotonic() < turn_ends
                    if go_on and not self._closing.is_set():
                        telling = webhooks.take(session, webhook_id, token, self._settings)
                    else:
                        telling = None
                        webhooks.release(session, webhook_id, token)
        except SQLAlchemyError as error:  # the lease ends by itself, and the same message is sent again
            log.warning("delivery.no_database", webhook_id=webhook_id, error=str(error))
        except Exception:
            log.exception("delivery.failed", webhook_id=webhook_id)
        finally:
            self._done(webhook_id)

    def _tell(self, telling: Telling) -> Answer | None:
        """One try. None when it was cut because this sender closes: that says nothing of the receiver."""
        request = Request(self._destinations, self._tls, self._settings)
        with self._lock:
            self._requests.add(request)
        try:
            if self._closing.is_set():
                answer = None
            else:
                answer = request.send(telling.url, telling.body, lambda: webhooks.headers(telling, self._runtime.vault))
        finally:
            with self._lock:
                self._requests.discard(request)
        if request.was_cut and not (answer and answer.heard):
            answer = None
        if answer is None:
            with self._runtime.db.transaction() as session:
                webhooks.release(session, telling.webhook_id, telling.token)
        return answer

    def _record(self, session: Session, telling: Telling, answer: Answer) -> bool:
        """Write down what came of it. True when the endpoint may be told more at once."""
        with self._lock:
            if answer.heard and answer.seconds < SLOW_SECONDS:
                self._slow.discard(telling.webhook_id)
            else:
                self._slow.add(telling.webhook_id)
                self._busy[telling.webhook_id] = True
        if answer.heard:
            return webhooks.delivered(session, telling, answer)
        webhooks.failed_try(session, telling, answer, self._settings)
        return False

    def _done(self, webhook_id: str) -> None:
        with self._lock:
            self._busy.pop(webhook_id, None)


class Request:
    """One POST, over at its deadline whatever the other side does."""

    def __init__(self, destinations: Destinations, tls: Callable[[], ssl.SSLContext], settings: Settings):
        self.was_cut = False
        self._ended = False
        self._destinations = destinations
        self._tls = tls
        self._connect_seconds = settings.webhook_connect_seconds
        self._seconds = settings.webhook_timeout_seconds
        self._lock = threading.Lock()
        self._twin: socket.socket | None = None  # the same connection, through which another thread can end it

    def send(self, url: str, body: str, make_headers: Callable[[], dict[str, str]]) -> Answer:
        """What the receiver said, or why it could not be asked. It raises nothing that a receiver can cause."""
        at, started = utcnow(), time.monotonic()
        self._deadline = started + self._seconds
        said: dict[str, object] = {}
        timer = threading.Timer(self._seconds, self._end)
        timer.daemon = True
        timer.start()
        try:
            said = self._exchange(self._destinations.check(url), body.encode(), make_headers())
        except BootloraError as error:
            said = {"error": error.message}
        except Blocked as error:
            said = {"error": str(error)}
        except ssl.SSLCertVerificationError as error:
            said = {"error": f"TLS: {error.verify_message or error.reason}"}
        except (OSError, http.client.HTTPException, ValueError) as error:
            said = {"error": self._reason(error)}
        except Exception:
            log.exception("delivery.crashed")  # a failed try like any other, or it would be tried each second
            said = {"error": "the request could not be made; the log of the server says why"}
        finally:
            timer.cancel()
            self._forget()
        return Answer(at=at, seconds=time.monotonic() - started, **said)  # type: ignore[arg-type]

    def cut(self) -> None:
        """End it now."""
        self.was_cut = True
        self._end()

    def _exchange(self, destination: Destination, body: bytes, headers: dict[str, str]) -> dict[str, object]:
        connection = self._connect(destination)
        try:
            connection.request(
                "POST",
                destination.target,
                body,
                {**headers, "Content-Type": "application/json", "User-Agent": USER_AGENT, "Connection": "close"},
            )
            answer = connection.getresponse()
            if self._ended:  # http.client takes a head that breaks off for a whole one
                raise TimeoutError
            said: dict[str, object] = {"status": answer.status, "text": self._read(answer)}
            if 300 <= answer.status < 400:
                said["error"] = "redirects are not followed; change the webhook's URL"
            if not 200 <= answer.status < 300:
                said["retry_after"] = retry_after(answer.getheader("Retry-After"))
            return said
        finally:
            connection.close()

    def _read(self, answer: http.client.HTTPResponse) -> str:
        """The beginning of the answer. Once the status is known, a body that is cut off or broken changes nothing."""
        start, left = b"", MAX_READ
        with suppress(OSError, http.client.HTTPException, ValueError):
            while left and (piece := answer.read1(min(left, 8192))):
                left -= len(piece)
                start = (start + piece)[: webhooks.MAX_KEPT]
        encoding = answer.getheader("Content-Encoding", "identity")
        return start.decode(errors="replace") if encoding == "identity" else f"({encoding}: not decoded)"

    def _connect(self, destination: Destination) -> http.client.HTTPConnection:
        give_up = min(self._deadline, time.monotonic() + self._connect_seconds)
        found = resolve(destination.host, destination.port, _left(give_up))
        if not all(self._destinations.allows(str(address[0]), destination.port) for _, address in found):
            raise Blocked("the host has an address that is not on the open internet")
        sock = self._open(found, give_up)
        with self._lock:
            self._twin = sock.dup()
        try:
            if self._ended:
                raise TimeoutError
            sock.settimeout(_left(self._deadline))
            if destination.scheme == "http":
                connection = http.client.HTTPConnection(destination.host, destination.port)
            else:
                tls = self._tls()
                connection = http.client.HTTPSConnection(destination.host, destination.port, context=tls)
                sock = tls.wrap_socket(sock, server_hostname=destination.host)
        except BaseException:
            sock.close()
            raise
        connection.sock = sock
        return connection

    def _open(self, found: list[tuple[int, tuple]], give_up: float) -> socket.socket:
        """A connection to the first address that takes one; they were all checked."""
        failure: OSError | None = None
        for family, address in found:
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.settimeout(_left(give_up))
                sock.connect(address)
                host, port, *_ = sock.getpeername()
                if not self._destinations.allows(str(host), port):
                    raise Blocked("the connection led to an address that is not on the open internet")
                return sock
            except OSError as error:
                sock.close()
                failure = error
            except BaseException:
                sock.close()
                raise
        raise failure or OSError("the host has no address")

    def _end(self) -> None:
        with self._lock:
            self._ended = True
            if self._twin is not None:
                with suppress(OSError):  # the other side was faster
                    self._twin.shutdown(socket.SHUT_RDWR)

    def _forget(self) -> None:
        with self._lock:
            if self._twin is not None:
                self._twin.close()
                self._twin = None

    def _reason(self, error: Exception) -> str:
        if time.monotonic() >= self._deadline:
            return f"no answer within {self._seconds:g} seconds"
        if isinstance(error, TimeoutError):
            return f"no connection within {self._connect_seconds:g} seconds"
        if isinstance(error, socket.gaierror):
            return "the host name has no address"
        if isinstance(error, ConnectionRefusedError):
            return "the connection was refused"
        if isinstance(error, ssl.SSLError):
            return f"TLS: {error.reason or error}"
        if isinstance(error, http.client.RemoteDisconnected | ConnectionError):
            return "the connection was closed before an answer came"
        if isinstance(error, http.client.HTTPException | ValueError):
            return "the answer is not HTTP"
        return f"the connection failed: {error.strerror or error}" if isinstance(error, OSError) else str(error)


def tls_context() -> ssl.SSLContext:
    """Trusts what the machine trusts (so a studio's own authority works) and Mozilla's list."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def resolve(host: str, port: int, seconds: float) -> list[tuple[int, tuple]]:
    """Every address of a name, each with its family. Resolvers take no time limit, so another thread waits for them."""
    box: queue.SimpleQueue[list[tuple[int, tuple]] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
            box.put([(family, address) for family, _, _, _, address in answers])
        except Exception as error:
            box.put(error)

    threading.Thread(target=ask, daemon=True, name="webhook-resolve").start()
    try:
        found = box.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(found, Exception):
        raise found
    return found


def retry_after(text: str | None) -> float | None:
    """`Retry-After` in either of its forms, as seconds from now."""
    if text is None:
        return None
    if re.fullmatch(r"\s*[0-9]+\s*", text):
        return float(text.strip()[:12])
    try:
        at: datetime = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (at - utcnow()).total_seconds()) if at.tzinfo else None


def _left(until: float) -> float:
    return max(0.001, until - time.monotonic())
