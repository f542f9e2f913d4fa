"""Evidence that a picture shows the character whom other pictures are known to show."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

FOR = 0.5  # the most that one attribute may speak for her: otherwise pictures that show more of them seem more hers
SCALE = 6.5  # nats of missing evidence that divide an identity by e
AGAINST = 1e-3  # the least likelihood that speaks against her: readers err


def belief(read: Tensor) -> Tensor:
    """One attribute by several pictures, (pictures, values) to (values,): what is unsure in each is no evidence."""
    return read.clamp(min=0.01).log().sum(0).softmax(0)


def evidence(read: Tensor, believed: Tensor) -> Tensor:
    """Log of how much likelier the same value is than by chance; 0 where the picture does not show it. (pictures,)"""
    chance = 1 / len(believed)
    return ((read * believed).sum(1) / chance).clamp(min=AGAINST).log().clamp(max=FOR)


def identity(known: dict[str, Tensor], read: dict[str, Tensor], heads: Iterable[str]) -> np.ndarray:
    """0..1 for each candidate, from what a Reader has `read` in it and in the references that are `known`.

    `heads` are the attributes of a character, as opposed to those of a picture (`card["hers"]`). 1 is all the evidence
    that there could be; each SCALE of it that is missing, or speaks against her, divides it by e. One attribute that is
    plainly another's leaves about a third.
    """
    found = torch.stack([evidence(read[head], belief(known[head])) for head in heads])
    return ((found.sum(0) - FOR * len(found)) / SCALE).exp().numpy()
