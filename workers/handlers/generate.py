"""Draw pictures."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from shared.errors import JobFailed
from shared.params import GenerateParams, Picture
from workers.diffusion.generate import generate
from workers.handlers import base
from workers.work import Work


def run(work: Work) -> dict[str, Any]:
    """Returns every picture with its prompt and seed. Pictures that an earlier attempt stored are not drawn again."""
    pictures = [Picture(**each) for each in work.job.inputs["pictures"]]
    done: dict[str, dict[str, Any]] = dict((work.job.checkpoint or {}).get("images", {}))
    left = [index for index in range(len(pictures)) if str(index) not in done]
    params = GenerateParams(**work.job.params)
    family = base.load(work)
    base.report_cut_texts(work, family, [each.prompt for each in pictures] + [params.negative_prompt or ""])
    adapters = [(work.fetch(each), each["weight"]) for each in work.job.inputs["loras"]]
    work.next_stage()

    def on_step(step: int, total: int) -> None:
        work.step("generating", step, total, images_done=len(done), images_total=len(pictures))

    drawing = generate(family, [pictures[i] for i in left], params, loras=adapters, on_step=on_step)
    try:
        for position, image in drawing:
            index = left[position]
            done[str(index)] = _store(work, index, pictures[index], image)
            work.save_checkpoint({"images": done})  # after each picture: what is stored is never drawn again
    except torch.OutOfMemoryError as error:
        raise JobFailed(
            "gpu_oom", "the card has too little memory; use a smaller batch_size", retryable=True
        ) from error
    return {"images": [done[str(index)] for index in range(len(pictures))]}


def _store(work: Work, index: int, picture: Picture, image: Image.Image) -> dict[str, Any]:
    stored = work.store_image(f"{index:04}.png", image)
    return {
        **stored,
        "prompt": picture.prompt,
        "seed": picture.seed,
        "view": picture.view,
        "framing": picture.framing,
    }
