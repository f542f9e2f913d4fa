"""A file of a request on its way into the store: cleaned first, and gone again if the request fails."""

from __future__ import annotations

from typing import Any

from werkzeug.datastructures import FileStorage

from api import context
from shared import pictures
from shared.ids import new_id


def store(file: FileStorage, project_id: str) -> dict[str, Any]:
    """Put a picture under a key made of our own ids. What is returned are columns of its image."""
    runtime = context.runtime()
    limits = runtime.settings
    context.release()
    picture = pictures.clean(
        file.stream.read(limits.max_upload_bytes + 1),
        max_bytes=limits.max_upload_bytes,
        max_pixels=limits.max_image_pixels,
        min_side=limits.min_image_side,
    )
    key = f"projects/{project_id}/images/{new_id('img')}.png"
    context.undo(lambda: runtime.storage.delete(key))
    runtime.storage.put_bytes(key, picture.png, "image/png")
    return {
        "key": key,
        "sha256": picture.sha256,
        "size_bytes": len(picture.png),
        "width": picture.width,
        "height": picture.height,
    }
