"""Single files in the layout of CompVis's and Stability's own code: which tensor is which parameter of diffusers.

A layout goes both ways: a base model is read from such a file, and written to one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

MOST_NAMED = 3  # tensors that an error names


class BadCheckpoint(ValueError):
    """A file or folder that holds no whole base model of its family."""


class Tensors(Protocol):
    """An open safetensors file."""

    def keys(self) -> Iterable[str]: ...

    def get_tensor(self, key: str) -> Tensor: ...


@dataclass(frozen=True)
class TensorPlace:
    """Where a parameter lies in a file."""

    key: str
    third: int | None = None  # of a tensor that holds q, k and v, one after the other
    transposed: bool = False

    def read(self, tensor: Tensor, shape: torch.Size) -> Tensor:
        """The parameter; a convolution of one pixel and a linear layer are the same. RuntimeError if it doesn't fit."""
        if self.third is not None:
            tensor = tensor.chunk(3)[self.third]
        return (tensor.T if self.transposed else tensor).reshape(shape)


@dataclass(frozen=True)
class Layout:
    """The keys of a module's tensors in a file: one of `prefixes`, then the key that `place` gives."""

    prefixes: tuple[str, ...]  # the first is the one that we write
    place: Callable[[str, Mapping[str, Any]], TensorPlace]  # by the parameter's name, and the module's config

    def load(self, tensors: Tensors, model: nn.Module, dtype: torch.dtype) -> None:
        """Give an empty module (on torch's meta device) its weights, on the CPU and in `dtype`.

        Raises:
            BadCheckpoint: tensors are missing, or of another shape.
        """
        known = set(tensors.keys())
        wanted = {name: self.place(name, config_of(model)) for name, _ in model.named_parameters()}
        prefix = self._prefix(known, wanted.values())
        if missing := [prefix + place.key for place in wanted.values() if prefix + place.key not in known]:
            raise BadCheckpoint(f"{len(missing)} tensors are missing, such as {', '.join(missing[:MOST_NAMED])}")
        state = {}
        for name, parameter in model.named_parameters():
            place = wanted[name]
            tensor = tensors.get_tensor(prefix + place.key)
            try:
                read = place.read(tensor, parameter.shape)
            except RuntimeError as error:
                raise BadCheckpoint(
                    f"{prefix + place.key} has the shape {[*tensor.shape]}, which is no {[*parameter.shape]}"
                ) from error
            # a copy, or the weights would stay in a file that may change
            state[name] = read.to(dtype, copy=True, memory_format=torch.contiguous_format)
        model.load_state_dict(state, assign=True)

    def is_in(self, tensors: Tensors, model: nn.Module) -> bool:
        """Whether a file holds any tensor of such a module."""
        known = set(tensors.keys())
        places = [self.place(name, config_of(model)) for name, _ in model.named_parameters()]
        return any(prefix + place.key in known for prefix in self.prefixes for place in places)

    def tensors(self, model: nn.Module) -> dict[str, Tensor]:
        """The module's tensors as a file holds them."""
        found: dict[str, Tensor] = {}
        thirds: dict[str, dict[int, Tensor]] = {}
        for name, tensor in model.state_dict().items():
            place = self.place(name, config_of(model))
            key = self.prefixes[0] + place.key
            if place.third is not None:
                thirds.setdefault(key, {})[place.third] = tensor
            else:
                found[key] = (tensor.T if place.transposed else _unfolded(place.key, tensor)).contiguous()
        return found | {key: torch.cat([parts[n] for n in range(3)]) for key, parts in thirds.items()}

    def _prefix(self, known: Collection[str], places: Iterable[TensorPlace]) -> str:
        """The prefix behind which most of a module lies."""
        keys = [place.key for place in places]
        return max(self.prefixes, key=lambda prefix: sum(prefix + key in known for key in keys))


def config_of(model: Any) -> Mapping[str, Any]:
    """A module's config, of diffusers' or transformers' kind."""
    return model.config if isinstance(model.config, Mapping) else model.config.to_dict()


def _unfolded(key: str, tensor: Tensor) -> Tensor:
    """The VAE's attention is made of convolutions of one pixel."""
    return tensor[:, :, None, None] if tensor.ndim == 2 and ".attn_1." in key else tensor


# UNet

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
OUTSIDE_BLOCKS = {
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}


