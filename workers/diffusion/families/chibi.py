"""Our own tiny base models: Stable Diffusion's parts at 64 pixels, small enough to train on a CPU."""

from __future__ import annotations

from typing import ClassVar

from workers.diffusion.families.sd15 import StableDiffusion15


class Chibi(StableDiffusion15):
    """Its LoRAs are on all modules unless told otherwise, for attention is little of so small a UNet; squares only."""

    architecture = "bootlora-chibi"
    default_modules = "all"
    aspects: ClassVar[tuple[float, ...]] = (1.0,)
