"""A TCP connection between two parts of the service that can be cut, blacked out, slowed down or spoiled."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

CHUNK_BYTES = 1 << 16
SPOILT_FROM_BYTES = 2000  # smaller pieces are heads and acknowledgements
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: a close that says RST

Target = tuple[str, int] | Path


class Link:
    """One connection, both ways."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket):
        self.proxy, self.client, self.server = proxy, client, server
        self.deaf = False  # what the server answers is dropped, and the connection with it
        for source, sink, upwards in ((client, server, True), (server, client, False)):
            threading.Thread(target=self._pump, args=(source, sink, upwards), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, upwards: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                data = self.proxy.through(self, data, upwards)
                if data:
                    sink.sendall(data)
        self.close()

    def close(self) -> None:
        for each in (self.client, self.server):
            with contextlib.suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(OSError):
                each.close()
        self.proxy.links.discard(self)


class Proxy:
    """Listens on a port of its own, and passes on to a target until it is told otherwise."""

    def __init__(self, target: Target):
        self.target = target
        self.links: set[Link] = set()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self.listener.getsockname()[1]
        self._flowing = threading.Event()
        self._flowing.set()
        self._refusing = False
        self._bytes_per_second = 0.0
        self._to_spoil = 0
        self._watch: Callable[[Link, bytes, bool], bool] | None = None
        threading.Thread(target=self._accept, daemon=True).start()

    # --- faults

    def reset(self) -> None:
        """Every connection breaks; new ones are let through."""
        for link in list(self.links):
            link.close()

    def cut(self) -> None:
        """Nobody gets through, and whoever tries hears so at once."""
        self._refusing = True
        self.reset()

    def swallow(self) -> None:
        """Bytes go in and nothing comes out: a black hole."""
        self._flowing.clear()

    def slow(self, bytes_per_second: float) -> None:
        self._bytes_per_second = bytes_per_second

    def spoil(self, answers: int) -> None:
        """Turn over a bit in each of the next so many large pieces that the server sends."""
        self._to_spoil = answers

    def cut_once_at(
        self, words: bytes, *, after_it_was_done: bool, on_a_link_that_said: bytes = b""
    ) -> threading.Event:
        """Break the connection that next says these words: before they arrive, or before the answer does."""
        happened = threading.Event()
        said: set[Link] = set()

        def watch(link: Link, data: bytes, upwards: bool) -> bool:
            if not upwards:
                return False
            if on_a_link_that_said in data:
                said.add(link)
            if words not in data or link not in said:
                return False
            self._watch = None
            happened.set()
            if not after_it_was_done:
                link.close()
                return True
            link.deaf = True
            return False

        self._watch = watch
        return happened

    def heal(self) -> None:
        self._refusing, self._watch = False, None
        self._bytes_per_second, self._to_spoil = 0.0, 0
        self._flowing.set()

    def close(self) -> None:
        self.heal()
        self.listener.close()
        self.reset()

    # --- what passes

    def through(self, link: Link, data: bytes, upwards: bool) -> bytes:
        self._flowing.wait()
        if self._watch is not None and self._watch(link, data, upwards):
            return b""
        if link.deaf and not upwards:
            raise ConnectionResetError
        if self._bytes_per_second:
            time.sleep(len(data) / self._bytes_per_second)
        if not upwards and self._to_spoil > 0 and len(data) >= SPOILT_FROM_BYTES:
            self._to_spoil -= 1
            return data[:-1] + bytes([data[-1] ^ 1])
        return data

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            if self._refusing:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                client.close()
                continue
            try:
                server = self._connect()
            except OSError:
                client.close()
                continue
            self.links.add(Link(self, client, server))

    def _connect(self) -> socket.socket:
        if isinstance(self.target, Path):
            server = socket.socket(socket.AF_UNIX)
            server.connect(str(self.target))
            return server
        server = socket.create_connection(self.target, timeout=5)
        server.settimeout(None)
        return server
