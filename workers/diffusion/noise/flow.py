"""Noise on a straight line from picture to noise (rectified flow, arXiv 2209.03003)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from workers.diffusion.noise.base import Noise, Sampler, Samplers, spread

# diffusers counts times of flow in thousandths.
SCALE = 1000

WITH_FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}


class Flow(Noise):
    """x_t = (1 - sigma) x0 + sigma eps. The time t is sigma, from 0 (the picture) to 1 (noise).

    Args:
        density: of the sigmas in training: "uniform", or "logit_normal" with most in the middle (arXiv 2403.03206)
        shift: a value above 1 moves this density and the samplers' steps towards noise, which large pictures need
        sign: +1 if the denoiser predicts eps - x0, -1 if it predicts x0 - eps
    """

    samplers: ClassVar[Samplers] = {
        "euler": ("FlowMatchEulerDiscreteScheduler", {}),
        "dpmpp_2m": ("DPMSolverMultistepScheduler", WITH_FLOW),
        "unipc": ("UniPCMultistepScheduler", WITH_FLOW),
    }
    prediction_type = "flow_prediction"

    def __init__(self, *, density: str = "logit_normal", shift: float = 1.0, sign: int = 1):
        if density not in ("uniform", "logit_normal"):
            raise ValueError(f"unknown density {density!r}; use uniform or logit_normal")
        self.density, self.shift, self.sign = density, shift, sign

    def draw_times(self, count: int, generator: torch.Generator) -> Tensor:
        u = spread(count, generator)
        sigma = u if self.density == "uniform" else torch.special.ndtri(u).sigmoid()
        return self.shift * sigma / (1 + (self.shift - 1) * sigma)

    def scalings(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return 1 - t, t

    def target(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        return self.sign * (eps - x0)

    def weight(self, t: Tensor, min_snr_gamma: float) -> Tensor:
        return torch.ones_like(t)  # the density of the times is the weighting

    def sampler(self, name: str, steps: int, device: torch.device) -> Sampler:
        shift = {"shift" if name == "euler" else "flow_shift": self.shift}
        scheduler = self.make_scheduler(name, {"num_train_timesteps": SCALE}, **shift)
        return FlowSampler(scheduler, steps, device, self.sign)


class FlowSampler(Sampler):
    """Gives sigmas to the denoiser, and eps - x0 to diffusers."""

    def __init__(self, scheduler: Any, steps: int, device: torch.device, sign: int):
        super().__init__(scheduler, steps, device)
        self.times = scheduler.sigmas[: len(scheduler.timesteps)].to(device)
        self.sign = sign

    def start(self, noise: Tensor) -> Tensor:
        return noise

    def noised(self, x0: Tensor, eps: Tensor, step: int) -> Tensor:
        sigma = self.times[step]
        return (1 - sigma) * x0 + sigma * eps

    def scale(self, latents: Tensor, step: int) -> Tensor:
        return latents

    def step(self, answer: Tensor, step: int, latents: Tensor, generators: list[torch.Generator]) -> Tensor:
        return super().step(self.sign * answer, step, latents, generators)
