"""Take in a picture that a client has posted to the store."""

from __future__ import annotations

from typing import Any

from shared import pictures
from workers.work import Work


def run(work: Work) -> dict[str, Any]:
    """Returns where the picture is stored, as it was written anew. What the client posted is deleted."""
    key = work.job.inputs["key"]
    done: dict[str, Any] = (work.job.checkpoint or {}).get("images", {})
    if not done:
        done = {"0": _taken_in(work, key)}
        work.save_checkpoint({"images": done})  # before what it was made of is deleted
    work.forget({"key": key})
    return {"image": done["0"]}


def _taken_in(work: Work, key: str) -> dict[str, Any]:
    limits = work.runtime.settings
    picture = pictures.clean(
        work.fetch({"key": key}).read_bytes(),
        max_bytes=limits.max_upload_bytes,
        max_pixels=limits.max_image_pixels,
        min_side=limits.min_image_side,
    )
    path = work.folder / "picture.png"
    path.write_bytes(picture.png)
    return {**work.store(path.name, path, "image/png"), "width": picture.width, "height": picture.height}
