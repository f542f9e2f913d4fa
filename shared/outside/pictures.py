"""Pictures from outside: decoded, turned upright, converted to sRGB, stripped of metadata and written as PNG.

Hostile files attack decoders, so these run in a child process with little memory and little time (`decoder.py`).
"""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shared.errors import BootloraError, Invalid, TooLarge

ROOT = Path(__file__).resolve().parents[2]  # where `shared` can be imported from
READABLE = "PNG, JPEG, WebP or AVIF"
MAX_ASPECT = 8  # narrower ones would become very long when their shorter side is scaled to a model's resolution
WALL_SECONDS = 120  # for a busy machine: the decoder stops by itself after 20 s of CPU time
LOOK_EVERY_SECONDS = 0.25  # between checks whether the client still waits
AT_ONCE = 2  # children of one process: each may take half a GB

_children = threading.BoundedSemaphore(AT_ONCE)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture that is safe to use: PNG in sRGB, RGB or (where it is transparent) RGBA. A mask is grey."""

    png: bytes
    sha256: str
    width: int
    height: int
    notes: tuple[str, ...] = ()  # what was ignored in the file, as sentences for the client


def clean(
    content: bytes,
    *,
    max_bytes: int,
    max_pixels: int,
    min_side: int,
    as_mask: bool = False,
    unwanted: Callable[[], bool] = lambda: False,
) -> Picture:
    """The picture in these bytes. `unwanted` is called now and then; once it returns True, the child is killed.

    A mask must be grey, and neither all black nor all white; its PNG has one channel.

    Raises:
        TooLarge: the file has more bytes or pixels than the limits allow.
        Invalid: the file can't be read, or the picture is too small or no mask, or `unwanted` has returned True.
    """
    if len(content) > max_bytes:
        raise TooLarge(f"the file has more than the {max_bytes} bytes allowed", code="picture_too_large")
    limits = [str(max_pixels), str(min_side), *(["mask"] if as_mask else [])]
    with _child(unwanted):
        done = _decoded(content, limits, unwanted)
        if done.returncode == -signal.SIGTERM:  # meant for all processes of ours, which end what they have begun
            done = _decoded(content, limits, unwanted)
    head, _, png = done.stdout.partition(b"\n")
    if done.returncode != 0 or not head:
        raise _unreadable("its decoder gave up")
    said = json.loads(head)
    if "code" in said:
        kind: type[BootloraError] = TooLarge if said["code"] == "picture_too_large" else Invalid
        raise kind(said["message"], code=said["code"], errors=[{"pointer": "/file", "detail": said["message"]}])
    return Picture(
        png=png,
        sha256=hashlib.sha256(png).hexdigest(),
        width=said["width"],
        height=said["height"],
        notes=tuple(said["notes"]),
    )


@contextmanager
def _child(unwanted: Callable[[], bool]) -> Iterator[None]:
    """Wait until one of the few child processes may start."""
    while not _children.acquire(timeout=LOOK_EVERY_SECONDS):
        _check_wanted(unwanted)
    try:
        yield
    finally:
        _children.release()


def _check_wanted(unwanted: Callable[[], bool]) -> None:
    if unwanted():
        raise Invalid("the client has hung up; send the picture again", code="hung_up")


def _decoded(content: bytes, limits: list[str], unwanted: Callable[[], bool]) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "shared.outside.decoder", *limits]
    deadline = time.monotonic() + WALL_SECONDS
    # A file, because `communicate` writes no more of its input to a pipe once it has timed out.
    with tempfile.TemporaryFile() as given:
        given.write(content)
        given.seek(0)
        with subprocess.Popen(  # noqa: S603  (our own program and its limits)
            command,
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env={"LC_ALL": "C.UTF-8"},
        ) as child:
            try:
                while time.monotonic() < deadline:
                    try:
                        stdout, stderr = child.communicate(timeout=LOOK_EVERY_SECONDS)
                        return subprocess.CompletedProcess(command, child.returncode, stdout, stderr)
                    except subprocess.TimeoutExpired:
                        _check_wanted(unwanted)
            finally:
                child.kill()  # has no effect if it has ended
    raise _unreadable("it takes too long to decode")


def _unreadable(reason: str) -> Invalid:
    return Invalid(f"the file can't be read as a picture: {reason}; send {READABLE}", code="not_a_picture")
