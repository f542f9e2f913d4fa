"""What a family of base models must be able to do, so that the loops need not know which one they drive."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from models.arithmetic import bf16_is_faster
from shared.catalog import BaseModel
from shared.catalog.params import TrainParams
from workers.diffusion.conditioning import Conditioning, Placement
from workers.diffusion.families.parts import Part, Role
from workers.diffusion.noise.base import Noise


class Family(ABC):
    """One base model, loaded and frozen. Training and generation leave it as they found it.

    `families.load` makes it as `Class(row, device)`. If `device` is None, the class chooses one.
    """

    row: BaseModel  # its row of the catalog
    device: torch.device
    dtype: torch.dtype  # of its weights; fp32 on a CPU, bf16 or fp16 on a CUDA card
    parts: Sequence[Part]  # what a LoRA may change; one of them is the denoiser
    noise: Noise  # what it was trained to take away
    architecture: str  # as modelspec.architecture names it, without "/lora"
    kohya_version: str  # as ss_base_model_version names it
    kohya_clip_skip: int = 1  # as ss_clip_skip counts the layer that the base model was trained on: 1 is the last

    # parts

    @property
    def denoiser(self) -> nn.Module:
        """The module that is called at every step."""
        return next(part.module for part in self.parts if part.role is Role.DENOISER)

    def part(self, name: str) -> Part:
        """The part of this name; KeyError if there is none."""
        return {part.name: part for part in self.parts}[name]

    def learning_parts(self, params: TrainParams) -> list[Part]:
        """The parts that a training changes.

        Raises:
            ValueError: a text encoder is asked for, and there is none to train.
        """
        if params.text_encoder_learning_rate > 0 and all(part.role is not Role.TEXT_ENCODER for part in self.parts):
            raise ValueError(
                f"base model {self.row.name} has no text encoder to train: set text_encoder_learning_rate to 0"
            )
        return [part for part in self.parts if part.learns(params)]

    @abstractmethod
    def gradient_checkpointing(self, part: Part, enabled: bool) -> None:
        """Trade time for memory in the backward pass."""

    # pictures

    @abstractmethod
    def sizes(self, resolution: int | None) -> list[tuple[int, int]]:
        """Widths and heights that pictures are fitted to; each makes a bucket of its own."""

    @abstractmethod
    def latent_shape(self, width: int, height: int) -> tuple[int, ...]:
        """Shape of the latents of one picture: channels first, height and width last."""

    @abstractmethod
    def encode_images(self, images: Sequence[Image.Image]) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents of pictures of one size, in the denoiser's scale."""

    @abstractmethod
    def decode(self, latents: Tensor) -> list[Image.Image]:
        """The pictures that latents stand for."""

    # texts

    @abstractmethod
    def encode_prompts(self, texts: Sequence[str], clip_skip: int = 0, syntax: str = "plain") -> Conditioning:
        """What the denoiser is told of each text, a row for each. Gradients flow where they are enabled.

        `clip_skip` layers of the text encoder are left out, of those whose states the base model was trained on.
        `syntax` is one of the family's `prompt_syntaxes` in the catalog.
        """

    @abstractmethod
    def cut_off(self, text: str) -> str:
        """The end of a text that is too long for the text encoder; empty if it reads all of it."""

    # the denoiser

    def place(self, conditioning: Conditioning, placements: Sequence[Placement]) -> Conditioning:
        """The conditioning with what the denoiser is told of each picture's size and crop; most are told nothing."""
        return conditioning

    @abstractmethod
    def predict(self, noisy: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """One call of the denoiser. `t` is a time of `self.noise`: one for all, or one for each row (batch,)."""

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
