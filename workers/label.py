"""What the file of a drawn picture says about how it was drawn: texts in its PNG.

`parameters` is the text that A1111 writes and that A1111, Forge and many galleries read. `bootlora` is JSON, for
programs. Both are for files outside the service. Inside it, the tables hold the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from shared import prompts
from shared.catalog.kinds import LoraInput
from shared.catalog.params import WantedPicture
from workers.diffusion.families.base import Family
from workers.diffusion.generate import ResolvedParams

NOT_IN_NAMES = re.compile(r"[:<>\r\n]")  # they end a name in a prompt


def texts(
    picture: WantedPicture, size: tuple[int, int], params: ResolvedParams, base: Family, loras: Sequence[LoraInput]
) -> dict[str, str]:
    """Texts of a PNG by their keys. `size` is that of the file, in pixels."""
    about = _about(picture, size, params, base, loras)
    return {"parameters": _as_a1111(about, base.kohya_clip_skip), "bootlora": json.dumps(about, ensure_ascii=False)}


def _about(
    picture: WantedPicture, size: tuple[int, int], params: ResolvedParams, base: Family, loras: Sequence[LoraInput]
) -> dict[str, Any]:
    original = picture.original
    return {
        "prompt": picture.prompt,
        "negative_prompt": params.negative_prompt,
        "prompt_syntax": params.prompt_syntax,
        "seed": picture.seed,
        "base_model": base.row.name,
        "base_sha256": base.row.sha256,
        "loras": [{"id": each.id, "name": each.name, "sha256": each.sha256, "weight": each.weight} for each in loras],
        "inference_steps": params.inference_steps,
        "sampler": params.sampler,
        "guidance_scale": params.guidance_scale,
        "clip_skip": params.clip_skip,
        "width": size[0],
        "height": size[1],
        "image": original.image_id if original else None,
        "strength": original.strength if original else None,
        "masked": bool(original and original.mask),
    }


def _as_a1111(about: dict[str, Any], clip_skip: int) -> str:
    """Prompt and LoRAs, then the negative prompt, then the rest in one line. `clip_skip` is its word for our 0."""

    def written(prompt: str) -> str:
        return prompts.escape(prompt) if about["prompt_syntax"] == "plain" else prompt

    loras = "".join(
        f" <lora:{NOT_IN_NAMES.sub('_', each['name'] or each['id'])}:{each['weight']:g}>" for each in about["loras"]
    )
    rest = {
        "Steps": about["inference_steps"],
        "Sampler": about["sampler"],
        "CFG scale": f"{about['guidance_scale']:g}",
        "Seed": about["seed"],
        "Size": f"{about['width']}x{about['height']}",
        "Model hash": about["base_sha256"][:10],
        "Model": about["base_model"],
        "Clip skip": about["clip_skip"] + clip_skip,
    }
    if about["strength"] is not None:
        rest["Denoising strength"] = f"{about['strength']:g}"
    lines = [written(about["prompt"]) + loras]
    if about["negative_prompt"]:
        lines.append(f"Negative prompt: {written(about['negative_prompt'])}")
    lines.append(", ".join(f"{name}: {value}" for name, value in rest.items()))
    return "\n".join(lines)
