"""Files on their way into the store: cleaned first, and gone again if the request fails.

A file comes in the request itself, or the client posts it to the store by a form that we sign. Such a form is no
row: the slip that goes with it is sealed by us and says all that is to be known when the client comes back.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

from api import context
from shared import captions
from shared.errors import Conflict, Invalid, NotFound, TooLarge, Unavailable
from shared.ids import new_id
from shared.outside import pictures
from shared.outside.db import utcnow
from shared.settings import Settings

FORM_LIFE = timedelta(minutes=15)
COMPLETE_WITHIN = timedelta(hours=1)
AT_ONCE = 6  # requests of this process that bring or fetch pictures; more would leave no thread for the others

_counter = threading.BoundedSemaphore(AT_ONCE)


def store(content: bytes, project_id: str) -> dict[str, Any]:
    """Put a picture under a key made of our own ids. What is returned are columns of its image, and `notes`."""
    return store_all([content], project_id)[0]


def store_all(contents: list[bytes], project_id: str) -> list[dict[str, Any]]:
    """Put several, all or none."""
    context.release()
    stored = []
    with admitted(), ThreadPoolExecutor(pictures.AT_ONCE) as pool:
        for picture in pool.map(partial(_clean, context.runtime().settings), contents):
            stored.append(_put(picture, project_id))
    return stored


@contextmanager
def admitted() -> Iterator[None]:
    """Be one of the few requests of this process that handle many pictures."""
    if not _counter.acquire(blocking=False):
        raise Unavailable("too many pictures come and go at once; try again in a moment", code="busy_with_pictures")
    try:
        yield
    finally:
        _counter.release()


def _clean(limits: Settings, content: bytes) -> pictures.Picture:
    return pictures.clean(
        content, max_bytes=limits.max_upload_bytes, max_pixels=limits.max_image_pixels, min_side=limits.min_image_side
    )


def _put(picture: pictures.Picture, project_id: str) -> dict[str, Any]:
    storage = context.runtime().storage
    key = f"projects/{project_id}/images/{new_id('img')}.png"
    context.undo(partial(storage.delete, key))
    storage.put_bytes(key, picture.png, "image/png")
    return {
        "key": key,
        "sha256": picture.sha256,
        "size_bytes": len(picture.png),
        "width": picture.width,
        "height": picture.height,
        "notes": list(picture.notes),
    }


def offer(project_id: str, content_type: str, shows: dict[str, Any]) -> dict[str, Any]:
    """A signed form for one file, and the slip to come back with. `shows` are the image's view, framing and tags."""
    captions.check_allowed(*shows["tags"])
    runtime = context.runtime()
    key = f"incoming/{project_id}/{new_id('upl')}"
    form = runtime.storage.presigned_post(key, content_type, runtime.settings.max_upload_bytes, FORM_LIFE)
    until = utcnow() + COMPLETE_WITHIN
    slip = {"project_id": project_id, "key": key, "until": until.timestamp(), "shows": shows}
    return {
        "url": form.url,
        "fields": form.fields,
        "expires_at": utcnow() + FORM_LIFE,
        "slip": runtime.vault.seal(json.dumps(slip)),
        "project_id": project_id,
    }


def redeem(text: str, project_id: str) -> tuple[str, dict[str, Any]]:
    """The key that a slip is for, and what its picture shows."""
    try:
        slip = json.loads(context.runtime().vault.open(text))
    except Unavailable:
        slip = {}
    if slip.get("project_id") != project_id or slip["until"] < utcnow().timestamp():
        raise Invalid("this slip is none of ours, or too old; begin the upload anew", code="bad_slip")
    return slip["key"], slip["shows"]


def check_size(key: str) -> None:
    """Refuse a file that has not arrived, or that is too large."""
    runtime = context.runtime()
    context.release()
    try:
        size_bytes = runtime.storage.stat(key).size_bytes
    except NotFound:
        raise Conflict("nothing has arrived yet", code="not_uploaded") from None
    if size_bytes > runtime.settings.max_upload_bytes:
        raise TooLarge(f"{size_bytes} bytes are too many", code="picture_too_large")
