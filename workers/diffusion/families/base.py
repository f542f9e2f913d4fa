"""What a family of base models must be able to do, so that the loops need not know which one they drive."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor, nn

from models.arithmetic import bf16_is_faster
from shared.catalog import BaseModel

# What the denoiser is told besides the noisy latents: named tensors, one row for each text.
Conditioning = dict[str, Tensor]


class Family(ABC):
    """One base model, loaded and frozen. Training and generation leave it as they found it."""

    row: BaseModel  # its row of the catalog
    device: torch.device
    dtype: torch.dtype  # of its weights; fp32 on a CPU, bf16 on a CUDA card
    prediction_type: str  # epsilon or v_prediction
    architecture: str  # as modelspec.architecture names it, without "/lora"
    kohya_version: str  # as ss_base_model_version names it
    kohya_prefixes: ClassVar[Mapping[str, str]]  # component -> how kohya's key names begin

    # components

    @property
    @abstractmethod
    def components(self) -> Mapping[str, nn.Module]:
        """The modules that a LoRA may change, by diffusers' names; the denoiser comes first."""

    @property
    def denoiser(self) -> nn.Module:
        """The module that is called at every step."""
        return next(iter(self.components.values()))

    @abstractmethod
    def lora_targets(self, component: str, modules: str | None) -> list[str]:
        """Full paths of the submodules that carry the LoRA; `modules` is a name of catalog.LORA_MODULES."""

    @abstractmethod
    def gradient_checkpointing(self, component: str, enabled: bool) -> None:
        """Trade time for memory in the backward pass."""

    # pictures

    @abstractmethod
    def sizes(self, resolution: int | None) -> list[tuple[int, int]]:
        """Widths and heights that pictures are fitted to; each makes a bucket of its own."""

    @abstractmethod
    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:
        """Shape of the latents of a picture: (channels, height, width)."""

    @abstractmethod
    def encode_images(self, images: Sequence[Image.Image]) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents of pictures of one size, in the denoiser's scale."""

    @abstractmethod
    def decode(self, latents: Tensor) -> list[Image.Image]:
        """The pictures that latents stand for."""

    # texts

    @abstractmethod
    def encode_prompts(self, texts: Sequence[str], clip_skip: int = 0) -> Conditioning:
        """What the denoiser wants to know of each text. Gradients flow where they are enabled."""

    @abstractmethod
    def unread(self, text: str) -> str:
        """The end of a text that is too long for the text encoder; empty if it reads all of it."""

    # noise

    @property
    @abstractmethod
    def noise_config(self) -> Mapping[str, Any]:
        """diffusers' settings of the noise schedule that the base was trained on, prediction type included."""

    @property
    @abstractmethod
    def train_timesteps(self) -> int:
        """How many timesteps that schedule has."""

    @abstractmethod
    def noised(self, x0: Tensor, eps: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Latents with noise of timestep t in them, and what the denoiser should answer."""

    @abstractmethod
    def loss_weights(self, t: Tensor, min_snr_gamma: float) -> Tensor:
        """How much the error at each timestep counts."""

    @abstractmethod
    def predict(self, noisy: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """One call of the denoiser."""

    # numbers

    def precision(self, wanted: str = "auto") -> str:
        """The arithmetic to be used: fp32, bf16 or fp16. `auto` takes what the hardware is fastest with."""
        held = {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(self.dtype)
        if held and wanted in ("auto", "fp32"):
            return held  # half-precision weights can't be multiplied with fp32 numbers
        if wanted == "auto":
            return "bf16" if has_fast_bf16(self.device) else "fp32"
        return wanted

    def autocast(self, wanted: str = "auto") -> AbstractContextManager[Any]:
        """Arithmetic in the wanted precision."""
        precision = self.precision(wanted)
        if precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16 if precision == "bf16" else torch.float16)


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bf16 is faster than fp32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    return device.type == "cpu" and bf16_is_faster()
