"""Datasets as zips, in the folder layout of kohya's scripts: `REPEATS_NAME/001.png` beside `001.txt`.

A zip is listed first. Each of its files is a picture, a picture's caption, or left out for a reason. Pictures are
unpacked one at a time, to a disk. docs/datasets.md describes what is read.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

import charset_normalizer

from shared.captions import CONTROLS
from shared.errors import Invalid, TooLarge
from shared.settings import Settings

FORMATS = {  # of pictures, by suffix
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "JPEG"),
    ".png": "PNG",
    ".webp": "WEBP",
    ".avif": "AVIF",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".psd": "PSD",
    ".jxl": "JPEG XL",
    ".svg": "SVG",
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    **dict.fromkeys((".heic", ".heif"), "HEIF"),
}
READ = ("PNG", "JPEG", "WEBP", "AVIF")  # if Pillow is built with it; the decoder decides
CAPTIONS = (".txt", ".caption")
REGULARISATION = {"reg", "regs", "reg_images", "regularization", "regularisation", "regularization_images"}
MASKS = ("-masklabel", "-condlabel")  # as OneTrainer names them
OF_THE_SYSTEM = {"thumbs.db", "desktop.ini"}
ENCODINGS = ["cp1252", "cp932", "gb18030"]  # of captions that are not UTF-8: Western, Japanese, Chinese
SURE = 0.01  # the best encoding's "mess" must be lower than the next one's by this much
MAX_ENTRIES = 10  # for each allowed picture
BYTES_PER_ENTRY = 512  # the most in the zip's list of its files
LEAST_LIST_BYTES = 1 << 17  # zipfile searches the list in the last 64 kB
MAX_CAPTION_BYTES = 10_000
MAX_RATIO = 100  # of one entry, unpacked to packed; only text comes close
MAX_NAME_LENGTH = 200
MAX_REPEATS = 10_000
CHUNK_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A picture of a dataset to export."""

    content: bytes
    captions: list[str]  # its variants
    repeats: int = 1  # how often it is drawn in an epoch


@dataclass(frozen=True, kw_only=True)
class Found:
    """A picture in a zip, not decoded yet."""

    name: str
    repeats: int
    captions: list[str] | None  # None if it has no text file
    remark: str | None = None  # on how its caption was read
    fault: str | None = None  # why its caption can't be read


def pack(file: IO[bytes], name: str, entries: Iterable[Entry]) -> int:
    """Write a zip with a folder for each number of repeats into an open file. Returns the number of pictures.

    sd-scripts reads only the first line of a caption. So a picture is written once for each of its captions.
    """
    title = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "dataset"
    number = 0
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as target:
        for number, entry in enumerate(entries, 1):
            for variant, caption in enumerate(entry.captions or [""], 1):
                stem = f"{entry.repeats}_{title}/{number:03}" + (f"-caption-{variant}" if variant > 1 else "")
                target.writestr(f"{stem}.png", entry.content)
                target.writestr(f"{stem}.txt", caption)
    return number


def opened(file: IO[bytes], settings: Settings) -> Archive:
    """A zip from outside, listed, within the limits of this installation."""
    return Archive(
        file,
        max_pictures=settings.max_pictures_per_import,
        max_picture_bytes=settings.max_upload_bytes,
        max_bytes=settings.max_import_bytes,
    )


