"""kohya's form: what sd-scripts, ComfyUI, A1111 and Forge read.

Each module's name is written with underscores, and each module has an alpha of its own. Weights are fp16.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workers.diffusion.families.base import Family
from workers.diffusion.lora.weights import LoraWeights


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
