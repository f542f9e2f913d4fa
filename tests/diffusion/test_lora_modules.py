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
from shared.lora_files.modules import MODELS, TextEncoder, UNet
from tests.diffusion.tiny import ROOT
from workers.diffusion.families.original import unet_path

CONFIGS = {
    "chibi": ROOT / "models/chibi/base",
    **{name: ROOT / "models/configs" / name for name in MODELS if name != "chibi"},
}


def config_of(family: str, part: str) -> dict[str, Any]:
    return json.loads((CONFIGS[family] / part / "config.json").read_text())


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    layers = (nn.Linear, nn.Conv2d)
    return {path: tuple(module.weight.shape) for path, module in model.named_modules() if isinstance(module, layers)}


@pytest.mark.parametrize("family", MODELS)
def test_a_unet_has_the_modules_that_are_known(family: str) -> None:
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel.from_config(config_of(family, "unet"))
    known = {module.path: module.shape for module in modules.of_family(family) if module.part == "unet"}
    real = shapes(unet)
    if family == "chibi":  # it embeds texts by attention of their own, which carries no LoRA
        real = {path: shape for path, shape in real.items() if not path.startswith("add_embedding")}
    assert known == real
    assert UNet.of(unet.config) == MODELS[family][0]


@pytest.mark.parametrize("family", MODELS)
def test_stability_s_names_are_those_that_base_models_are_read_by(family: str) -> None:
    config = config_of(family, "unet")
    unet = [module for module in modules.of_family(family) if module.part == "unet"]
    assert [module.original for module in unet] == [unet_path(module.path, config) for module in unet]


@pytest.mark.parametrize(
    ("family", "encoder"), [(name, each) for name, models in MODELS.items() for each in models[1:]]
)
def test_a_text_encoder_has_the_modules_that_are_known(family: str, encoder: TextEncoder) -> None:
    kind = CLIPTextModelWithProjection if encoder.projected else CLIPTextModel
    with torch.device("meta"):
        model: Any = kind(CLIPTextConfig(**config_of(family, encoder.part)))
    real = {f"text_model.{path.removeprefix('text_model.')}": shape for path, shape in shapes(model).items()}
    known = {module.path: module.shape for module in encoder.modules()}
    assert {f"text_model.{path.removeprefix('text_model.')}": shape for path, shape in known.items()} == real


@pytest.mark.parametrize("family", MODELS)
def test_no_name_means_two_modules(family: str) -> None:
    spelled = [name for module in modules.of_family(family) for name in set(keys.names(module))]
    assert len(set(spelled)) == len(spelled)
