"""peft's form: what diffusers reads.

Modules are named by their path, and weights have full precision. Many readers ignore the metadata, which alone could
hold an alpha. So the strength is in the weights themselves: alpha = rank.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from torch import Tensor

from shared.lora_files.alphas import CONFIG
from workers.diffusion.families.base import Family
from workers.diffusion.lora import adapter
from workers.diffusion.lora.weights import LoraWeights, TrainedLora


def tensors(weights: LoraWeights, base: Family) -> dict[str, Tensor]:
    """The tensors of a file, by key."""
    found: dict[str, Tensor] = {}
    for part, changes in weights.items():
        for path, change in changes.items():
            owner = base.part(part)
            down, up = (owner.peft_prefix + key for key in owner.peft_keys(path))
            found[down] = change.down.contiguous()
            found[up] = (change.up * (change.alpha / change.rank)).contiguous()
    return found


def metadata(lora: TrainedLora, base: Family) -> dict[str, str]:
    """peft's config of each part, as `tensors` writes it."""
    params, configs = replace(lora.params, alpha=float(lora.params.rank)), dict[str, Any]()
    for name in lora.weights:
        config = adapter.config(base, base.part(name), params).to_dict()
        configs |= {f"{name}.{key}": _plain(value) for key, value in config.items()}
    return {"format": "pt", CONFIG: json.dumps(configs, sort_keys=True)}


def _plain(value: Any) -> Any:
    """What JSON can hold of peft's config."""
    if isinstance(value, set | tuple):
        return sorted(value)
    return value
