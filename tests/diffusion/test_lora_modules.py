"""The modules that are known without a base model are those that diffusers and transformers build."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from shared.lora_files import keys, modules
from shared.lora_files.modules import CLIP_L, MODELS, TextEncoder, UNet
from tests.diffusion.tiny import ROOT
from workers.diffusion.families.sdxl import sgm_path

# As the published models are configured: runwayml/stable-diffusion-v1-5, stabilityai/stable-diffusion-2-1 and
# stabilityai/stable-diffusion-xl-base-1.0.
SD = {"block_out_channels": (320, 640, 1280, 1280)}
UNETS: dict[str, dict[str, Any]] = {
    "sd15": SD | {"cross_attention_dim": 768},
    "sd2": SD | {"cross_attention_dim": 1024, "use_linear_projection": True, "attention_head_dim": (5, 10, 20, 20)},
    "sdxl": {
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    "chibi": json.loads((ROOT / "models/chibi/base/unet/config.json").read_text()),
}


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    layers = (nn.Linear, nn.Conv2d)
    return {path: tuple(module.weight.shape) for path, module in model.named_modules() if isinstance(module, layers)}


@pytest.mark.parametrize("family", MODELS)
def test_a_unet_has_the_modules_that_are_known(family: str) -> None:
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel.from_config(UNETS[family])
    known = {module.path: module.shape for module in modules.of_family(family) if module.part == "unet"}
    real = shapes(unet)
    if family == "chibi":  # it embeds texts by attention of their own, which carries no LoRA
        real = {path: shape for path, shape in real.items() if not path.startswith("add_embedding")}
    assert known == real
    assert UNet.of(unet.config) == MODELS[family][0]


def test_stability_s_names_of_sdxl_are_those_that_we_write() -> None:
    unet = [module for module in modules.of_family("sdxl") if module.part == "unet"]
    assert [module.original for module in unet] == [sgm_path(module.path, 2) for module in unet]


@pytest.mark.parametrize("encoder", [each for models in MODELS.values() for each in models[1:]], ids=str)
def test_a_text_encoder_has_the_modules_that_are_known(encoder: TextEncoder) -> None:
    kind = CLIPTextModelWithProjection if encoder.projected else CLIPTextModel
    config = CLIPTextConfig(
        hidden_size=encoder.width, intermediate_size=encoder.inner, num_hidden_layers=encoder.layers,
        num_attention_heads=encoder.width // 64, projection_dim=encoder.projected or CLIP_L.width,
    )  # fmt: skip
    with torch.device("meta"):
        model = kind(config)
    real = {f"text_model.{path.removeprefix('text_model.')}": shape for path, shape in shapes(model).items()}
    known = {module.path: module.shape for module in encoder.modules()}
    assert {f"text_model.{path.removeprefix('text_model.')}": shape for path, shape in known.items()} == real


@pytest.mark.parametrize("family", MODELS)
def test_no_name_means_two_modules(family: str) -> None:
    spelled = [name for module in modules.of_family(family) for name in set(keys.names(module))]
    assert len(set(spelled)) == len(spelled)
