"""peft's form: what diffusers reads.

Modules are named by their path, and weights have full precision. Many readers ignore the metadata, which alone could
hold an alpha. So the strength is in the weights themselves: alpha = rank.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from workers.diffusion.families.base import Family
from workers.diffusion.families.parts import Part
from workers.diffusion.lora import adapter
from workers.diffusion.lora.weights import LoraWeights, TrainedLora

CONFIG = "lora_adapter_metadata"  # the metadata key of peft's config, as diffusers looks for it
# How a key ends: in peft's spelling, and in those of diffusers for a UNet and for a text encoder.
ENDS = {
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    "_lora.down.weight": "down",
    "_lora.up.weight": "up",
    ".lora_linear_layer.down.weight": "down",
    ".lora_linear_layer.up.weight": "up",
}


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


def names(part: Part, path: str) -> list[str]:
    """How keys of a module begin: as we write it, then as others do."""
    return part.peft_names(path)


def split(key: str) -> tuple[str, str | None]:
    """The module's name in a key, and which side of its change the key is: down, up, or None of these."""
    end = next((end for end in ENDS if key.endswith(end)), None)
    if end is None:
        return key, None
    name = key.removesuffix(end).replace(".processor.", ".")
    return name + ".0" * name.endswith(".to_out"), ENDS[end]


def alpha(metadata: Mapping[str, str], part: str, rank: int) -> float:
    """The alpha of a part's changes of this rank. Without a config they have full strength: alpha = rank."""
    config = json.loads(metadata.get(CONFIG, "{}"))
    found = float(config.get(f"{part}.lora_alpha", rank))
    return found * math.sqrt(rank) if config.get(f"{part}.use_rslora") else found


def _plain(value: Any) -> Any:
    """What JSON can hold of peft's config."""
    if isinstance(value, set | tuple):
        return sorted(value)
    return value
