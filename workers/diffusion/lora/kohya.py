"""kohya's form: what sd-scripts, ComfyUI, A1111 and Forge read.

Each module's name is written with underscores, and each module has an alpha of its own. Weights are fp16.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workers.diffusion.families.base import Family
from workers.diffusion.families.parts import Part
from workers.diffusion.lora.weights import LoraWeights

SIDES = {"lora_down.weight": "down", "lora_up.weight": "up", "alpha": "alpha"}


def tensors(weights: LoraWeights, base: Family) -> dict[str, Tensor]:
    """The tensors of a file, by key."""
    found: dict[str, Tensor] = {}
    for part, changes in weights.items():
        for path, change in changes.items():
            name = base.part(part).kohya_names(path)[0]
            found[f"{name}.lora_down.weight"] = change.down.half().contiguous()
            found[f"{name}.lora_up.weight"] = change.up.half().contiguous()
            found[f"{name}.alpha"] = torch.tensor(float(change.alpha))
    return found


def names(part: Part, path: str) -> list[str]:
    """How keys of a module begin: as we write it, then as others do."""
    return part.kohya_names(path)


def split(key: str) -> tuple[str, str | None]:
    """The module's name in a key, and which side of its change the key is: down, up, alpha, or None of these."""
    name, _, side = key.partition(".")
    return name, SIDES.get(side)
