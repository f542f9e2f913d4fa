"""The process that decodes one picture from outside. It reads the file from stdin, and writes a JSON head and a PNG.

`pictures.py` runs it as `python -m shared.outside.decoder MAX_PIXELS MIN_SIDE [mask]`. It imports only Pillow.
"""

from __future__ import annotations

import io
import json
import os
import struct
import sys
import warnings
import zlib
from functools import cache
from typing import Any

from PIL import AvifImagePlugin, Image, ImageChops, ImageCms, ImageOps

from shared.outside.pictures import MAX_ASPECT, READABLE

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF")
CPU_SECONDS = 20
BASE_MEMORY_BYTES = 1 << 29  # Python, Pillow and its libraries, as address space
BYTES_PER_PIXEL = 16  # RGBA, for the decoded, the turned and the encoded picture, with a margin

AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # each has a stack, which counts as memory

PNG_HEAD = b"\x89PNG\r\n\x1a\n"
# Texts of a PNG that may hold the orientation. All others are dropped unread.
TURNING_TEXTS = (b"XML:com.adobe.xmp", b"Raw profile type exif")
MAX_UNPACKED = 1 << 20  # bytes of one compressed block of metadata; with more, Pillow refuses the whole picture

# Pillow's modes of the pixels that a profile of each ICC.1 colour space describes.
PROFILED_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
PROBE = range(0, 256, 51)
SAME = 2  # of 255; a profile that changes no colour by more than this counts as sRGB


class _Refused(Exception):
    """The picture breaks a limit. Has the code and the message."""


def main(max_pixels: int, min_side: int, as_mask: bool) -> None:
    _bind_hands(max_pixels)
    head, png = answer(sys.stdin.buffer.read(), max_pixels, min_side, as_mask)
    sys.stdout.buffer.write(json.dumps(head).encode() + b"\n" + png)


def answer(content: bytes, max_pixels: int, min_side: int, as_mask: bool = False) -> tuple[dict[str, Any], bytes]:
    """The report for the parent process, and the picture if there is one."""
    try:
        return _rewritten(content, max_pixels, min_side, as_mask)
    except _Refused as refused:
        return _refusal(*refused.args)
    except MemoryError:
        return _refusal("picture_too_large", "the picture needs more memory than allowed")
    except Exception as error:  # Pillow throws OSError, ValueError, SyntaxError, NotImplementedError, struct.error, ...
        kind = type(error).__name__
        if kind.startswith("DecompressionBomb"):
            return _refusal("picture_too_large", f"the picture has more than {max_pixels} pixels")
        return _refusal("not_a_picture", f"the file can't be read as a picture ({kind}); send {READABLE}")


def _refusal(code: str, message: str) -> tuple[dict[str, Any], bytes]:
    return {"code": code, "message": message}, b""


def _bind_hands(max_pixels: int) -> None:
    """Limit memory, CPU time and open files, and lower the priority below that of the processes that serve requests."""
    import resource

    os.nice(5)
    memory = BASE_MEMORY_BYTES + max_pixels * BYTES_PER_PIXEL
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _rewritten(content: bytes, max_pixels: int, min_side: int, as_mask: bool) -> tuple[dict[str, Any], bytes]:
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    Image.MAX_IMAGE_PIXELS = max_pixels
    notes: list[str] = []
    with Image.open(io.BytesIO(_without_texts(content, notes)), formats=FORMATS) as image:
        _check_size(*image.size, max_pixels, min_side)
        image.load()  # the first frame, if there are more
        profile = image.info.get("icc_profile")
        _turn_upright(image, notes)
        plain = _plain(image, profile, notes)
        if as_mask:
            plain = _as_mask(plain)
        plain.info = {}
        target = io.BytesIO()
        plain.save(target, "PNG", compress_level=6 if plain.width * plain.height < 4_000_000 else 1)
    return {"width": plain.width, "height": plain.height, "notes": notes}, target.getvalue()


def _check_size(width: int, height: int, max_pixels: int, min_side: int) -> None:
    shown = f"the picture is {width} x {height}"
    if width * height > max_pixels:
        raise _Refused("picture_too_large", f"{shown}; {max_pixels} pixels are allowed")
    if min(width, height) < min_side:
        raise _Refused("picture_too_small", f"{shown}; each side needs {min_side} pixels")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise _Refused("picture_too_narrow", f"{shown}; the longer side may be {MAX_ASPECT} times the shorter")


