"""Our own tiny base models: Stable Diffusion's parts at toy size, small enough to train on a CPU."""

from __future__ import annotations

from typing import ClassVar

import torch
from diffusers.models.attention_processor import AttnProcessor

from shared.catalog import BaseModel
from workers.diffusion.families.sd15 import StableDiffusion15


class Chibi(StableDiffusion15):
    """It draws squares only."""

    architecture = "bootlora-chibi"
    aspects: ClassVar[tuple[float, ...]] = (1.0,)
    decodes_in_fp32 = False  # in ours nothing comes near the bounds of fp16: 3300 of 65504, measured

    def __init__(self, row: BaseModel, device: str | torch.device | None = None):
        super().__init__(row, device)
        self.kohya_version = "bootlora_chibi"  # no tool but this project has a base model that its LoRAs fit
        if self.device.type == "cpu":
            # With so few tokens, torch's fused attention takes longer there than plain products, backwards above all.
            self.unet.set_attn_processor(AttnProcessor())
