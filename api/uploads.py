"""Uploads of files into the store. If the request fails, they are deleted again.

A file is sent in the request itself, or the client posts it to the store with a signed form. Such a form has no row.
Its encrypted slip contains everything that is needed to complete the upload.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import PurePosixPath
from typing import IO, Any, cast

from werkzeug.datastructures import FileStorage

from api import context
from shared import archives, captions, loras
from shared.errors import BootloraError, Conflict, Invalid, NotFound, TooLarge, Unavailable
from shared.ids import new_id
from shared.outside import pictures
from shared.outside.db import utcnow
from shared.settings import Settings
from shared.texts import slug

FORM_LIFE = timedelta(minutes=15)
PIECE_BYTES = 1 << 20
COMPLETE_WITHIN = timedelta(hours=1)
AT_ONCE = 8  # requests of this process that carry pictures; more would leave no threads for others
EACH = 2  # of them for one user
MAX_MASKS = 8  # in one request; each is decoded while the client waits


class Places:
    """Limits the requests that carry pictures at once, for each user and in total."""

    def __init__(self, at_once: int = AT_ONCE, each: int = EACH):
        self._at_once, self._each = at_once, each
        self._held: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def held(self, user_id: str) -> Iterator[None]:
        """Hold a place.

        Raises:
            Unavailable: the user has no free place, or this process has none.
        """
        with self._lock:
            if self._held[user_id] >= self._each or self._held.total() >= self._at_once:
                raise Unavailable(
                    f"too many requests with pictures are being processed ({self._at_once} are allowed, {self._each} "
                    "of each user); try again in a moment",
                    code="busy_with_pictures",
                )
            self._held[user_id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._held -= Counter({user_id: 1})


_places = Places()


def admitted() -> Any:
    """Hold one of the places for requests that carry pictures."""
    return _places.held(context.user().id)


def store(content: bytes, project_id: str) -> dict[str, Any]:
    """Decode and store a picture. Returns the columns of its image, and `notes`."""
    limits, place = context.runtime().settings, admitted()
    context.release()
    with place:
        picture = pictures.clean(
            content,
            max_bytes=limits.max_upload_bytes,
            max_pixels=limits.max_image_pixels,
            min_side=limits.min_image_side,
            unwanted=partial(context.is_closed, context.connection()),
        )
        return _put(picture, project_id)


def store_masks(wanted: list[dict[str, Any]], project_id: str, *, keep: bool) -> None:
    """Decode the masks of pictures that are to be drawn. Each becomes its key, SHA-256 and size, for the job.

    Without `keep` they are checked only, and have no key.
    """
    given = {each["mask"]: number for number, each in reversed(list(enumerate(wanted))) if each["mask"] is not None}
    if len(given) > MAX_MASKS:
        raise Invalid(f"{len(given)} masks are more than the {MAX_MASKS} of one job", code="too_many_masks")
    if not given:
        return
    limits, place = context.runtime().settings, admitted()
    context.release()
    with place:
        kept = {content: _mask(content, number, project_id, limits, keep) for content, number in given.items()}
    for each in wanted:
        each["mask"] = kept.get(each["mask"])


def _mask(content: bytes, number: int, project_id: str, limits: Settings, keep: bool) -> dict[str, Any]:
    try:
        picture = pictures.clean(
            content,
            max_bytes=limits.max_upload_bytes,
            max_pixels=limits.max_image_pixels,
            min_side=1,  # that of the image counts
            as_mask=True,
            unwanted=partial(context.is_closed, context.connection()),
        )
    except BootloraError as error:
        for each in error.errors:
            each["pointer"] = f"/pictures/{number}/mask"
        raise
    key = ""
    if keep:
        storage, key = context.runtime().storage, f"incoming/{project_id}/{new_id('upl')}"
        context.undo(partial(storage.delete, key))
        storage.put_bytes(key, picture.png, "image/png")
    return {"key": key, "sha256": picture.sha256, "width": picture.width, "height": picture.height}


def store_zip(file: IO[bytes], project_id: str) -> tuple[str, int]:
    """Store a zip for its job, after reading its list of files. Returns its key and its number of pictures."""
    runtime, place = context.runtime(), admitted()
    context.release()
    with place:
        count = len(archives.opened(file, runtime.settings).names)
        key = f"incoming/{project_id}/{new_id('upl')}"
        context.undo(partial(runtime.storage.delete, key))
        runtime.storage.put_from(key, file, "application/zip")
    return key, count


def store_lora(upload: FileStorage, family: str | None) -> dict[str, Any]:
    """Check a LoRA file and store it. Returns the columns of its row; of a file that the user has, `sha256` alone."""
    runtime, place, user_id = context.runtime(), admitted(), context.user().id
    limits, file = runtime.settings, cast("IO[bytes]", upload.stream)
    filename = PurePosixPath((upload.filename or "").replace("\\", "/")).name
    context.release()
    with place:
        size_bytes = file.seek(0, os.SEEK_END)
        if size_bytes > limits.max_lora_bytes:
            raise TooLarge(
                f"the LoRA has {size_bytes} bytes, and {limits.max_lora_bytes} are allowed; save it as fp16 or with a "
                "lower rank",
                code="lora_too_large",
            )
        columns = loras.columns_of(file, filename, family=family, settings=limits)
        sha256 = _sha256(file)
        if loras.same_file(context.reading(), user_id, sha256) is not None:
            return {"sha256": sha256}
        context.release()
        id_ = new_id("lor")
        key = f"imported-loras/{user_id}/{id_}.safetensors"
        context.undo(partial(runtime.storage.delete, key))
        stored = runtime.storage.put_from(key, file)
    filename = f"{slug(PurePosixPath(filename).stem) or 'lora'}.safetensors"
    stored_as = {"key": key, "filename": filename, "sha256": stored.sha256, "size_bytes": stored.size_bytes}
    return {"id": id_, **columns, **stored_as}


def _sha256(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    while piece := file.read(PIECE_BYTES):
        digest.update(piece)
    return digest.hexdigest()


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
    """A signed form for one file, and the slip to complete it. `shows` are the image's view, framing and tags."""
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
    """The object's key and the image's view, framing and tags, from a slip."""
    try:
        slip = json.loads(context.runtime().vault.open(text))
    except Unavailable:
        slip = {}
    if slip.get("project_id") != project_id or slip["until"] < utcnow().timestamp():
        raise Invalid("the slip is not valid or has expired; start the upload again", code="bad_slip")
    return slip["key"], slip["shows"]


def check_size(key: str) -> None:
    """Refuse a file that has not arrived, or that is too large."""
    runtime = context.runtime()
    context.release()
    try:
        size_bytes = runtime.storage.stat(key).size_bytes
    except NotFound:
        raise Conflict("the file is not in the store; post it with the form first", code="not_uploaded") from None
    if size_bytes > runtime.settings.max_upload_bytes:
        raise TooLarge(
            f"the file has {size_bytes} bytes, and {runtime.settings.max_upload_bytes} are allowed",
            code="picture_too_large",
        )
