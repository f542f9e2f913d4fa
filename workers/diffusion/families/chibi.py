"""Our own tiny base models: Stable Diffusion's parts at 64 pixels, small enough to train on a CPU."""

from __future__ import annotations

from typing import ClassVar

from workers.diffusion.families.sd15 import StableDiffusion15


class Chibi(StableDiffusion15):
    """Attention alone is too little of so small a UNet, and it has only ever seen squares."""

    architecture = "bootlora-chibi"
    default_modules = "all"
    aspects: ClassVar[tuple[float, ...]] = (1.0,)
