"""Sends webhooks to checked addresses, with a deadline, one request at a time per endpoint.

The code opens its sockets itself, so that the checked address is the contacted address: it resolves the host once,
checks every address, and connects to one of them. It follows no redirects, uses no proxies or cookies, and decodes no
bodies.
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
from shared.webhooks import Claim, TryResult

log = structlog.get_logger()

MAX_READ = 64 * 1024  # bytes of a response; the rest is not read
TURN_SECONDS = 5.0  # a thread serves one endpoint for at most so long
SLOW_SECONDS = 1.0
USER_AGENT = "Bootlora-Webhooks/1"


class Blocked(Exception):
    """The host resolves to an address that is not allowed."""


class DeliverySender:
    """Sends the deliveries that are due. Several senders may run; a lease gives each endpoint to one of them at a time.

    A clock calls `tick` each second. Failing and slow endpoints may use at most half of the threads, so that the others
    always find a free one.
    """

    def __init__(self, runtime: Runtime):
        self._runtime = runtime
        self._settings = runtime.settings
        self._destinations = Destinations.from_settings(runtime.settings)
        self._tls = functools.cache(tls_context)  # made for the first https URL
        self._pool = ThreadPoolExecutor(runtime.settings.webhook_threads, thread_name_prefix="webhook")
        self._lock = threading.Lock()
        self._busy: dict[str, bool] = {}  # endpoints being served; True: counted as slow
        self._slow: set[str] = set()
        self._requests: set[Request] = set()
        self._closing = threading.Event()

    def tick(self) -> None:
        """Start the deliveries that are due. If the database is down, the next tick tries again."""
        try:
            self.deliver_due()
        except SQLAlchemyError as error:
            log.warning("delivery.no_database", error=str(error))

    def deliver_due(self) -> int:
        """Start a thread for each due endpoint while threads are free. Returns how many were started."""
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
        """Stop starting deliveries, wait for running requests, then cut the rest. A cut delivery is sent again."""
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
        """Send an endpoint's due deliveries, oldest first, until none is left, one fails or the turn is over."""
        token = secrets.token_hex(16)
        turn_ends = time.monotonic() + TURN_SECONDS
        try:
            with self._runtime.db.transaction() as session:
                claim = webhooks.take(session, webhook_id, token, self._settings)
            while claim and (result := self._send(claim)):
                with self._runtime.db.transaction() as session:
                    go_on = self._record(session, claim, result) and time.monotonic() < turn_ends
                    if go_on and not self._closing.is_set():
                        claim = webhooks.take(session, webhook_id, token, self._settings)
                    else:
                        claim = None
                        webhooks.release(session, webhook_id, token)
        except SQLAlchemyError as error:  # the lease expires and the same delivery is sent again
            log.warning("delivery.no_database", webhook_id=webhook_id, error=str(error))
        except Exception:
            log.exception("delivery.failed", webhook_id=webhook_id)
        finally:
            self._done(webhook_id)

    def _send(self, claim: Claim) -> TryResult | None:
        """Send one delivery. Returns None if it was cut by `close`, which does not count as the receiver's failure."""
        request = Request(self._destinations, self._tls, self._settings)
        with self._lock:
            self._requests.add(request)
        try:
            if self._closing.is_set():
                result = None
            else:
                result = request.send(claim.url, claim.body, lambda: webhooks.headers(claim, self._runtime.vault))
        finally:
            with self._lock:
                self._requests.discard(request)
        if request.was_cut and not (result and result.was_delivered):
            result = None
        if result is None:
            with self._runtime.db.transaction() as session:
                webhooks.release(session, claim.webhook_id, claim.token)
        return result

    def _record(self, session: Session, claim: Claim, result: TryResult) -> bool:
        """Record the result. Returns True if the endpoint may get its next delivery at once."""
        with self._lock:
            if result.was_delivered and result.seconds < SLOW_SECONDS:
                self._slow.discard(claim.webhook_id)
            else:
                self._slow.add(claim.webhook_id)
                self._busy[claim.webhook_id] = True
        if result.was_delivered:
            return webhooks.delivered(session, claim, result)
        webhooks.failed_try(session, claim, result, self._settings)
        return False

    def _done(self, webhook_id: str) -> None:
        with self._lock:
            self._busy.pop(webhook_id, None)


class Request:
    """One POST that ends at its deadline, whatever the receiver does."""

    def __init__(self, destinations: Destinations, tls: Callable[[], ssl.SSLContext], settings: Settings):
        self.was_cut = False
        self._ended = False
        self._destinations = destinations
        self._tls = tls
        self._connect_seconds = settings.webhook_connect_seconds
        self._seconds = settings.webhook_timeout_seconds
        self._lock = threading.Lock()
        self._twin: socket.socket | None = None  # a duplicate of the socket, so that another thread can end it

    def send(self, url: str, body: str, make_headers: Callable[[], dict[str, str]]) -> TryResult:
        """The receiver's response, or the error. Nothing that a receiver does raises an exception."""
        at, started = utcnow(), time.monotonic()
        self._deadline = started + self._seconds
        response: dict[str, object] = {}
        timer = threading.Timer(self._seconds, self._end)
        timer.daemon = True
        timer.start()
        try:
            response = self._exchange(self._destinations.check(url), body.encode(), make_headers())
        except BootloraError as error:
            response = {"error": error.message}
        except Blocked as error:
            response = {"error": str(error)}
        except ssl.SSLCertVerificationError as error:
            response = {"error": f"TLS: {error.verify_message or error.reason}"}
        except (OSError, http.client.HTTPException, ValueError) as error:
            response = {"error": self._reason(error)}
        except Exception:
            log.exception("delivery.crashed")  # count it as a failed try, or it would be sent again each second
            response = {"error": "the request could not be made; see the server's log"}
        finally:
            timer.cancel()
            self._forget()
        return TryResult(at=at, seconds=time.monotonic() - started, **response)  # type: ignore[arg-type]

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
            if self._ended:  # http.client accepts a truncated header as complete
                raise TimeoutError
            response: dict[str, object] = {"status": answer.status, "text": self._read(answer)}
            if 300 <= answer.status < 400:
                response["error"] = "redirects are not followed; change the webhook's URL"
            if not 200 <= answer.status < 300:
                response["retry_after"] = retry_after(answer.getheader("Retry-After"))
            return response
        finally:
            connection.close()

    def _read(self, answer: http.client.HTTPResponse) -> str:
        """The start of the response body. Errors are ignored here: the status alone decides."""
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
        """Connect to the first of the checked addresses that accepts."""
        failure: OSError | None = None
        for family, address in found:
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.settimeout(_left(give_up))
                sock.connect(address)
                host, port, *_ = sock.getpeername()
                if not self._destinations.allows(str(host), port):
                    raise Blocked("the connection went to an address that is not on the open internet")
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
                with suppress(OSError):  # the receiver has closed it already
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
    """Trusts the machine's certificate authorities (so a private authority works) and Mozilla's list."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def resolve(host: str, port: int, seconds: float) -> list[tuple[int, tuple]]:
    """All addresses of a host, each with its family. `getaddrinfo` has no timeout, so it runs in another thread."""
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
    """`Retry-After` as seconds from now, from a number or an HTTP date (RFC 9110, 10.2.3)."""
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
