"""LoRAs in memory: the change of each weight, and what a training made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from torch import Tensor, nn

from shared.catalog.params import TrainParams
from workers.diffusion.families.base import Family
from workers.diffusion.lora.changes import Change, LowRank

# name of a part -> path of the submodule -> its change
LoraWeights = Mapping[str, Mapping[str, LowRank]]  # of our own LoRAs
Changes = Mapping[str, Mapping[str, Change]]  # of any


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
def merged(base: Family, loras: Sequence[tuple[Changes, float]]) -> Iterator[None]:
    """The base with LoRAs added into its weights at the given strengths; its own tensors come back afterwards.

    Each change is computed from the base's own weight, so their order doesn't matter.
    """
    originals: dict[nn.Parameter, Tensor] = {}
    try:
        for changes, strength in loras:
            for part, of_part in changes.items():
                for path, change in of_part.items():
                    weight = base.part(part).module.get_parameter(f"{path}.weight")
                    original = originals.setdefault(weight, weight.data)
                    delta = change.to(weight.device).delta(original)
                    weight.data = (weight.data.float() + strength * delta).to(weight.dtype)
        yield
    finally:
        for weight, original in originals.items():
            weight.data = original
