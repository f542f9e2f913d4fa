"""Pictures from outside: decoded, turned upright, stripped of everything but pixels, and written anew as PNG.

Decoders are where hostile files bite, so they run in a child process with little memory and little time.
The child is this module run as a program; it imports nothing but Pillow.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from shared.errors import BootloraError, Invalid, TooLarge

ROOT = Path(__file__).resolve().parent.parent
FORMATS = ("PNG", "JPEG", "WEBP")
MAX_ASPECT = 8  # narrower ones would grow without bounds when their shorter side is brought to what a model draws
CPU_SECONDS = 20
WALL_SECONDS = 40
BASE_MEMORY_BYTES = 1 << 29  # Python, Pillow and its libraries, as address space
BYTES_PER_PIXEL = 16  # RGBA, once as decoded, once turned, once encoded, and some
AT_ONCE = 2  # children of one process: each may take half a GB

_children = threading.BoundedSemaphore(AT_ONCE)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture that is safe to use: PNG, RGB or (where it is transparent) RGBA."""

    png: bytes
    sha256: str
    width: int
    height: int


def clean(content: bytes, *, max_bytes: int, max_pixels: int, min_side: int) -> Picture:
    """The picture in these bytes.

    Raises:
        TooLarge: more bytes or pixels than the limits allow.
        Invalid: no picture that we read, or one that is too small.
    """
    if len(content) > max_bytes:
        raise TooLarge(f"the file has more than the {max_bytes} bytes allowed", code="picture_too_large")
    with _children:
        done = _decoded(content, max_pixels, min_side)
        if done.returncode == -signal.SIGTERM:  # meant for all processes of ours, which end what they have begun
            done = _decoded(content, max_pixels, min_side)
    head, _, png = done.stdout.partition(b"\n")
    if done.returncode != 0 or not head:
        raise _unreadable("its decoder gave up")
    said = json.loads(head)
    if "code" in said:
        kind: type[BootloraError] = TooLarge if said["code"] == "picture_too_large" else Invalid
        raise kind(said["message"], code=said["code"], errors=[{"pointer": "/file", "detail": said["message"]}])
    return Picture(png=png, sha256=hashlib.sha256(png).hexdigest(), width=said["width"], height=said["height"])


def _decoded(content: bytes, max_pixels: int, min_side: int) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "shared.outside.pictures", str(max_pixels), str(min_side)]
    try:
        return subprocess.run(  # noqa: S603  (our own program and two numbers)
            command,
            check=False,
            input=content,
            capture_output=True,
            timeout=WALL_SECONDS,
            cwd=ROOT,
            env={"LC_ALL": "C.UTF-8"},
        )
    except subprocess.TimeoutExpired:
        raise _unreadable("it takes too long to decode") from None


def _unreadable(reason: str) -> Invalid:
    return Invalid(f"the file can't be read as a picture: {reason}; send PNG, JPEG or WebP", code="not_a_picture")


# --- in the child ---------------------------------------------------------------------------------------------


def _main(max_pixels: int, min_side: int) -> None:
    _bind_hands(max_pixels)
    head, png = _answer(sys.stdin.buffer.read(), max_pixels, min_side)
    sys.stdout.buffer.write(json.dumps(head).encode() + b"\n" + png)


def _answer(content: bytes, max_pixels: int, min_side: int) -> tuple[dict[str, object], bytes]:
    """What the parent is told, and the picture if there is one."""
    try:
        return _rewritten(content, max_pixels, min_side)
    except MemoryError:
        return _refusal("picture_too_large", "the picture needs more memory than allowed"), b""
    except Exception as error:  # Pillow throws OSError, ValueError, SyntaxError, NotImplementedError, struct.error, ...
        kind = type(error).__name__
        if kind.startswith("DecompressionBomb"):
            return _refusal("picture_too_large", f"the picture has more than {max_pixels} pixels"), b""
        message = f"the file can't be read as a picture ({kind}); send PNG, JPEG or WebP"
        return _refusal("not_a_picture", message), b""


def _refusal(code: str, message: str) -> dict[str, object]:
    return {"code": code, "message": message}


def _bind_hands(max_pixels: int) -> None:
    """Little memory, little time, no files; and whoever answers requests goes first."""
    import resource

    os.nice(5)

    memory = BASE_MEMORY_BYTES + max_pixels * BYTES_PER_PIXEL
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _rewritten(content: bytes, max_pixels: int, min_side: int) -> tuple[dict[str, object], bytes]:
    import io
    import warnings

    from PIL import Image, ImageOps

    warnings.simplefilter("error", Image.DecompressionBombWarning)
    Image.MAX_IMAGE_PIXELS = max_pixels
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        width, height = image.size
        if width * height > max_pixels:
            return _refusal(
                "picture_too_large", f"the picture is {width} x {height}; {max_pixels} pixels are allowed"
            ), b""
        if min(width, height) < min_side:
            return _refusal(
                "picture_too_small", f"the picture is {width} x {height}; each side needs {min_side} pixels"
            ), b""
        if max(width, height) > MAX_ASPECT * min(width, height):
            return _refusal(
                "picture_too_narrow",
                f"the picture is {width} x {height}; the longer side may be {MAX_ASPECT} times the shorter",
            ), b""
        image.load()  # the first frame, if there are more
        plain = _plain(ImageOps.exif_transpose(image))
    plain.info = {}
    target = io.BytesIO()
    plain.save(target, "PNG", compress_level=6 if width * height < 4_000_000 else 1)
    return {"width": plain.width, "height": plain.height}, target.getvalue()


def _plain(image):  # type: ignore[no-untyped-def]
    """RGB, or RGBA if anything shows through."""
    if image.mode.startswith("I"):  # 16 bits of grey
        image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    return rgba.convert("RGB") if rgba.getextrema()[3] == (255, 255) else rgba


if __name__ == "__main__":
    _main(int(sys.argv[1]), int(sys.argv[2]))
