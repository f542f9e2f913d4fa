"""SDXL: a larger UNet, two text encoders, and what it is told of each picture's size and crop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from workers.diffusion.conditioning import Conditioning, Placement
from workers.diffusion.families import clip, original
from workers.diffusion.families.components import Components
from workers.diffusion.families.original import Layout, unet_path
from workers.diffusion.families.parts import Part, underscored
from workers.diffusion.families.stable_diffusion import StableDiffusion


@dataclass(frozen=True)
class SdxlConditioning(Conditioning):
    """What the UNet attends to, and what is added to its times."""

    encoder_hidden_states: list[Tensor]  # of each text: (tokens, channels of both text encoders)
    pooled: Tensor  # (batch, channels of the second): the text as a whole, by its first chunk
    time_ids: Tensor | None = (
        None  # (batch, 6): height and width before, top and left of the crop, height and width now
    )


BUCKET_STEP = 64  # pixels between the sides of two buckets
SMALLEST_SIDE = 512  # SDXL learned no smaller pictures; below, such steps would leave no shape but the square


class StableDiffusionXL(StableDiffusion):
    """The UNet attends to the last states but one of both text encoders."""

    architecture = "stable-diffusion-xl-v1-base"
    kohya_model: ClassVar[str] = "sdxl_base_v1-0"
    kohya_clip_skip = 2  # the last but one
    layouts: ClassVar[Mapping[str, Layout]] = {
        "unet": original.UNET,
        "vae": original.VAE,
        "text_encoder": original.clip("conditioner.embedders.0.transformer."),
        "text_encoder_2": original.open_clip("conditioner.embedders.1.model."),
    }

    def unet_part(self) -> Part:
        def kohya_path(path: str) -> str:
            return underscored(unet_path(path, self.unet.config))

        # sd-scripts trains SDXL under the names of Stability's own code; diffusers' names are read as well
        return replace(super().unet_part(), kohya_path=kohya_path, other_kohya_prefixes=["lora_unet_"])

    def text_encoder_parts(self, found: Components) -> list[Part]:
        self.text_encoder = found.model("text_encoder", CLIPTextModel, self.dtype)
        self.text_encoder_2 = found.model("text_encoder_2", CLIPTextModelWithProjection, self.dtype)
        self.tokenizer = found.tokenizer("tokenizer", "<|endoftext|>", self.text_encoder)
        self.tokenizer_2 = found.tokenizer("tokenizer_2", "!", self.text_encoder_2)
        last = self.text_encoder.config.num_hidden_layers - 1  # the UNet is not told of its states: it could not learn
        return [
            self.clip_part("text_encoder", self.text_encoder, "lora_te1_", never=[f"encoder.layers.{last}."]),
            self.clip_part("text_encoder_2", self.text_encoder_2, "lora_te2_"),
        ]

    def sizes(self, resolution: int | None) -> list[tuple[int, int]]:
        side = resolution or self.row.resolution
        step = max(self._unit, BUCKET_STEP if side >= SMALLEST_SIDE else 0)
        square = side // step * step
        return list(dict.fromkeys([(square, square), *buckets(side, step)]))

    def encode_prompts(self, texts: Sequence[str], clip_skip: int = 0, syntax: str = "plain") -> SdxlConditioning:
        def first(ids: Tensor) -> tuple[Tensor, None]:
            return self.text_encoder(ids, output_hidden_states=True).hidden_states[-(clip_skip + 2)], None

        def second(ids: Tensor) -> tuple[Tensor, Tensor]:
            encoded = self.text_encoder_2(ids, output_hidden_states=True)
            return encoded.hidden_states[-(clip_skip + 2)], encoded[0]

        chunked = [clip.chunks(self.tokenizer, text, syntax) for text in texts]
        firsts, _ = clip.encode(first, self.tokenizer, chunked, self.device)
        seconds, wholes = clip.encode(second, self.tokenizer_2, chunked, self.device)
        states = [torch.cat(both, dim=-1) for both in zip(firsts, seconds, strict=True)]
        return SdxlConditioning(states, pooled=torch.stack(wholes))

    def place(self, conditioning: Conditioning, placements: Sequence[Placement]) -> Conditioning:
        assert isinstance(conditioning, SdxlConditioning)
        rows = [[*p.original[::-1], *p.crop[::-1], *p.size[::-1]] for p in placements]
        return replace(conditioning, time_ids=torch.tensor(rows, dtype=torch.float32, device=self.device))

    def predict(self, noisy: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        assert isinstance(conditioning, SdxlConditioning)
        states, mask = clip.stack(conditioning.encoder_hidden_states)
        added = {"text_embeds": conditioning.pooled, "time_ids": conditioning.time_ids}
        return self.unet(
            noisy.to(self.dtype),
            t,
            encoder_hidden_states=states,
            encoder_attention_mask=mask,
            added_cond_kwargs=added,
            return_dict=False,
        )[0]


def buckets(side: int, step: int) -> list[tuple[int, int]]:
    """Widths and heights of about the area of a square, each from half its side to twice: 33 for 1024 in steps of 64.

    SDXL was trained on such a list (arXiv 2307.01952, appendix I); this is the rule by which sd-scripts makes its own.
    """
    found: list[tuple[int, int]] = []
    for width in range(-(-side // 2 // step) * step, 2 * side + 1, step):
        height = min(side * side // width, 2 * side) // step * step
        if height >= side / 2:
            found += [(width, height), (height, width)]
    return list(dict.fromkeys(found))
