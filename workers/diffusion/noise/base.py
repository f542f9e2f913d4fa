"""The common interface of all kinds of noise.

Each of them mixes a picture's latents x0 with Gaussian noise eps,

    x_t = alpha(t) x0 + sigma(t) eps

They differ in the times t, in alpha and sigma, and in what the denoiser predicts.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import diffusers
import torch
from torch import Tensor

# Name of a sampler -> its class in diffusers, and its settings.
Samplers = Mapping[str, tuple[str, Mapping[str, Any]]]


class Noise(ABC):
    """The noise that a base model was trained on. Training times are drawn on the CPU and used on the device."""

    samplers: ClassVar[Samplers]
    prediction_type: str  # what the denoiser predicts: epsilon, v_prediction or flow_prediction
    zero_terminal_snr: bool = False  # whether the last time is pure noise

    @abstractmethod
    def draw_times(self, count: int, generator: torch.Generator) -> Tensor:
        """Random times for training: (count,)."""

    @abstractmethod
    def scalings(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha(t) and sigma(t), in the shape of t."""

    @abstractmethod
    def target(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """What the denoiser should predict at times t (batch,)."""

    @abstractmethod
    def weight(self, t: Tensor, min_snr_gamma: float) -> Tensor:
        """The weight of the error at each time: (batch,)."""

    @abstractmethod
    def sampler(self, name: str, steps: int, device: torch.device) -> Sampler:
        """A new sampler of `samplers`, at its first step."""

    def add(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Latents with the noise of times t (batch,) added."""
        alpha, sigma = (expand(scaling, x0.ndim) for scaling in self.scalings(t))
        return alpha * x0 + sigma * eps

    def make_scheduler(self, name: str, config: Mapping[str, Any], **settings: Any) -> Any:
        """The noise scheduler of diffusers for the name of a sampler."""
        if name not in self.samplers:
            raise ValueError(f"unknown sampler {name!r}; use one of {', '.join(self.samplers)}")
        scheduler, its_own = self.samplers[name]
        return getattr(diffusers, scheduler).from_config(dict(config), **{**its_own, **settings})


class Sampler:
    """A noise scheduler of diffusers for one batch of pictures. Each of `times` takes one prediction and one step."""

    def __init__(self, scheduler: Any, steps: int, device: torch.device):
        scheduler.set_timesteps(steps, device=device)
        self.scheduler = scheduler
        self.times: Tensor = scheduler.timesteps
        self._draws_noise = "generator" in inspect.signature(scheduler.step).parameters
        self.begin(0)  # where the first two times are one, diffusers would begin with the second

    def start(self, noise: Tensor) -> Tensor:
        """The latents before the first step, from noise of variance 1."""
        return noise * self.scheduler.init_noise_sigma

    def begin(self, step: int) -> None:
        """Begin with this step, and leave out those before it. Call this before the other methods."""
        if hasattr(self.scheduler, "set_begin_index"):  # DDIM goes by times alone
            self.scheduler.set_begin_index(step)

    def noised(self, x0: Tensor, eps: Tensor, step: int) -> Tensor:
        """Latents of pictures as they are before the next step, which is `step`; before the last, little noise is left.

        Only after `begin`: diffusers' schedulers take the noise of the step that they have come to.
        """
        times = self.scheduler.timesteps[step].repeat(len(x0))
        noised: Tensor = self.scheduler.add_noise(x0, eps, times)
        return noised

    def scale(self, latents: Tensor, step: int) -> Tensor:
        """The latents, scaled as the denoiser's input."""
        return self.scheduler.scale_model_input(latents, self.scheduler.timesteps[step])

    def step(self, answer: Tensor, step: int, latents: Tensor, generators: list[torch.Generator]) -> Tensor:
        """The latents after a step (counted from 0), given the denoiser's prediction."""
        extra = {"generator": generators} if self._draws_noise else {}
        return self.scheduler.step(answer, self.scheduler.timesteps[step], latents, **extra, return_dict=False)[0]


def expand(scaling: Tensor, ndim: int) -> Tensor:
    """(batch,) -> (batch, 1, 1, ...), for multiplication with latents."""
    return scaling.view(-1, *[1] * (ndim - 1))


def spread(count: int, generator: torch.Generator) -> Tensor:
    """Uniform in [0, 1), one in each of `count` equal parts, so that small batches cover all amounts of noise."""
    return (torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count
