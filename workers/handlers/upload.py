"""Check, re-encode and store a picture that a client has uploaded to the store."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from shared.catalog.kinds import StoredImage, UploadInputs, UploadParams, UploadResult
from shared.outside import pictures
from workers.work import Work


def run(work: Work[UploadParams, UploadInputs]) -> UploadResult:
    """Store the re-encoded picture, return its object, and delete the client's upload."""
    key = work.inputs.key
    done: dict[str, Any] = work.job.checkpoint or {}
    if not done.get("images"):
        image, notes = _cleaned(work, key)
        done = {"images": {"0": asdict(image)}, "notes": notes}
        work.save_checkpoint(done)  # before the upload is deleted
    work.forget(key)
    return UploadResult(image=StoredImage(**done["images"]["0"]), notes=done.get("notes", []))


def _cleaned(work: Work[UploadParams, UploadInputs], key: str) -> tuple[StoredImage, list[str]]:
    limits = work.runtime.settings
    picture = pictures.clean(
        work.fetch(key).read_bytes(),
        max_bytes=limits.max_upload_bytes,
        max_pixels=limits.max_image_pixels,
        min_side=limits.min_image_side,
    )
    path = work.folder / "picture.png"
    path.write_bytes(picture.png)
    stored = work.store(path.name, path, "image/png")
    return StoredImage(**asdict(stored), width=picture.width, height=picture.height), list(picture.notes)
