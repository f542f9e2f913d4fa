"""The header of a .safetensors file: 8 bytes of length, then JSON. The weights are not read.

The format is described at https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import msgspec

MAX_HEADER_BYTES = 100_000_000  # as the library of the format allows
MAX_TENSORS = 100_000
MAX_DIMENSIONS = 64  # of a tensor, as torch allows
BITS = {
    "F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32,
    "F16": 16, "BF16": 16, "I16": 16, "U16": 16, "I8": 8, "U8": 8, "BOOL": 8,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
# Files that have the name of a model after a failed download or a wrong rename: how they begin, and what they are.
IMPOSTORS = {
    b"<": "a web page or another text with tags, not a model; the download may have asked for a login; try again",
    b"version https://git-lfs": "a pointer of Git LFS, not the model itself; fetch it with `git lfs pull`",
    b"{": "a JSON text, not a model; it may hold the error of a download: download it again",
    b"PK\x03\x04": "a pickle of PyTorch under another name; a pickle can run any code: convert it to .safetensors",
    b"\x80\x02": "a pickle of PyTorch under another name; a pickle can run any code: convert it to .safetensors",
    b"GGUF": "a GGUF file under another name; its weights are quantised: use the .safetensors file",
}


class BadModel(ValueError):
    """A file or folder that can't be used as a base model. The message says what it is, and what to do."""


@dataclass(frozen=True)
class TensorInfo:
    dtype: str  # a key of BITS
    shape: tuple[int, ...]
    begin: int = 0  # its first byte, counted from the beginning of the weights


@dataclass(frozen=True)
class Header:
    """What a file says of itself."""

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    weights_begin: int  # the byte of the file at which the weights begin


class _Entry(msgspec.Struct):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def read_header(path: Path) -> Header:
    """Read and check the header of a file.

    Raises:
        BadModel: it isn't a .safetensors file, is truncated, or its header contradicts itself or the file's size.
        OSError: the file can't be read.
    """
    with path.open("rb") as file:
        return header_of(file)


def header_of(file: IO[bytes]) -> Header:
    """Read and check the header of an open file. Raises what `read_header` raises."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    start = file.read(8)
    text_begins = start + file.read(32)
    length = int.from_bytes(start, "little")
    _check_start(text_begins, size, length)
    file.seek(8)
    written = file.read(length)
    entries, metadata = _decoded(written)
    weights_begin = 8 + length
    _check_places(entries, size - weights_begin)
    tensors = {name: TensorInfo(each.dtype, tuple(each.shape), each.data_offsets[0]) for name, each in entries.items()}
    return Header(tensors, metadata, weights_begin)


def _check_start(begins: bytes, size: int, length: int) -> None:
    if size == 0:
        raise BadModel("the file is empty; copy or download it again")
    for mark, what in IMPOSTORS.items():
        if begins.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(mark) and begins[8:9] != b"{":
            raise BadModel(f"this is {what}")
    if size < 10:
        raise BadModel(f"the file is truncated: it has only {size} bytes; copy or download it again")
    if length > MAX_HEADER_BYTES:
        raise BadModel(
            f"this isn't a .safetensors file: its header would have {length} bytes, and {MAX_HEADER_BYTES} are allowed"
        )
    if 8 + length > size:
        raise BadModel(
            f"the file is truncated: its header has {length} bytes, the file only {size}; copy or download it again"
        )
    if begins[8:9] != b"{":  # as the format says; blanks before it would hide a header from limits
        raise BadModel("the header can't be read, so this isn't a .safetensors file: it doesn't begin with {")


def _decoded(written: bytes) -> tuple[dict[str, _Entry], dict[str, str]]:
    """The tensors and the metadata of a header."""
    try:
        raw = msgspec.json.decode(written, type=dict[str, msgspec.Raw])
        metadata = msgspec.json.decode(raw.pop("__metadata__", b"{}"), type=dict[str, Any] | None) or {}
        if len(raw) > MAX_TENSORS:
            raise BadModel(f"the header lists {len(raw)} tensors, and {MAX_TENSORS} are allowed")
        entries = {name: msgspec.json.decode(each, type=_Entry) for name, each in raw.items()}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadModel(f"the header can't be read, so this isn't a .safetensors file: {error}") from error
    return entries, {name: value for name, value in metadata.items() if isinstance(value, str)}


def _check_places(entries: dict[str, _Entry], size: int) -> None:
    """Check that the tensors have the sizes of their shapes and fill the rest of the file without gaps or overlaps."""
    if not entries:
        raise BadModel("the file holds no weights")
    end = 0
    for name, each in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        begin, until = each.data_offsets
        if each.dtype not in BITS:
            raise BadModel(f"the tensor {name} is of the unknown type {each.dtype!r}")
        if len(each.shape) > MAX_DIMENSIONS:  # the product of very many sides takes hours
            raise BadModel(
                f"the tensor {name} has {len(each.shape)} dimensions, and {MAX_DIMENSIONS} are allowed; "
                "download the file again"
            )
        if any(side < 0 for side in each.shape):
            raise BadModel(f"the tensor {name} has the impossible shape {each.shape}; download the file again")
        needed = math.prod(each.shape) * BITS[each.dtype]
        if needed != (until - begin) * 8:
            raise BadModel(
                f"the header contradicts itself: the tensor {name} of {each.dtype} with shape {each.shape} needs "
                f"{needed // 8} bytes and has {until - begin}; download the file again"
            )
        if begin != end:
            raise BadModel(
                f"the header contradicts itself: the tensor {name} begins at byte {begin}, and the one before ends at "
                f"{end}; download the file again"
            )
        end = until
    if end > size:
        raise BadModel(
            f"the file is truncated: {end - size} of {end} bytes of weights are missing; copy or download it again"
        )
    if end < size:
        raise BadModel(f"the file has {size - end} bytes more than its header says; download it again")
