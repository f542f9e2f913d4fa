"""The server's worker: gunicorn's threads (`gthread`), but without waits for silent clients.

gunicorn lets a thread wait five seconds for the first byte of a new connection. After an answer with
`Connection: close` its main loop waits two seconds for the client to close. So sixteen silent clients would keep all
others from a thread, and one that does not close would keep the loop from accepting. Here the loop watches both beside
all other connections.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections import deque
from concurrent.futures import Future
from functools import partial
from typing import Any

from gunicorn.workers.gthread import DEFAULT_WORKER_DATA_TIMEOUT, TConn, ThreadWorker

CLOSE_SECONDS = 2.0  # for a client to close after us; if we were first, it could lose the end of its answer
READ_BYTES = 4096
MAX_EXTRA_BYTES = 65_536  # that a client may send after its answer


class Worker(ThreadWorker):
    """Gives a connection to a thread when its first bytes arrive, and closes it after the client has closed it."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.closing_conns: deque[TConn] = deque()

    def enqueue_req(self, conn: TConn) -> None:
        if conn.initialized or conn.data_ready:
            super().enqueue_req(conn)
            return
        conn.sock.setblocking(False)
        conn.timeout = time.monotonic() + DEFAULT_WORKER_DATA_TIMEOUT
        self.pending_conns.append(conn)  # `murder_pending` closes it when its time is over
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def finish_request(self, conn: TConn, fs: Future[Any]) -> None:
        is_over = not fs.cancelled() and fs.exception() is None and fs.result() is False
        if is_over and not self.cfg.is_ssl and _is_half_closed(conn.sock):
            conn.timeout = time.monotonic() + CLOSE_SECONDS
            self.closing_conns.append(conn)
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_closing_socket_readable, conn))
        else:
            super().finish_request(conn, fs)

    def on_closing_socket_readable(self, conn: TConn, client: socket.socket) -> None:
        """Read what the client still sends, so that the end of its answer is not lost, and close after it."""
        try:
            read = client.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            read = b""
        conn.extra_bytes = getattr(conn, "extra_bytes", 0) + len(read)
        if not read or conn.extra_bytes > MAX_EXTRA_BYTES:
            self.closing_conns.remove(conn)
            self._close(conn)

    def murder_pending(self) -> None:
        super().murder_pending()
        while self.closing_conns and self.closing_conns[0].timeout <= time.monotonic():
            self._close(self.closing_conns.popleft())

    def _close(self, conn: TConn) -> None:
        self.poller.unregister(conn.sock)
        self.nr_conns -= 1
        conn.close()


def _is_half_closed(connection: socket.socket) -> bool:
    """Shut down the sending side. Returns False if the connection is closed already."""
    try:
        connection.shutdown(socket.SHUT_WR)
        connection.setblocking(False)
    except OSError:
        return False
    return True
