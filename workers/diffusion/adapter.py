"""Low-rank changes of a base model: attached to train them, merged to draw with them, and taken off again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer, LoraModel
from torch import Tensor, nn

from shared.params import TrainParams
from workers.diffusion.families.base import Family

NAME = "default"


@dataclass(frozen=True)
class LowRank:
    """The change of one weight: up @ down, times alpha / rank."""

    down: Tensor  # (rank, in) or (rank, in, k, k)
    up: Tensor  # (out, rank) or (out, rank, 1, 1)
    alpha: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    def delta(self) -> Tensor:
        """What is added to the weight, in its shape and in fp32."""
        down, up = self.down.float(), self.up.float()
        return (up.flatten(1) @ down.flatten(1)).view(up.shape[0], *down.shape[1:]) * (self.alpha / self.rank)


# component ("unet", "text_encoder") -> path of the submodule -> its change
LoraWeights = Mapping[str, Mapping[str, LowRank]]


@contextmanager
def attached(base: Family, params: TrainParams) -> Iterator[dict[str, nn.Module]]:
    """The trainable layers, by component, on top of the frozen base; whatever happens, it gets its own back."""
    tuners: dict[str, LoraModel] = {}
    try:
        with torch.random.fork_rng():  # peft draws the first values from the global generator
            torch.manual_seed(params.seed)
            for component in components(params):
                config = lora_config(base, component, params)
                tuners[component] = LoraModel(base.components[component], {NAME: config}, NAME)
                for parameter in parameters(tuners[component].model).values():
                    parameter.data = parameter.data.float()  # peft took the base's dtype, too coarse for small steps
                base.gradient_checkpointing(component, params.gradient_checkpointing)
        yield {component: tuner.model for component, tuner in tuners.items()}
    finally:
        for component, tuner in tuners.items():
            tuner.unload()
            base.gradient_checkpointing(component, False)
            base.components[component].requires_grad_(False)


def components(params: TrainParams) -> list[str]:
    """Which parts of the base this run trains."""
    return ["unet", "text_encoder"] if params.text_encoder_learning_rate > 0 else ["unet"]


def lora_config(base: Family, component: str, params: TrainParams) -> LoraConfig:
    """What peft is told; the same goes into the metadata of the peft file."""
    modules = params.lora_modules if component == "unet" else None
    alpha: Any = params.alpha  # peft says int, and divides it all the same
    return LoraConfig(r=params.rank, lora_alpha=alpha, target_modules=base.lora_targets(component, modules))


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


@contextmanager
def merged(base: Family, loras: Sequence[tuple[LoraWeights, float]]) -> Iterator[None]:
    """The base with LoRAs added into its weights at the given strengths; its own tensors come back afterwards."""
    originals: dict[nn.Parameter, Tensor] = {}
    try:
        for weights, strength in loras:
            for component, changes in weights.items():
                for path, change in changes.items():
                    weight = base.components[component].get_parameter(f"{path}.weight")
                    originals.setdefault(weight, weight.data)
                    delta = LowRank(change.down.to(weight.device), change.up.to(weight.device), change.alpha).delta()
                    weight.data = (weight.data.float() + strength * delta.view_as(weight)).to(weight.dtype)
        yield
    finally:
        for weight, original in originals.items():
            weight.data = original
