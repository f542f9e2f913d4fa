"""Make several reference pictures out of one."""

from __future__ import annotations

from typing import Any

from workers import pictures
from workers.work import Work


def run(work: Work) -> dict[str, Any]:
    """Returns the crops: where they were taken, what they show, and where they are stored."""
    params, source = work.job.params, work.job.inputs["image"]
    image = work.image(source)
    crops = []
    for number, crop in enumerate(pictures.crops(image, params["mode"], params.get("boxes") or [])):
        stored = work.store_image(f"crop-{number}.png", pictures.cut(image, crop.box))
        crops.append({
            **stored, "box": list(crop.box), "view": crop.view or source["view"], "framing": crop.framing,
            "tags": list(crop.tags),
        })  # fmt: skip
        work.step("cropping", number + 1, len(crops))
    return {"crops": crops}
