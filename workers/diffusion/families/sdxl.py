"""SDXL: a larger UNet, two text encoders, and what it is told of each picture's size and crop."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor

from workers.diffusion.conditioning import Conditioning, Placement
from workers.diffusion.families.parts import Part, underscored
from workers.diffusion.families.stable_diffusion import StableDiffusion


@dataclass(frozen=True)
class SdxlConditioning(Conditioning):
    """What the UNet attends to, and what is added to its times."""

    encoder_hidden_states: Tensor  # (batch, tokens, channels of both text encoders)
    pooled: Tensor  # (batch, channels of the second): the text as a whole
    time_ids: Tensor | None = (
        None  # (batch, 6): height and width before, top and left of the crop, height and width now
    )


class StableDiffusionXL(StableDiffusion):
    """The UNet attends to the last states but one of both text encoders."""

    architecture = "stable-diffusion-xl-v1-base"
    kohya_model: ClassVar[str] = "sdxl_base_v1-0"
    pipeline = StableDiffusionXLPipeline

    def unet_part(self) -> Part:
        def kohya_path(path: str) -> str:
            return underscored(sgm_path(path, self.unet.config.layers_per_block))

        # sd-scripts trains SDXL under the names of Stability's own code; diffusers' names are read as well
        return replace(super().unet_part(), kohya_path=kohya_path, other_kohya_prefixes=["lora_unet_"])

    def text_encoder_parts(self, pipeline: Any) -> list[Part]:
        self.tokenizer, self.tokenizer_2 = pipeline.tokenizer, pipeline.tokenizer_2
        self.text_encoder, self.text_encoder_2 = pipeline.text_encoder, pipeline.text_encoder_2
        last = self.text_encoder.config.num_hidden_layers - 1  # the UNet is not told of its states: it could not learn
        return [
            self.clip_part("text_encoder", self.text_encoder, "lora_te1_", never=[f"encoder.layers.{last}."]),
            self.clip_part("text_encoder_2", self.text_encoder_2, "lora_te2_"),
        ]

    def encode_prompts(self, texts: Sequence[str], clip_skip: int = 0) -> SdxlConditioning:
        first = self.text_encoder(self.tokens(self.tokenizer, texts), output_hidden_states=True)
        second = self.text_encoder_2(self.tokens(self.tokenizer_2, texts), output_hidden_states=True)
        layer = -(clip_skip + 2)
        states = torch.cat([first.hidden_states[layer], second.hidden_states[layer]], dim=-1)
        return SdxlConditioning(states, pooled=second[0])

    def place(self, conditioning: Conditioning, placements: Sequence[Placement]) -> Conditioning:
        assert isinstance(conditioning, SdxlConditioning)
        rows = [[*p.original[::-1], *p.crop[::-1], *p.size[::-1]] for p in placements]
        return replace(conditioning, time_ids=torch.tensor(rows, dtype=torch.float32, device=self.device))

    def predict(self, noisy: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        assert isinstance(conditioning, SdxlConditioning)
        added = {"text_embeds": conditioning.pooled, "time_ids": conditioning.time_ids}
        return self.unet(
            noisy.to(self.dtype),
            t,
            encoder_hidden_states=conditioning.encoder_hidden_states,
            added_cond_kwargs=added,
            return_dict=False,
        )[0]


RESNET = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
OUTSIDE_BLOCKS = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}


def sgm_path(path: str, layers: int) -> str:
    """diffusers' path of a submodule of the UNet, in the names of Stability's own code (sgm).

    `down_blocks.1.attentions.0.proj_in` -> `input_blocks.4.1.proj_in`, where each block has 2 layers.
    """
    if path in OUTSIDE_BLOCKS:
        return OUTSIDE_BLOCKS[path]
    if found := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)", path):
        kind, number, rest = found[1], int(found[2]), found[3]
        return f"middle_block.{2 * number if kind == 'resnets' else 1}.{RESNET.get(rest, rest)}"
    found = re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)", path)
    if not found:
        return path
    side, block, kind, number, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
    place = {"resnets": 0, "attentions": 1}.get(kind, 0)
    if kind == "downsamplers":  # a block of its own after the layers of its level
        return f"input_blocks.{(block + 1) * (layers + 1)}.0.op"
    if kind == "upsamplers":  # comes last in the last layer of its level, after resnet and attention
        return f"output_blocks.{block * (layers + 1) + layers}.2.{rest}"
    if side == "down":
        return f"input_blocks.{1 + block * (layers + 1) + number}.{place}.{RESNET.get(rest, rest)}"
    return f"output_blocks.{block * (layers + 1) + number}.{place}.{RESNET.get(rest, rest)}"
