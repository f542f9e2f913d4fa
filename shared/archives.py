"""Datasets as zips, in the folder layout of kohya's scripts: `REPEATS_NAME/001.png` beside `001.txt`."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from shared.captions import CONTROLS
from shared.errors import Invalid, TooLarge

PICTURES = {".png", ".jpg", ".jpeg", ".webp"}
MAX_ENTRIES = 10  # for each picture that may be
MAX_CAPTION_BYTES = 10_000
MAX_RATIO = 100  # of one entry, unpacked to packed: text alone gets near
MAX_TOGETHER = 5  # times of what one picture may have: all are in memory at once
MAX_NAME_LENGTH = 200


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A picture of a dataset. `caption` is None where no text lies beside it."""

    name: str
    content: bytes
    caption: str | None


def pack(path: Path, name: str, entries: Iterable[Entry]) -> int:
    """Write a zip with one folder. Returns how many pictures are in it."""
    folder = "1_" + (re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "dataset")
    number = 0
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as target:
        for number, entry in enumerate(entries, 1):
            target.writestr(f"{folder}/{number:03}.png", entry.content)
            target.writestr(f"{folder}/{number:03}.txt", entry.caption or "")
    return number


def unpack(file: IO[bytes], max_pictures: int, max_picture_bytes: int) -> list[Entry]:
    """The pictures of a zip with their captions, as bytes that nobody has looked at yet.

    Nothing is written to a disk, so a path in a zip leads nowhere; those that try are refused all the same.

    Raises:
        Invalid: not a zip, a bad name, no picture in it.
        TooLarge: too many entries, or one that unpacks to far more than it is.
    """
    try:
        with zipfile.ZipFile(file) as source:
            infos = [info for info in source.infolist() if not info.is_dir()]
            if len(infos) > MAX_ENTRIES * max_pictures:
                raise TooLarge(f"{len(infos)} entries are far too many", code="zip_too_large")
            for info in infos:
                _check(info, max_picture_bytes)
            if sum(info.file_size for info in infos) > MAX_TOGETHER * max_picture_bytes:
                raise TooLarge("the zip unpacks to more than is allowed", code="zip_too_large")
            return _entries(source, infos, max_pictures, max_picture_bytes)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError) as error:
        raise Invalid(f"the file can't be read as a zip ({type(error).__name__})", code="not_a_zip") from error


def _entries(
    source: zipfile.ZipFile, infos: list[zipfile.ZipInfo], max_pictures: int, max_picture_bytes: int
) -> list[Entry]:
    texts = {_stem(info): info for info in infos if _suffix(info) == ".txt"}
    pictures = [info for info in infos if _suffix(info) in PICTURES]
    if not pictures:
        raise Invalid("there is no picture in the zip", code="empty_zip")
    if len(pictures) > max_pictures:
        raise TooLarge(f"{len(pictures)} pictures are in the zip; {max_pictures} may be", code="zip_too_large")
    found = []
    for info in sorted(pictures, key=lambda info: info.filename):
        text = texts.get(_stem(info))
        caption = _caption(_read(source, text, MAX_CAPTION_BYTES)) if text else None
        found.append(Entry(name=info.filename, content=_read(source, info, max_picture_bytes), caption=caption))
    return found


def _caption(content: bytes) -> str:
    """A caption on one line."""
    caption = " ".join(content.decode("utf-8-sig", errors="replace").split())
    if re.search(f"[{CONTROLS}]", caption):
        raise Invalid("a caption in the zip holds control characters; write it as UTF-8", code="bad_caption")
    return caption


def _check(info: zipfile.ZipInfo, max_picture_bytes: int) -> None:
    name, parts = info.filename, PurePosixPath(info.filename).parts
    odd = name.startswith("/") or ".." in parts or re.search(r"[\x00-\x1f\x7f\\]|^[A-Za-z]:", name)
    if odd or len(name) > MAX_NAME_LENGTH:
        raise Invalid("a name in the zip is no plain relative path", code="bad_zip_name")
    if info.external_attr >> 16 & 0o170000 == 0o120000:
        raise Invalid("there is a link in the zip", code="bad_zip_name")
    if info.file_size > max_picture_bytes or info.file_size > MAX_RATIO * max(info.compress_size, 100):
        raise TooLarge("an entry of the zip unpacks to far more than is allowed", code="zip_too_large")


def _read(source: zipfile.ZipFile, info: zipfile.ZipInfo, max_bytes: int) -> bytes:
    """What an entry holds, however much it claims to."""
    with source.open(info) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise TooLarge("an entry of the zip unpacks to more than is allowed", code="zip_too_large")
    return content


def _stem(info: zipfile.ZipInfo) -> str:
    return str(PurePosixPath(info.filename).with_suffix(""))


def _suffix(info: zipfile.ZipInfo) -> str:
    return PurePosixPath(info.filename).suffix.lower()
