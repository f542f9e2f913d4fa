"""Sampler names and what they are in diffusers."""

from __future__ import annotations

from typing import Any

import diffusers

from workers.diffusion.families.base import Family

# Latents have no fixed range, so nothing may be clipped to one.
UNCLIPPED = {"clip_sample": False, "thresholding": False}

SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", UNCLIPPED | {"set_alpha_to_one": False}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", UNCLIPPED),
    "dpmpp_2m_karras": ("DPMSolverMultistepScheduler", UNCLIPPED | {"use_karras_sigmas": True}),
    "unipc": ("UniPCMultistepScheduler", UNCLIPPED),
}


def make(name: str, base: Family) -> Any:
    """A fresh noise scheduler on the base's own schedule and prediction type."""
    if name not in SAMPLERS:
        raise ValueError(f"unknown sampler {name!r}; use one of {', '.join(SAMPLERS)}")
    scheduler, settings = SAMPLERS[name]
    return getattr(diffusers, scheduler).from_config(
        base.noise_config, prediction_type=base.prediction_type, **settings
    )
