"""Files with the headers of real checkpoints: the right names and true sizes, and holes in place of weights."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Shapes = dict[str, tuple[int, ...]]
UNET = "model.diffusion_model."
BYTES = {"F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1}


def write(
    path: Path, shapes: Mapping[str, tuple[int, ...]], metadata: dict[str, str] | None = None, dtype: str = "F16"
) -> Path:
    """A file of its full size that takes no room on the disk."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + math.prod(shape) * BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    return write_raw(path, json.dumps(header).encode(), end)


def write_raw(path: Path, header: bytes, weights: int, length: int | None = None) -> Path:
    """A file with any header, and so many bytes of weights."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write((len(header) if length is None else length).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + weights)
    return path


def unet(width: int, channels: int = 4, model_channels: int = 320, **more: Any) -> Shapes:
    """The tensors of a UNet of SD 1.x or 2.x that tell what it is."""
    return {
        f"{UNET}input_blocks.0.0.weight": (model_channels, channels, 3, 3),
        f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (model_channels, width),
        f"{UNET}out.2.weight": (4, model_channels, 3, 3),
    }


def sdxl_unet(width: int = 2048, depth: int = 10) -> Shapes:
    blocks = [("input_blocks.4.1", 640, 2), ("input_blocks.7.1", 1280, depth), ("input_blocks.8.1", 1280, depth)]
    blocks.append(("middle_block.1", 1280, depth))
    return {
        f"{UNET}input_blocks.0.0.weight": (320, 4, 3, 3),
        f"{UNET}label_emb.0.0.weight": (1280, 2816),
        **{
            f"{UNET}{block}.transformer_blocks.{number}.attn2.to_k.weight": (channels, width)
            for block, channels, deep in blocks
            for number in range(deep)
        },
    }


VAE: Shapes = {
    "first_stage_model.encoder.conv_in.weight": (128, 3, 3, 3),
    "first_stage_model.decoder.conv_in.weight": (512, 4, 3, 3),
}
CLIP_L: Shapes = {
    "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight": (49408, 768),
    "cond_stage_model.transformer.text_model.encoder.layers.0.self_attn.q_proj.weight": (768, 768),
}
OPEN_CLIP_H: Shapes = {
    "cond_stage_model.model.token_embedding.weight": (49408, 1024),
    "cond_stage_model.model.transformer.resblocks.0.mlp.c_fc.weight": (4096, 1024),
}
SDXL_TEXT: Shapes = {
    "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight": (49408, 768),
    "conditioner.embedders.1.model.token_embedding.weight": (49408, 1280),
    "conditioner.embedders.1.model.transformer.resblocks.0.mlp.c_fc.weight": (5120, 1280),
}
EMA: Shapes = {
    "model_ema.decay": (),
    "model_ema.diffusion_modelinput_blocks00weight": (320, 4, 3, 3),
}

SD1 = unet(768) | VAE | CLIP_L
SD2 = unet(1024) | VAE | OPEN_CLIP_H
SDXL = sdxl_unet() | VAE | SDXL_TEXT


def write_folder(
    folder: Path,
    *,
    kind: str = "StableDiffusionPipeline",
    unet: dict[str, Any] | None = None,
    scheduler: dict[str, Any] | None = None,
    suffix: str = ".safetensors",
    without: tuple[str, ...] = (),
) -> Path:
    """A diffusers folder; by default that of an SD 1.x."""
    stems = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
    if kind == "StableDiffusionXLPipeline":
        stems["text_encoder_2"] = "model"
    for part, stem in stems.items():
        if part not in without:
            write(folder / part / f"{stem}{suffix}", {"weight": (8, 8)})
    files = {
        "model_index.json": {"_class_name": kind},
        "unet/config.json": {"in_channels": 4, "cross_attention_dim": 768, "sample_size": 64} | (unet or {}),
        "scheduler/scheduler_config.json": {"prediction_type": "epsilon"} | (scheduler or {}),
    }
    for name, content in files.items():
        if name not in without:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(json.dumps(content))
    return folder
