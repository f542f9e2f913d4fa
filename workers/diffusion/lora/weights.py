"""LoRAs in memory: the low-rank change of each weight, and what a training made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from torch import Tensor, nn

from shared.catalog.params import TrainParams
from workers.diffusion.families.base import Family


@dataclass(frozen=True)
class LowRank:
    """The change of one weight: up @ down, times alpha / rank."""

    down: Tensor  # (rank, in) or (rank, in, k, k)
    up: Tensor  # (out, rank) or (out, rank, 1, 1)
    alpha: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    def fits(self, weight: Tensor) -> bool:
        """Whether this is a change of a weight of that size."""
        return (
            min(self.down.ndim, self.up.ndim) >= 2
            and self.rank > 0
            and self.up.shape[1:].numel() == self.rank
            and self.up.shape[0] * self.down.shape[1:].numel() == weight.numel()
        )

    def delta(self) -> Tensor:
        """What is added to the weight, in its shape and in fp32."""
        down, up = self.down.float(), self.up.float()
        return (up.flatten(1) @ down.flatten(1)).view(up.shape[0], *down.shape[1:]) * (self.alpha / self.rank)


# name of a part -> path of the submodule -> its change
LoraWeights = Mapping[str, Mapping[str, LowRank]]


@dataclass(frozen=True)
class TrainedLora:
    """The result of a training, and what its files say about it."""

    weights: LoraWeights
    params: TrainParams
    losses: list[float]  # of each step
    seconds: float  # of this process; a resumed training counts from its resumption
    images: int
    tag_counts: dict[str, int]  # over the captions as given
    finished_at: datetime

    @property
    def steps(self) -> int:
        return len(self.losses)


@contextmanager
def merged(base: Family, loras: Sequence[tuple[LoraWeights, float]]) -> Iterator[None]:
    """The base with LoRAs added into its weights at the given strengths; its own tensors come back afterwards."""
    originals: dict[nn.Parameter, Tensor] = {}
    try:
        for weights, strength in loras:
            for part, changes in weights.items():
                for path, change in changes.items():
                    weight = base.part(part).module.get_parameter(f"{path}.weight")
                    originals.setdefault(weight, weight.data)
                    delta = LowRank(change.down.to(weight.device), change.up.to(weight.device), change.alpha).delta()
                    weight.data = (weight.data.float() + strength * delta.view_as(weight)).to(weight.dtype)
        yield
    finally:
        for weight, original in originals.items():
            weight.data = original
