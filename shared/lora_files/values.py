"""Whether all numbers of a file are finite, without a library for arrays: the API has none, and a file may be large.

A floating-point number is infinite or NaN if all bits of its exponent are set (IEEE 754; bfloat16 is the upper half of
a float32).
"""

from __future__ import annotations

import math
from typing import IO

from shared.checkpoints.header import BITS, Header, TensorInfo
from shared.lora_files.kinds import BadLora

PIECE_BYTES = 1 << 20  # a multiple of every width
# By type: the mask of the exponent's bits in the highest byte, and in the byte below it. Bytes are little-endian.
EXPONENT = {"F64": (0x7F, 0xF0), "F32": (0x7F, 0x80), "BF16": (0x7F, 0x80), "F16": (0x7C, 0x00)}
WHOLE = ("I64", "I32", "I16", "I8", "U8")  # an alpha may be a whole number
_FLAGS = {mask: bytes(int(byte & mask == mask) for byte in range(256)) for masks in EXPONENT.values() for mask in masks}


def check_finite(file: IO[bytes], header: Header) -> None:
    """Read all weights of a file, a piece at a time.

    Raises:
        BadLora: a number is infinite or NaN.
    """
    for key, tensor in sorted(header.tensors.items(), key=lambda item: item[1].begin):
        if tensor.dtype in WHOLE:
            continue
        file.seek(header.weights_begin + tensor.begin)
        left = _bytes_of(tensor)
        while left:
            piece = file.read(min(left, PIECE_BYTES))
            if not piece:
                raise BadLora("the file became shorter while it was read; send it again")
            left -= len(piece)
            if not is_finite(piece, tensor.dtype):
                raise BadLora(
                    f"{key} holds infinite or NaN numbers: its training has failed; use another of its epochs",
                    code="not_finite",
                )


def is_finite(data: bytes, dtype: str) -> bool:
    """Whether all numbers of a type are finite. `data`: whole numbers only."""
    width = BITS[dtype] // 8
    highest, below = (
        int.from_bytes(data[width - place :: width].translate(_FLAGS[mask]), "little")
        for place, mask in enumerate(EXPONENT[dtype], 1)
    )
    return not highest & below


def _bytes_of(tensor: TensorInfo) -> int:
    return math.prod(tensor.shape) * BITS[tensor.dtype] // 8
