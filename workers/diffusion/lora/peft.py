"""peft's form: what diffusers reads.

Modules are named by their path, weights have full precision, and the alpha is in the metadata.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from workers.diffusion.families.base import Family
from workers.diffusion.families.parts import Part
from workers.diffusion.lora import adapter
from workers.diffusion.lora.weights import LoraWeights, TrainedLora

CONFIG = "lora_adapter_metadata"  # the metadata key of peft's config, as diffusers looks for it
SIDES = {"lora_A": "down", "lora_B": "up"}


def tensors(weights: LoraWeights, base: Family) -> dict[str, Tensor]:
    """The tensors of a file, by key."""
    found: dict[str, Tensor] = {}
    for part, changes in weights.items():
        for path, change in changes.items():
            name = base.part(part).peft_names(path)[0]
            found[f"{name}.lora_A.weight"] = change.down.contiguous()
            found[f"{name}.lora_B.weight"] = change.up.contiguous()
    return found


def metadata(lora: TrainedLora, base: Family) -> dict[str, str]:
    """peft's config of each part, in which the alpha is."""
    configs: dict[str, Any] = {}
    for name in lora.weights:
        config = adapter.config(base, base.part(name), lora.params).to_dict()
        configs |= {f"{name}.{key}": _plain(value) for key, value in config.items()}
    return {"format": "pt", CONFIG: json.dumps(configs, sort_keys=True)}


def names(part: Part, path: str) -> list[str]:
    """How keys of a module begin: as we write it, then as others do."""
    return part.peft_names(path)


def split(key: str) -> tuple[str, str | None]:
    """The module's name in a key, and which side of its change the key is: down, up, or None of these."""
    name, _, side = key.removesuffix(".weight").rpartition(".")
    return name, SIDES.get(side)


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
