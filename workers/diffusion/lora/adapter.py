"""The trainable layers of a LoRA: put on a base model by peft, and taken off again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer, LoraModel
from torch import nn

from shared.catalog import FAMILIES
from shared.catalog.params import TrainParams
from workers.diffusion.families.base import Family
from workers.diffusion.families.parts import Part
from workers.diffusion.lora.changes import LowRank

NAME = "default"


@contextmanager
def attached(base: Family, params: TrainParams) -> Iterator[dict[str, nn.Module]]:
    """The parts that learn, by name, with trainable layers on the frozen base; the base is restored in any case."""
    tuners: list[tuple[Part, LoraModel]] = []
    try:
        with torch.random.fork_rng():  # peft draws the first values from the global generator
            torch.manual_seed(params.seed)
            for part in base.learning_parts(params):
                tuner = LoraModel(part.module, {NAME: config(base, part, params)}, NAME)
                tuners.append((part, tuner))
                for parameter in parameters(tuner.model).values():
                    parameter.data = parameter.data.float()  # peft took the base's dtype, too coarse for small steps
                base.gradient_checkpointing(part, params.gradient_checkpointing)
        yield {part.name: tuner.model for part, tuner in tuners}
    finally:
        for part, tuner in tuners:
            tuner.unload()
            base.gradient_checkpointing(part, False)
            part.module.requires_grad_(False)


def config(base: Family, part: Part, params: TrainParams) -> LoraConfig:
    """What peft is told of a part; the same goes into the metadata of the peft file."""
    modules = params.lora_modules or FAMILIES[base.row.family].train["lora_modules"]
    alpha: Any = params.alpha  # peft's signature says int; it takes a float as well
    return LoraConfig(r=params.rank, lora_alpha=alpha, target_modules=part.lora_paths(modules))


def layers(model: nn.Module) -> dict[str, Any]:
    """peft's layers, by the path of what they wrap."""
    return {path: module for path, module in model.named_modules() if isinstance(module, LoraLayer)}


def parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trainable parameters, by names that don't depend on peft's nesting."""
    return {
        f"{path}.{side}": getattr(layer, side)[NAME].weight
        for path, layer in layers(model).items()
        for side in ("lora_A", "lora_B")
    }


def read(model: nn.Module) -> dict[str, LowRank]:
    """The change that a live model's adapter makes, with the strength that peft applies it at."""
    return {
        path: LowRank(
            down=layer.lora_A[NAME].weight.detach().float().cpu().clone(),
            up=layer.lora_B[NAME].weight.detach().float().cpu().clone(),
            alpha=layer.scaling[NAME] * layer.r[NAME],
        )
        for path, layer in layers(model).items()
    }