class Archive:
    """A zip from outside. `names` are those of its pictures; `left_out` has the reason for each other file.

    Raises:
        Invalid: it is not a zip, or it has a bad name or no picture.
        TooLarge: too many bytes, packed or unpacked, too many entries, or one that unpacks to far more than it is.
    """

    def __init__(self, file: IO[bytes], *, max_pictures: int, max_picture_bytes: int, max_bytes: int):
        self._max_picture_bytes = max_picture_bytes
        if (size_bytes := file.seek(0, os.SEEK_END)) > max_bytes:
            raise TooLarge(
                f"the zip has {size_bytes} bytes, and {max_bytes} are allowed; split it",
                code="zip_too_large",
            )
        most = max(LEAST_LIST_BYTES, BYTES_PER_ENTRY * MAX_ENTRIES * max_pictures)
        with _zip_errors():
            self._zip = zipfile.ZipFile(cast(IO[bytes], _Bounded(file, most)))
        infos = [info for info in self._zip.infolist() if not _is_folder(info)]
        if len(infos) > MAX_ENTRIES * max_pictures:
            raise TooLarge(f"the zip holds {len(infos)} files; send fewer", code="zip_too_large")
        for info in infos:
            _check(info, max_picture_bytes)
        if (together := sum(info.file_size for info in infos)) > max_bytes:
            raise TooLarge(
                f"the zip unpacks to {together} bytes, and {max_bytes} are allowed; split it", code="zip_too_large"
            )
        self._infos = {_name(info): info for info in infos}
        self.left_out = {name: reason for name in self._infos if (reason := _not_taken(name))}
        self.names = sorted(self._infos.keys() - self.left_out.keys() - set(self._texts))
        self._copies = self._copies_for_captions()
        self.names = [name for name in self.names if name not in self._copies]
        if not self.names:
            raise Invalid(f"the zip has no picture that can be read; use {', '.join(READ)}", code="empty_zip")
        if len(self.names) > max_pictures:
            raise TooLarge(
                f"the zip has {len(self.names)} pictures, and {max_pictures} are allowed; split it",
                code="zip_too_large",
            )
        self._text_of = {name: self._beside(name) for name in (*self.names, *self._copies)}
        for name in self._texts.keys() - set(self._text_of.values()):
            self.left_out[name] = "a caption without a picture"
        for name, original in self._copies.items():
            self.left_out[name] = f"the same picture as {original}, which gets its caption as a variant"

    def pictures(self) -> Iterator[Found]:
        """The pictures in the order of their names, with their captions."""
        for name in self.names:
            repeats = _repeats(name)
            files = [name, *(copy for copy, original in self._copies.items() if original == name)]
            captions: list[str] = []
            remarks: list[str] = []
            text = None
            try:
                for text in filter(None, map(self._text_of.get, files)):
                    lines, remark = self._read_caption(text)
                    captions += lines
                    remarks += filter(None, [remark])
            except Invalid as error:
                yield Found(name=name, repeats=repeats, captions=None, fault=f"its caption {text}: {error}")
            else:
                found = list(dict.fromkeys(captions)) or None
                yield Found(name=name, repeats=repeats, captions=found, remark="; ".join(remarks) or None)

    def unpack(self, name: str, path: Path) -> None:
        """Write a picture to a file. The size in the zip's list is not trusted.

        Raises:
            Invalid: the picture is damaged.
            TooLarge: the picture is larger than the zip's list says.
        """
        errors = _zip_errors("it is damaged in the zip", "damaged_entry")
        with errors, path.open("wb") as target, self._zip.open(self._infos[name]) as source:
            shutil.copyfileobj(_Limited(source, self._max_picture_bytes), target, CHUNK_BYTES)

    def _copies_for_captions(self) -> dict[str, str]:
        """Copies of a picture that `pack` wrote for its further captions, by their names, with the picture's name."""
        copies = {}
        for name in self.names:
            found = re.fullmatch(r"(.+)-caption-\d+(\.\w+)", name)
            original = found and self._infos.get(found[1] + found[2])
            copy = self._infos[name]
            if found and original and (original.CRC, original.file_size) == (copy.CRC, copy.file_size):
                copies[name] = found[1] + found[2]
        return copies

    def _beside(self, picture: str) -> str | None:
        """The file with a picture's caption: `1.txt`, `1.caption` or `1.png.txt`, in any case."""
        stem = str(PurePosixPath(picture).with_suffix(""))
        wanted = [f"{start}{end}" for start in (stem, picture) for end in CAPTIONS]
        exact = (name for name in wanted if name in self._texts)
        alike = (self._texts_by_fold[name.casefold()] for name in wanted if name.casefold() in self._texts_by_fold)
        return next(exact, None) or next(alike, None)

    @cached_property
    def _texts(self) -> dict[str, zipfile.ZipInfo]:
        kept = {name: info for name, info in self._infos.items() if name not in self.left_out}
        return {name: info for name, info in kept.items() if _suffix(name) in CAPTIONS}

    @cached_property
    def _texts_by_fold(self) -> dict[str, str]:
        return {name.casefold(): name for name in self._texts}

    @cached_property
    def _encoding(self) -> str | None:
        """The encoding of all captions that are not UTF-8, detected from all of them together; None if uncertain."""
        used = dict.fromkeys(name for name in self._text_of.values() if name)
        odd = b"\n".join(content for content in map(self._content, used) if content and not _is_unicode(content))
        ranked = list(charset_normalizer.from_bytes(odd, cp_isolation=ENCODINGS))
        if not ranked or (len(ranked) > 1 and ranked[1].chaos - ranked[0].chaos < SURE):
            return None
        return ranked[0].encoding

    def _content(self, text: str) -> bytes | None:
        """The text of a caption; None if it can't be decoded."""
        try:
            with _zip_errors(), self._zip.open(self._texts[text]) as file:
                return file.read(MAX_CAPTION_BYTES)
        except Invalid:
            return None

    def _read_caption(self, text: str) -> tuple[list[str], str | None]:
        """The variants of a caption, one a line, and a remark on how they were read."""
        content = self._content(text)
        if content is None:
            raise Invalid("it is damaged in the zip", code="bad_caption")
        remarks = []
        encoding = "utf-16" if _is_utf16(content) else "utf-8-sig"
        if not _is_unicode(content):
            if self._encoding is None:
                raise Invalid("it is not UTF-8; save it as UTF-8", code="bad_caption")
            encoding = self._encoding
            remarks.append(f"its caption was read as {encoding}; save it as UTF-8 if that is wrong")
        try:
            lines = [" ".join(line.split()) for line in content.decode(encoding).splitlines()]
        except UnicodeDecodeError:
            raise Invalid("it can't be read as text; save it as UTF-8", code="bad_caption") from None
        variants = list(dict.fromkeys(line for line in lines if line))
        if any(re.search(f"[{CONTROLS}]", line) for line in variants):
            raise Invalid("it holds control characters; save it as UTF-8", code="bad_caption")
        if len(variants) > 1:
            remarks.append(f"its caption has {len(variants)} lines: each is a variant")
        return variants or [""], "; ".join(remarks) or None


