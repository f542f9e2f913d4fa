"""Checks of the addresses in the settings. They refuse a part that would be ignored.

Every function raises a `ValueError` that says what is wrong and what to do. No message quotes an address, which may
contain a password.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

# The folders of a store. Clients post to the second one; the third has the LoRAs that users bring.
FOLDERS = ("projects", "incoming", "imported-loras")
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
SEGMENT = re.compile(r"[A-Za-z0-9._-]+")
PREFIX_LENGTH = 200  # of the 1024 bytes of a key; our own keys take less than 200
BROKERS = ("redis", "rediss", "redis+socket", "memory")  # the last one in unit tests
DATABASES = ("sqlite", "postgresql+psycopg")


@dataclass(frozen=True, kw_only=True)
class Store:
    """A bucket and the prefix of all keys in it, or a folder."""

    bucket: str = ""
    prefix: str = ""  # without slashes around it; empty for the whole bucket
    folder: Path | None = None


def store(url: str) -> Store:
    """`s3://BUCKET[/PREFIX]` or `file:///FOLDER`."""
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc and len(parts.path) > 1:
        return Store(folder=Path(parts.path))
    if parts.scheme != "s3" or not parts.netloc:
        raise ValueError("it is neither s3://BUCKET[/PREFIX] nor file:///FOLDER (three slashes)")
    if not BUCKET.fullmatch(parts.netloc):
        raise ValueError("its bucket must be 3 to 63 of a-z, 0-9, '.' and '-'; keys and endpoint have other settings")
    if parts.query or parts.fragment:
        raise ValueError("after s3://BUCKET/PREFIX nothing may follow; take out '?', '#' and what comes after")
    return Store(bucket=parts.netloc, prefix=_prefix(parts.path))


def _prefix(path: str) -> str:
    prefix = path.removeprefix("/").removesuffix("/")
    segments = prefix.split("/") if prefix else []
    for segment in segments:
        if not SEGMENT.fullmatch(segment) or segment in {".", ".."}:
            raise ValueError("each part of its prefix must be made of A-Z, a-z, 0-9, '.', '_' and '-', and not be '..'")
        if segment in FOLDERS:
            raise ValueError(f"its prefix must not contain {segment!r}, where an installation above keeps its objects")
    if len(prefix) > PREFIX_LENGTH:
        raise ValueError(f"its prefix must be at most {PREFIX_LENGTH} characters long")
    return prefix


def store_server(url: str) -> SplitResult:
    """`http(s)://HOST[:PORT]`. A signature covers the whole path, so a store can't be below one."""
    parts = _web(url)
    if parts.path not in {"", "/"}:
        raise ValueError(
            "it must be http(s)://HOST[:PORT] without a path: links signed for a path lead nowhere. "
            "Give the store a host name or a port of its own"
        )
    return parts


def service(url: str) -> SplitResult:
    """`http(s)://HOST[:PORT][/PATH]`: what the API's own links begin with."""
    return _web(url)


def _web(url: str) -> SplitResult:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or re.search(r"\s", url):
        raise ValueError("it must be http(s)://HOST[:PORT]")
    if not _has_port(parts):
        raise ValueError("its port must be a number from 1 to 65535")
    if parts.username is not None or parts.password is not None:
        raise ValueError("it must not name a user or a password")
    if "?" in url or "#" in url:
        raise ValueError("it must not have a query or a fragment; take out '?', '#' and what comes after")
    return parts


def _has_port(parts: SplitResult) -> bool:
    """Whether its port is left out or is one that can be reached."""
    try:
        return parts.port != 0
    except ValueError:
        return False


def broker(url: str) -> str:
    """`redis://[:PASSWORD@]HOST[:PORT][/NUMBER]`, or `rediss` for TLS."""
    for each in url.split(";"):  # Celery tries one after the other
        parts = urlsplit(each)
        if parts.scheme not in BROKERS:
            raise ValueError("it must be redis://[:PASSWORD@]HOST[:PORT][/NUMBER], or rediss:// for TLS")
        if "#" in each:
            raise ValueError("it must not have a '#'; in a password write %23")
        if parts.scheme in {"redis", "rediss"} and not (_has_port(parts) and re.fullmatch(r"(/\d*)?", parts.path)):
            raise ValueError("after HOST[:PORT] only the number of a database may come; in a password write '/' as %2F")
    return url


def database(url: str) -> str:
    """`sqlite:////FOLDER/FILE` or `postgresql+psycopg://...`."""
    scheme = url.partition(":")[0]
    if scheme not in DATABASES:
        raise ValueError("it must be sqlite:////FOLDER/FILE or postgresql+psycopg://USER:PASSWORD@HOST/NAME")
    return url
