"""Draw pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from shared.catalog.kinds import DrawnImage, GenerateInputs, GenerateResult, StoredImage
from shared.catalog.params import GenerateParams, Original, WantedPicture
from shared.errors import JobFailed
from shared.lora_files.kinds import BadLora
from workers import label
from workers.diffusion.generate import generate, resolve
from workers.handlers import base
from workers.work import Work


def run(work: Work[GenerateParams, GenerateInputs]) -> GenerateResult:
    """Draw the pictures. Returns each with its prompt and seed. Pictures that an earlier attempt stored are kept."""
    params, pictures = work.params, work.inputs.pictures
    family = base.load(work)
    done: dict[str, dict[str, Any]] = dict((work.job.checkpoint or {}).get("images", {}))
    left = [index for index in range(len(pictures)) if str(index) not in done]
    base.report_cut_texts(work, family, [each.prompt for each in pictures] + [params.negative_prompt or ""])
    adapters = [(work.fetch(each.key, each.sha256), each.weight) for each in work.inputs.loras]
    fetch_originals(work, [pictures[index].original for index in left])
    resolved = resolve(params, family)
    work.begin("generating")

    def on_step(step: int, total: int) -> None:
        work.step("generating", step, total, images_done=len(done), images_total=len(pictures))

    drawing = generate(
        family,
        [pictures[i] for i in left],
        params,
        loras=adapters,
        open_picture=work.image,
        on_step=on_step,
    )
    try:
        for position, image in drawing:
            index = left[position]
            about = label.texts(pictures[index], image.size, resolved, family, work.inputs.loras)
            stored = work.store_image(f"{index:04}.png", image, about)
            done[str(index)] = asdict(drawn(stored, pictures[index]))
            work.save_checkpoint({"images": done})  # after each picture, so that a retry does not draw it again
    except BadLora as error:
        raise JobFailed("lora_unusable", f"a LoRA can't be used with {family.row.name}: {error}") from error
    except torch.OutOfMemoryError as error:
        raise JobFailed("gpu_oom", "the GPU has too little memory; use a smaller batch_size", retryable=True) from error
    base.check_unchanged(work)
    return GenerateResult(images=[DrawnImage(**done[str(index)]) for index in range(len(pictures))])


def fetch_originals(work: Work[GenerateParams, GenerateInputs], originals: Sequence[Original | None]) -> None:
    """Download what pictures are drawn from, before any is drawn.

    Raises:
        JobFailed: an original or a mask is gone or damaged; the message names the image.
    """
    for original in filter(None, originals):
        for noun, stored in (("image", original.image), ("mask of image", original.mask)):
            try:
                if stored:
                    work.fetch(stored.key, stored.sha256)
            except JobFailed as error:
                raise JobFailed(error.code, f"{noun} {original.image_id}: {error}") from error


def drawn(stored: StoredImage, picture: WantedPicture) -> DrawnImage:
    """A picture of the result."""
    return DrawnImage(
        **asdict(stored),
        prompt=picture.prompt,
        seed=picture.seed,
        view=picture.view,
        framing=picture.framing,
        parent_id=picture.original.image_id if picture.original else None,
    )
