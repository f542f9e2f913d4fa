"""The parts of a base model that a LoRA may change, and how files of LoRAs spell them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from torch import nn

from shared.catalog import LORA_MODULES
from shared.catalog.params import TrainParams


class Role(Enum):
    """What a part does."""

    DENOISER = auto()
    TEXT_ENCODER = auto()


def underscored(path: str) -> str:
    """`mid_block.attentions.0` -> `mid_block_attentions_0`"""
    return path.replace(".", "_")


def lora_a_and_b(path: str) -> tuple[str, str]:
    """The keys of a submodule's two matrices in peft's spelling, without a prefix."""
    return f"{path}.lora_A.weight", f"{path}.lora_B.weight"


@dataclass(frozen=True)
class Part:
    """One row of `Family.parts`."""

    name: str  # diffusers' word for it; checkpoints use it too
    module: nn.Module
    role: Role
    targets: Mapping[str, Sequence[str]]  # a name of LORA_MODULES -> how the paths of the submodules that carry it end
    kohya_prefix: str  # how its keys begin in a file of kohya's form
    peft_prefix: str  # and in a file of peft's form
    learning_rate: str = "learning_rate"  # the field of TrainParams that holds its learning rate
    never: Sequence[str] = ()  # submodules whose paths contain one of these carry no LoRA
    kohya_path: Callable[[str], str] = underscored  # a submodule's path, as a file of kohya's form spells it
    other_kohya_prefixes: Sequence[str] = ()  # read as well, with underscored paths; never written
    other_peft_prefixes: Sequence[str] = ()
    peft_keys: Callable[[str], tuple[str, str]] = lora_a_and_b  # how a file of peft's form spells a submodule's keys

    def lora_paths(self, modules: str) -> list[str]:
        """Full paths of the submodules that carry a LoRA on `modules`, a name of LORA_MODULES."""
        ends = tuple(f".{end}" for end in self.targets[modules])
        return [
            path
            for path, _ in self.module.named_modules()
            if f".{path}".endswith(ends) and not any(word in path for word in self.never)
        ]

    def could_carry(self) -> list[str]:
        """Full paths of everything in it that some LoRA could change."""
        return [path for path, module in self.module.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]

    def kohya_names(self, path: str) -> list[str]:
        """How keys of a submodule begin in kohya's form: as we write it, then as others do."""
        others = [prefix + underscored(path) for prefix in self.other_kohya_prefixes]
        return [self.kohya_prefix + self.kohya_path(path), *others]

    def peft_names(self, path: str) -> list[str]:
        """How keys of a submodule begin in peft's form: as we write it, then as others do."""
        return [prefix + path for prefix in (self.peft_prefix, *self.other_peft_prefixes)]

    def rate(self, params: TrainParams) -> float:
        """Its learning rate in a training."""
        return getattr(params, self.learning_rate)

    def learns(self, params: TrainParams) -> bool:
        """Whether a training changes it. The denoiser always learns, a text encoder if it has a learning rate."""
        return self.role is Role.DENOISER or self.rate(params) > 0


def on_all(ends: Sequence[str]) -> dict[str, Sequence[str]]:
    """The same targets under every name of LORA_MODULES."""
    return dict.fromkeys(LORA_MODULES, ends)
