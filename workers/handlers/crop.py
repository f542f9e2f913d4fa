"""Make several reference pictures out of one."""

from __future__ import annotations

from typing import Any

from PIL import Image

from workers import pictures
from workers.pictures import Crop
from workers.work import Work


def run(work: Work) -> dict[str, Any]:
    """Returns the crops: where they were taken, what they show, and where they are stored.

    A crop is flattened and enlarged to the base model's resolution here, once, so that people see what
    the training will see.
    """
    source = work.job.inputs["image"]
    image = work.image(source)
    wanted = _wanted(image, work.job.params)
    made = []
    for number, (crop, tags) in enumerate(wanted):
        picture = pictures.prepare(pictures.cut(image, crop.box), work.base_model.resolution)
        stored = work.store_image(f"crop-{number}.png", picture)
        view = crop.view or source["view"]
        made.append({**stored, "box": list(crop.box), "view": view, "framing": crop.framing, "tags": tags})
        work.step("cropping", number + 1, len(wanted))
    return {"crops": made}


def _wanted(image: Image.Image, params: dict[str, Any]) -> list[tuple[Crop, list[str]]]:
    if params["mode"] == "quadrants":
        return [(crop, []) for crop in pictures.quadrants(image)]
    if params["mode"] == "auto":
        return [(crop, []) for crop in pictures.auto(image)]
    return [
        (Crop(tuple(each["box"]), each.get("framing"), each.get("view")), each.get("tags") or [])
        for each in params["boxes"]
    ]
