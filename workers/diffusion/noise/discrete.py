"""Noise at a fixed number of timesteps (DDPM, arXiv 2006.11239), as in Stable Diffusion 1.x, 2.x and SDXL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from workers.diffusion.noise.base import Noise, Sampler, Samplers, expand, spread

# Latents have no fixed range, so samplers must not clip them.
UNCLIPPED = {"clip_sample": False, "thresholding": False}


class Discrete(Noise):
    """alpha(t)^2 + sigma(t)^2 = 1 at t = 0 ... T - 1. The denoiser predicts epsilon or v (arXiv 2202.00512)."""

    samplers: ClassVar[Samplers] = {
        "ddim": ("DDIMScheduler", UNCLIPPED | {"set_alpha_to_one": False}),
        "euler": ("EulerDiscreteScheduler", {}),
        "euler_a": ("EulerAncestralDiscreteScheduler", {}),
        "dpmpp_2m": ("DPMSolverMultistepScheduler", UNCLIPPED),
        "dpmpp_2m_karras": ("DPMSolverMultistepScheduler", UNCLIPPED | {"use_karras_sigmas": True}),
        "unipc": ("UniPCMultistepScheduler", UNCLIPPED),
    }

    def __init__(self, config: Mapping[str, Any], device: torch.device):
        """Read betas, prediction type and zero terminal SNR from the config of any noise scheduler of diffusers."""
        schedule: Any = DDPMScheduler.from_config(dict(config))
        self.config = config
        self.prediction_type = schedule.config.prediction_type
        self.zero_terminal_snr = bool(schedule.config.rescale_betas_zero_snr)
        self.alphas_cumprod = schedule.alphas_cumprod.to(device)  # alpha(t)^2 of every t
        if self.prediction_type not in ("epsilon", "v_prediction"):
            raise ValueError(f"a base model can predict epsilon or v_prediction, not {self.prediction_type}")
        if self.zero_terminal_snr and self.prediction_type == "epsilon":
            raise ValueError(
                "a base model with zero terminal SNR must predict v, since eps is useless at the last timestep"
            )

    def draw_times(self, count: int, generator: torch.Generator) -> Tensor:
        timesteps = len(self.alphas_cumprod)
        return (spread(count, generator) * timesteps).long().clamp(max=timesteps - 1)

    def scalings(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.alphas_cumprod[t].sqrt(), (1 - self.alphas_cumprod[t]).sqrt()

    def target(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        if self.prediction_type == "epsilon":
            return eps
        alpha, sigma = (expand(scaling, x0.ndim) for scaling in self.scalings(t))
        return alpha * eps - sigma * x0

    def weight(self, t: Tensor, min_snr_gamma: float) -> Tensor:
        # min-SNR (arXiv 2303.09556) balances epsilon's loss. With v, it would nearly remove the loss at high noise,
        # which decides colours and layout, so all timesteps have the same weight.
        if self.prediction_type != "epsilon" or min_snr_gamma <= 0:
            return torch.ones_like(t, dtype=torch.float32)
        snr = self.alphas_cumprod[t] / (1 - self.alphas_cumprod[t])
        return snr.clamp(max=min_snr_gamma) / snr

    def sampler(self, name: str, steps: int, device: torch.device) -> Sampler:
        # With zero terminal SNR the first step must be at the last timestep (arXiv 2305.08891).
        spacing = {"timestep_spacing": "trailing"} if self.zero_terminal_snr else {}
        scheduler = self.make_scheduler(name, self.config, prediction_type=self.prediction_type, **spacing)
        return Sampler(scheduler, steps, device)
