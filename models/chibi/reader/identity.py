"""Is this she? Evidence that a picture shows the one whom other pictures are known to show."""

import numpy as np
import torch
from torch import Tensor

HERS = (
    "hair", "hair_style", "eyes", "skin", "ears", "fur", "tail", "outfit", "outfit_color", "bottom", "bottom_color",
    "accessory", "accessory_color",
)  # fmt: skip
DOUBT = 0.03  # no attribute may speak more strongly against her than this: readers err


def belief(read: Tensor) -> Tensor:
    """One attribute by several pictures, (pictures, values) to (values,): what is unsure in each is no evidence."""
    return read.clamp(min=0.01).log().sum(0).softmax(0)


def evidence(read: Tensor, believed: Tensor) -> Tensor:
    """Log of how much likelier the same value is than by chance; 0 where the picture does not show it. (pictures,)"""
    chance = 1 / len(believed)
    return ((read * believed).sum(1) / chance).clamp(min=DOUBT).log()


def identity(known: dict[str, Tensor], read: dict[str, Tensor]) -> np.ndarray:
    """0..1 for each candidate, from what a Reader has `read` in it and in the references that are `known`.

    It is the evidence, as a share of all that there could be.
    """
    believed = {head: belief(known[head]) for head in HERS}
    found = torch.stack([evidence(read[head], believed[head]) for head in HERS]).sum(0)
    most = sum(float((believed[head].max() * len(believed[head])).log()) for head in HERS)
    return (found / most).clamp(0, 1).numpy()