class _Bounded:
    """A file that refuses large reads, because zipfile reads the whole list of a zip at once."""

    def __init__(self, file: IO[bytes], most: int):
        self._file, self._most = file, most

    def read(self, size: int = -1) -> bytes:
        if size > self._most:
            raise TooLarge("the zip holds far too many files; send fewer", code="zip_too_large")
        return self._file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _Limited:
    """A file that raises `TooLarge` once more than `most` bytes have been read."""

    def __init__(self, file: IO[bytes], most: int):
        self._file, self._left = file, most

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        self._left -= len(content)
        if self._left < 0:
            raise TooLarge("it unpacks to more than is allowed", code="zip_too_large")
        return content


@contextmanager
def _zip_errors(message: str = "the file can't be read as a zip", code: str = "not_a_zip") -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise Invalid(f"{message} ({type(error).__name__})", code=code) from error
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise Invalid(f"{message}: it points outside itself", code=code) from error


def _is_folder(info: zipfile.ZipInfo) -> bool:
    return info.orig_filename.endswith(("/", "\\"))


def _name(info: zipfile.ZipInfo) -> str:
    """The name as a path. Windows' packer writes backslashes."""
    return info.filename.replace("\\", "/")


def _check(info: zipfile.ZipInfo, max_picture_bytes: int) -> None:
    """Refuse suspicious entries. `orig_filename` is the name in the zip; `filename` ends at a NUL."""
    name = info.orig_filename.replace("\\", "/")
    odd = name.startswith("/") or ".." in name.split("/") or re.search(f"[{CONTROLS}]|^[A-Za-z]:", name)
    if odd or not name or len(name) > MAX_NAME_LENGTH:
        raise Invalid(f"the name {name[:50]!r} in the zip isn't a plain relative path", code="bad_zip_name")
    if info.external_attr >> 16 & 0o170000 == 0o120000:
        raise Invalid(f"{name} in the zip is a link; pack the file itself", code="bad_zip_name")
    if info.flag_bits & 1:
        raise Invalid("the zip has a password; pack it without one", code="not_a_zip")
    most = MAX_CAPTION_BYTES if _suffix(name) in CAPTIONS and not _not_taken(name) else max_picture_bytes
    if info.file_size > most or info.file_size > MAX_RATIO * max(info.compress_size, 100):
        raise TooLarge(f"{name} in the zip unpacks to more than is allowed; leave it out", code="zip_too_large")


def _not_taken(name: str) -> str | None:
    """Why a file of this name is left out. None for readable pictures and for texts."""
    *folders, file = name.split("/")
    if "__MACOSX" in folders or file.startswith(".") or file.lower() in OF_THE_SYSTEM:
        return "a file of the operating system"
    suffix = _suffix(name)
    if suffix not in FORMATS and suffix not in CAPTIONS:
        return "neither a picture nor a caption"
    if REGULARISATION.intersection(folder.lower() for folder in folders):
        return "a regularisation picture: the service draws its own (`prior_images`)"
    if PurePosixPath(file).stem.lower().endswith(MASKS):
        return "a mask: masks are not read"
    if _repeats(name) == 0:
        return "its folder has 0 repeats"
    if suffix in FORMATS and FORMATS[suffix] not in READ:
        return f"a picture as {FORMATS[suffix]}; save it as PNG, JPEG or WebP"
    return None


def _repeats(name: str) -> int:
    """How often a picture is drawn in an epoch: the number before its folder's name."""
    found = re.match(r"(\d{1,9})_", PurePosixPath(name).parent.name)
    return min(int(found[1]), MAX_REPEATS) if found else 1


def _is_utf16(content: bytes) -> bool:
    return content.startswith((b"\xff\xfe", b"\xfe\xff"))


def _is_unicode(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return _is_utf16(content)
    return True


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()
