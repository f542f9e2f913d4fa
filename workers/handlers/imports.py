"""Import the pictures of a zip that a client has uploaded."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from shared import archives, captions, records
from shared.archives import Archive, Found
from shared.catalog.kinds import (
    IMPORT,
    IMPORT_OUTCOMES,
    ImportedFile,
    ImportedImage,
    ImportInputs,
    ImportParams,
    ImportResult,
)
from shared.errors import BootloraError, Invalid, TooLarge
from shared.ids import new_id
from shared.outside import pictures
from workers.work import PNG, Work

TAKEN, LEFT_OUT, REFUSED = IMPORT_OUTCOMES


def run(work: Work[ImportParams, ImportInputs]) -> ImportResult:
    """Store the re-encoded pictures, return them with the outcome of each file, and delete the zip.

    Valid pictures are imported. If there are none, the job fails with the reason of the first refusal.
    """
    known: dict[str, Any] = work.job.checkpoint or {}
    if "files" not in known:
        known = _import(work)
    work.forget(work.inputs.key)
    images = [known["images"][name] for name in sorted(known["images"])]  # Postgres keeps them in another order
    return records.read(ImportResult, {"images": images, "files": known["files"]})


def _import(work: Work[ImportParams, ImportInputs]) -> dict[str, Any]:
    """Import the pictures. Returns the last checkpoint: the images by file name, and the outcome of each file."""
    limits = work.runtime.settings
    done: dict[str, Any] = dict((work.job.checkpoint or {}).get("images", {}))
    with work.fetch(work.inputs.key).open("rb") as file:
        archive = archives.opened(file, limits)
        files = [ImportedFile(name=name, outcome=LEFT_OUT, reason=why) for name, why in archive.left_out.items()]
        before = sum(image["width"] * image["height"] for image in done.values())
        budget = Budget(limits.max_pixels_per_import, limits.max_image_pixels, before)
        for number, found in enumerate(archive.pictures(), 1):
            try:
                if found.name not in done:
                    done[found.name] = asdict(_picture(work, archive, found, number, budget))
                    work.save_checkpoint({"images": done})
            except (Invalid, TooLarge) as error:
                files.append(ImportedFile(name=found.name, outcome=REFUSED, reason=error.message, code=error.code))
            else:
                image = done[found.name]
                remarks = "; ".join([*filter(None, [found.remark]), *image["notes"]]) or None
                files.append(ImportedFile(name=found.name, outcome=TAKEN, reason=remarks, image_id=image["id"]))
            work.step(IMPORT.verb, number, len(archive.names))
    if not done:
        first = next(each for each in files if each.outcome == REFUSED)
        raise Invalid(f"no picture of the zip could be imported; {first.name}: {first.reason}", code=first.code)
    state = {"images": done, "files": [asdict(each) for each in sorted(files, key=lambda each: each.name)]}
    work.save_checkpoint(state)  # before the zip is deleted
    return state


class Budget:
    """How many pixels may still be decoded for this import. A broken picture counts as one of the largest."""

    def __init__(self, pixels: int, largest: int, before: int = 0):
        self._all, self._left, self._largest = pixels, max(0, pixels - before), largest

    def clean(self, content: bytes, limits: Any) -> pictures.Picture:
        """Decode a picture, and count its pixels.

        Raises:
            Invalid: the file can't be read as a picture.
            TooLarge: the picture is too large, or the import has too few pixels left for it.
        """
        largest = min(self._largest, self._left)
        if largest == 0:
            raise self._used_up()
        try:
            picture = pictures.clean(
                content, max_bytes=limits.max_upload_bytes, max_pixels=largest, min_side=limits.min_image_side
            )
        except BootloraError as error:
            if error.code == "not_a_picture":
                self._left = max(0, self._left - self._largest)
            if isinstance(error, TooLarge) and largest < self._largest:
                raise self._used_up() from error
            raise
        self._left -= picture.width * picture.height
        return picture

    def _used_up(self) -> TooLarge:
        message = f"the pictures of one import may have {self._all} pixels together; send the rest in another zip"
        return TooLarge(message, code="too_many_pixels")


def _picture(
    work: Work[ImportParams, ImportInputs], archive: Archive, found: Found, number: int, budget: Budget
) -> ImportedImage:
    """Unpack one picture to the disk, decode it and store it."""
    if found.fault:
        raise Invalid(found.fault, code="bad_caption")
    for caption in found.captions or []:
        captions.check_allowed(*work.inputs.words, caption)
    path = work.folder / "picture"
    archive.unpack(found.name, path)
    picture = budget.clean(path.read_bytes(), work.runtime.settings)
    path.write_bytes(picture.png)
    stored = work.store(f"{number:04}.png", path, PNG)
    return ImportedImage(
        **asdict(stored),
        width=picture.width,
        height=picture.height,
        id=new_id("img"),
        captions=found.captions,
        repeats=found.repeats,
        notes=list(picture.notes),
    )
