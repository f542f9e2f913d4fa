"""Files of pictures, as they are read or refused."""

from __future__ import annotations

import io
import struct
import zlib

import pytest
from PIL import Image

from shared.errors import BootloraError
from shared.outside import pictures

LIMITS = {"max_bytes": 20_000_000, "max_pixels": 1_000_000, "min_side": 32}


def clean(content: bytes, **limits: int) -> Image.Image:
    picture = pictures.clean(content, **(LIMITS | limits))
    image = Image.open(io.BytesIO(picture.png))
    assert image.size == (picture.width, picture.height)
    return image


def refusal(content: bytes, **limits: int) -> str:
    with pytest.raises(BootloraError) as error:
        pictures.clean(content, **(LIMITS | limits))
    assert error.value.status in (413, 422)
    return error.value.code


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def raw_png(width: int, height: int, *chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"\0" * (width + 1) * min(height, 64)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + body + chunk(b"IEND", b"")
