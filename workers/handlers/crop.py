"""Make several reference pictures out of one."""

from __future__ import annotations

from dataclasses import asdict

from PIL import Image

from shared.catalog import kinds
from shared.catalog.kinds import CropInputs, CropParams, CropResult, CutImage
from shared.errors import JobFailed
from workers import pictures
from workers.pictures import Crop
from workers.work import Work

MIN_SIDE = 4  # pixels of a crop that was guessed


def run(work: Work[CropParams, CropInputs]) -> CropResult:
    """Crop the picture. Returns each crop's box, view, framing, tags and stored object.

    Crops are flattened and enlarged to the base model's resolution here, so that people see exactly what is trained on.
    """
    source = work.inputs.image
    image = work.image(source)
    wanted = _wanted(image, work.params)
    made = []
    for number, (crop, tags) in enumerate(wanted):
        picture = pictures.prepare(pictures.cut(image, crop.box), work.base_model.resolution)
        stored = work.store_image(f"crop-{number}.png", picture)
        view, box = crop.view or source.view, list(crop.box)
        made.append(CutImage(**asdict(stored), box=box, view=view, framing=crop.framing, tags=tags))
        work.step(kinds.CROP.verb, number + 1, len(wanted))
    return CropResult(crops=made)


def _wanted(image: Image.Image, params: CropParams) -> list[tuple[Crop, list[str]]]:
    if params.mode == "quadrants":
        return [(crop, []) for crop in pictures.quadrants(image)]
    if params.mode == "auto":
        crops = pictures.auto(image)
        if any(min(right - left, bottom - top) < MIN_SIDE for left, top, right, bottom in (each.box for each in crops)):
            raise JobFailed(
                "figure_too_small", "the figure is only a few pixels large; say what to crop by mode `boxes`"
            )
        return [(crop, []) for crop in crops]
    return [(Crop(tuple(each.box), each.framing, each.view), each.tags) for each in params.boxes]  # type: ignore[arg-type]