def unet_path(path: str, config: Mapping[str, Any]) -> str:
    """diffusers' path of a submodule of the UNet, in the names of Stability's own code (sgm).

    `down_blocks.1.attentions.0.proj_in` -> `input_blocks.4.1.proj_in`, where each block has 2 layers.
    """
    if path in OUTSIDE_BLOCKS:
        return OUTSIDE_BLOCKS[path]
    layers = config["layers_per_block"]
    if found := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)", path):
        kind, number, rest = found[1], int(found[2]), found[3]
        return f"middle_block.{2 * number if kind == 'resnets' else 1}.{RESNET.get(rest, rest)}"
    found = re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)", path)
    if not found:
        return path
    side, block, kind, number, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
    place = 1 if kind == "attentions" else 0
    if kind == "downsamplers":  # a block of its own after the layers of its level
        return f"input_blocks.{(block + 1) * (layers + 1)}.0.op"
    if kind == "upsamplers":  # comes last in the last layer of its level, after the resnet and the attention
        last = 2 if "CrossAttn" in config["up_block_types"][block] else 1
        return f"output_blocks.{block * (layers + 1) + layers}.{last}.{rest}"
    if side == "down":
        return f"input_blocks.{1 + block * (layers + 1) + number}.{place}.{RESNET.get(rest, rest)}"
    return f"output_blocks.{block * (layers + 1) + number}.{place}.{RESNET.get(rest, rest)}"


def _unet_place(name: str, config: Mapping[str, Any]) -> TensorPlace:
    path, _, kind = name.rpartition(".")
    return TensorPlace(f"{unet_path(path, config)}.{kind}")


# VAE

VAE_NAMES = (
    ("mid_block.resnets.0.", "mid.block_1."),
    ("mid_block.resnets.1.", "mid.block_2."),
    ("mid_block.attentions.0.group_norm.", "mid.attn_1.norm."),
    ("mid_block.attentions.0.to_q.", "mid.attn_1.q."),
    ("mid_block.attentions.0.to_k.", "mid.attn_1.k."),
    ("mid_block.attentions.0.to_v.", "mid.attn_1.v."),
    ("mid_block.attentions.0.to_out.0.", "mid.attn_1.proj_out."),
    ("conv_norm_out.", "norm_out."),
    (".conv_shortcut.", ".nin_shortcut."),
    (".downsamplers.0.", ".downsample."),
    (".upsamplers.0.", ".upsample."),
    (".resnets.", ".block."),
    ("down_blocks.", "down."),
)


def _vae_place(name: str, config: Mapping[str, Any]) -> TensorPlace:
    for ours, theirs in VAE_NAMES:
        name = name.replace(ours, theirs)
    levels = len(config["block_out_channels"])
    return TensorPlace(re.sub(r"up_blocks\.(\d+)", lambda found: f"up.{levels - 1 - int(found[1])}", name))


# text encoders

OPEN_CLIP_NAMES = (
    ("embeddings.token_embedding.weight", "token_embedding.weight"),
    ("embeddings.position_embedding.weight", "positional_embedding"),
    ("encoder.layers.", "transformer.resblocks."),
    ("layer_norm1.", "ln_1."),
    ("layer_norm2.", "ln_2."),
    ("self_attn.", "attn."),
    ("mlp.fc1.", "mlp.c_fc."),
    ("mlp.fc2.", "mlp.c_proj."),
    ("final_layer_norm.", "ln_final."),
)


def _clip_place(name: str, config: Mapping[str, Any]) -> TensorPlace:
    return TensorPlace(name.removeprefix("text_model."))


def _open_clip_place(name: str, config: Mapping[str, Any]) -> TensorPlace:
    name = name.removeprefix("text_model.")
    if name == "text_projection.weight":
        return TensorPlace("text_projection", transposed=True)
    for ours, theirs in OPEN_CLIP_NAMES:
        name = name.replace(ours, theirs)
    if found := re.fullmatch(r"(.+\.attn\.)([qkv])_proj\.(weight|bias)", name):
        return TensorPlace(f"{found[1]}in_proj_{found[3]}", third="qkv".index(found[2]))
    return TensorPlace(name)


UNET = Layout(("model.diffusion_model.",), _unet_place)
VAE = Layout(("first_stage_model.", ""), _vae_place)


def clip(prefix: str) -> Layout:
    """A text encoder of OpenAI's CLIP; some tools leave out `text_model.`."""
    return Layout((f"{prefix}text_model.", prefix), _clip_place)


def open_clip(prefix: str) -> Layout:
    """A text encoder of OpenCLIP."""
    return Layout((prefix,), _open_clip_place)