def _as_mask(image: Image.Image) -> Image.Image:
    """One channel, in which white and black differ in meaning."""
    red, *others = image.split()
    if image.mode != "RGB" or any(ImageChops.difference(red, each).getbbox() for each in others):
        raise _Refused("mask_not_grey", "the mask has colours or transparency; send black, white and greys alone")
    darkest, brightest = red.getextrema()
    if brightest == 0:
        raise _Refused("mask_is_black", "the mask is all black, so nothing would be drawn; make some of it white")
    if darkest == 255:
        raise _Refused("mask_is_white", "the mask is all white; leave it out to have the whole picture drawn anew")
    return red


def _turn_upright(image: Image.Image, notes: list[str]) -> None:
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    except Exception:  # Pillow throws SyntaxError, ValueError, struct.error, ... when it is not EXIF
        notes.append("the EXIF block can't be read, so the picture is not turned")


# --- blocks of a PNG beside the pixels (https://www.w3.org/TR/png-3/#11Ancillary-chunks) --------------------------


def _without_texts(content: bytes, notes: list[str]) -> bytes:
    """A PNG without texts and without blocks that unpack to more than Pillow reads. Other files are unchanged."""
    if not content.startswith(PNG_HEAD):
        return content
    kept, start, seen = [PNG_HEAD], len(PNG_HEAD), set()
    while start + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, start)
        body = content[start + 8 : start + 8 + length] if kind in (b"tEXt", b"zTXt", b"iTXt", b"iCCP") else b""
        name = (kind, body.partition(b"\0")[0])
        if not body or (name not in seen and _is_wanted(kind, body, notes)):
            kept.append(content[start : start + 12 + length])
        seen.add(name)
        start += 12 + length
    return b"".join(kept)


def _is_wanted(kind: bytes, body: bytes, notes: list[str]) -> bool:
    name, _, rest = body.partition(b"\0")
    if kind == b"iCCP":
        readable = rest[:1] == b"\0" and _unpacks(rest[1:])
        if not readable:
            notes.append("the colour profile can't be unpacked and is ignored")
        return readable
    if name not in TURNING_TEXTS:
        return False
    if kind == b"zTXt":
        return _unpacks(rest[1:])
    is_packed = kind == b"iTXt" and rest[:1] == b"\1"
    return not is_packed or _unpacks(rest[2:].split(b"\0", 2)[-1])


def _unpacks(packed: bytes) -> bool:
    unpacker = zlib.decompressobj()
    try:
        unpacker.decompress(packed, MAX_UNPACKED)
    except zlib.error:
        return False
    return not unpacker.unconsumed_tail


# --- colours ------------------------------------------------------------------------------------------------------


def _plain(image: Image.Image, profile: bytes | None, notes: list[str]) -> Image.Image:
    """RGB in sRGB, or RGBA if the picture is transparent. Works in place if possible, because pictures may be large."""
    if image.mode.startswith("I"):  # 16 bits of grey
        image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    colours = image.convert("L") if image.mode in ("LA", "1") else image
    colours = (profile and _in_srgb(colours, profile, notes)) or colours.convert("RGB")
    if alpha and alpha.getextrema() != (255, 255):
        colours.putalpha(alpha)
    return colours


def _in_srgb(image: Image.Image, profile: bytes, notes: list[str]) -> Image.Image | None:
    """RGB with the profile applied; None if that fails."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = PROFILED_MODES[source.profile.xcolor_space.strip()]
        if (image.mode != mode) if mode != "RGB" else (image.mode == "CMYK"):
            raise ValueError(f"a profile for {mode}, pixels of {image.mode}")
        transform = ImageCms.buildTransform(source, _srgb(), mode, "RGB")
    except MemoryError:
        raise
    except Exception:  # such as OSError, PyCMSError, or KeyError for other colour spaces
        notes.append("the colour profile can't be read or doesn't fit the pixels, and is ignored")
        return None
    if mode != "RGB":
        return transform.apply(image)
    colours = image.convert("RGB")
    if not _changes_nothing(transform):
        transform.apply_in_place(colours)
    return colours


@cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    """Whether a profile is sRGB, judged by its effect. Applying it would only change pixels by rounding."""
    colours = bytes(value for red in PROBE for green in PROBE for blue in PROBE for value in (red, green, blue))
    probe = Image.frombytes("RGB", (len(PROBE) ** 2, len(PROBE)), colours)
    moved = transform.apply(probe).tobytes()
    return all(abs(before - after) <= SAME for before, after in zip(colours, moved, strict=True))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), "mask" in sys.argv[3:])
