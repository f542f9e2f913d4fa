"""The modules of a base model that a LoRA can change, with the shapes of their weights, without the base model.

Which modules there are follows from a few numbers of the config. The paths are those of diffusers
(UNet2DConditionModel) and transformers (CLIPTextModel).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from shared.catalog.families import TEXT_ENCODER, TEXT_ENCODER_2, UNET

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Module:
    """A linear layer or a convolution."""

    part: str  # diffusers' word for the model that it is in
    path: str  # in text encoders with `text_model.`
    shape: Shape  # of its weight: (out, in) or (out, in, height, width)
    original: str = ""  # its path in the code of Stability (sgm) and CompVis; UNets have one


@dataclass(frozen=True, kw_only=True)
class UNet:
    """What the modules of a UNet follow from."""

    channels: Sequence[int]  # of each level
    attends: Sequence[bool]  # whether the blocks of each level attend to the text
    depths: Sequence[int]  # transformer blocks in each attention, by level
    text_width: int
    linear: bool  # whether attention begins and ends with a linear layer, not with a convolution
    layers: int = 2  # resnets of each level, on the way down
    latents: int = 4  # channels
    added: int = 0  # width of what is added to the times; 0: nothing

    @staticmethod
    def of(config: Mapping[str, Any]) -> UNet:
        """From the config of a UNet2DConditionModel."""
        channels = tuple(config["block_out_channels"])
        depths = config.get("transformer_layers_per_block") or 1
        added = config.get("projection_class_embeddings_input_dim") or 0
        return UNet(
            channels=channels,
            attends=tuple("CrossAttn" in name for name in config["down_block_types"]),
            depths=tuple(depths) if isinstance(depths, list | tuple) else (depths,) * len(channels),
            text_width=config["cross_attention_dim"],
            linear=bool(config.get("use_linear_projection")),
            layers=config["layers_per_block"],
            latents=config["in_channels"],
            added=added if config.get("addition_embed_type") == "text_time" else 0,
        )

    def modules(self) -> Iterator[Module]:
        for path, original, shape in self._modules():
            yield Module(UNET, path, shape, original)

    def _modules(self) -> Iterator[tuple[str, str, Shape]]:
        first, time = self.channels[0], 4 * self.channels[0]
        yield "conv_in", "input_blocks.0.0", (first, self.latents, 3, 3)
        yield "time_embedding.linear_1", "time_embed.0", (time, first)
        yield "time_embedding.linear_2", "time_embed.2", (time, time)
        if self.added:
            yield "add_embedding.linear_1", "label_emb.0.0", (time, self.added)
            yield "add_embedding.linear_2", "label_emb.0.2", (time, time)
        yield from self._down()
        widest = self.channels[-1]
        yield from self._resnet("mid_block.resnets.0", "middle_block.0", widest, widest)
        yield from self._attention("mid_block.attentions.0", "middle_block.1", widest, self.depths[-1])
        yield from self._resnet("mid_block.resnets.1", "middle_block.2", widest, widest)
        yield from self._up()
        yield "conv_out", "out.2", (self.latents, first, 3, 3)

    def _down(self) -> Iterator[tuple[str, str, Shape]]:
        number, into = 1, self.channels[0]  # the first input block is the first convolution
        for level, out in enumerate(self.channels):
            for layer in range(self.layers):
                here, there = f"down_blocks.{level}", f"input_blocks.{number}"
                yield from self._resnet(f"{here}.resnets.{layer}", f"{there}.0", into, out)
                if self.attends[level]:
                    yield from self._attention(f"{here}.attentions.{layer}", f"{there}.1", out, self.depths[level])
                number, into = number + 1, out
            if level < len(self.channels) - 1:
                shape = (out, out, 3, 3)
                yield f"down_blocks.{level}.downsamplers.0.conv", f"input_blocks.{number}.0.op", shape
                number += 1

    def _up(self) -> Iterator[tuple[str, str, Shape]]:
        number, into = 0, self.channels[-1]
        skips = self._skips()
        for level, out in enumerate(reversed(self.channels)):
            attends, depth = self.attends[-1 - level], self.depths[-1 - level]
            for layer in range(self.layers + 1):
                here, there = f"up_blocks.{level}", f"output_blocks.{number}"
                yield from self._resnet(f"{here}.resnets.{layer}", f"{there}.0", into + skips.pop(), out)
                if attends:
                    yield from self._attention(f"{here}.attentions.{layer}", f"{there}.1", out, depth)
                if layer == self.layers and level < len(self.channels) - 1:
                    place = 2 if attends else 1
                    yield f"{here}.upsamplers.0.conv", f"{there}.{place}.conv", (out, out, 3, 3)
                number, into = number + 1, out

    def _skips(self) -> list[int]:
        """Channels of what the way up takes from the way down, the last of these first to be taken."""
        skips = [self.channels[0]]
        for level, out in enumerate(self.channels):
            skips += [out] * (self.layers + (level < len(self.channels) - 1))
        return skips

    def _resnet(self, here: str, there: str, into: int, out: int) -> Iterator[tuple[str, str, Shape]]:
        yield f"{here}.conv1", f"{there}.in_layers.2", (out, into, 3, 3)
        yield f"{here}.time_emb_proj", f"{there}.emb_layers.1", (out, 4 * self.channels[0])
        yield f"{here}.conv2", f"{there}.out_layers.3", (out, out, 3, 3)
        if into != out:
            yield f"{here}.conv_shortcut", f"{there}.skip_connection", (out, into, 1, 1)

    def _attention(self, here: str, there: str, width: int, depth: int) -> Iterator[tuple[str, str, Shape]]:
        ends = (width, width) if self.linear else (width, width, 1, 1)
        shapes = {"proj_in": ends, "proj_out": ends}
        for block in range(depth):
            inside = f"transformer_blocks.{block}"
            for name, source in (("attn1", width), ("attn2", self.text_width)):
                shapes |= {f"{inside}.{name}.{side}": (width, width) for side in ("to_q", "to_out.0")}
                shapes |= {f"{inside}.{name}.{side}": (width, source) for side in ("to_k", "to_v")}
            shapes |= {f"{inside}.ff.net.0.proj": (8 * width, width), f"{inside}.ff.net.2": (width, 4 * width)}
        for path, shape in shapes.items():
            yield f"{here}.{path}", f"{there}.{path}", shape


@dataclass(frozen=True, kw_only=True)
class TextEncoder:
    """What the modules of a text encoder of CLIP follow from."""

    part: str = TEXT_ENCODER
    width: int
    inner: int  # width of the feed-forward layers
    layers: int
    projected: int = 0  # width of the vector of the whole text; 0: it has none

    def modules(self) -> Iterator[Module]:
        for layer in range(self.layers):
            inside = f"text_model.encoder.layers.{layer}"
            for side in ("q_proj", "k_proj", "v_proj", "out_proj"):
                yield Module(self.part, f"{inside}.self_attn.{side}", (self.width, self.width))
            yield Module(self.part, f"{inside}.mlp.fc1", (self.inner, self.width))
            yield Module(self.part, f"{inside}.mlp.fc2", (self.width, self.inner))
        if self.projected:
            yield Module(self.part, "text_projection", (self.projected, self.width))


CLIP_L = TextEncoder(width=768, inner=3072, layers=12)
BIG_G = TextEncoder(part=TEXT_ENCODER_2, width=1280, inner=5120, layers=32, projected=1280)
SD_CHANNELS, SD_ATTENDS, SD_DEPTHS = (320, 640, 1280, 1280), (True, True, True, False), (1, 1, 1, 1)
MODELS: Mapping[str, Sequence[UNet | TextEncoder]] = {
    "sd15": (
        UNet(channels=SD_CHANNELS, attends=SD_ATTENDS, depths=SD_DEPTHS, text_width=768, linear=False),
        CLIP_L,
    ),
    "sd2": (
        UNet(channels=SD_CHANNELS, attends=SD_ATTENDS, depths=SD_DEPTHS, text_width=1024, linear=True),
        TextEncoder(width=1024, inner=4096, layers=23),
    ),
    "sdxl": (
        UNet(
            channels=(320, 640, 1280), attends=(False, True, True), depths=(1, 2, 10), text_width=2048, linear=True,
            added=2816,
        ),
        CLIP_L,
        BIG_G,
    ),
    "chibi": (
        UNet(
            channels=(64, 128, 192), attends=(False, True, True), depths=(1, 1, 1), text_width=192, linear=False,
            layers=1, latents=8,
        ),
        TextEncoder(width=192, inner=512, layers=2),
    ),
}  # fmt: skip


@cache
def of_family(family: str) -> tuple[Module, ...]:
    """The modules of the base models of a family; KeyError if they are not known here."""
    return tuple(module for model in MODELS[family] for module in model.modules())
