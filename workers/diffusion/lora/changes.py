"""How a LoRA changes one weight: each kind of change computes what is added to the weight.

In the formulas W is the base model's weight, (out, in) or (out, in, k, k), and r the rank.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from shared.lora_files import keys
from shared.lora_files.kinds import Kind, by_output


class Change(ABC):
    """The change of one weight."""

    @abstractmethod
    def delta(self, weight: Tensor) -> Tensor:
        """What is added to the weight `W`, in its shape, on its device and in fp32."""

    def to(self, device: torch.device) -> Change:
        """The same with its tensors on a device."""
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        moved = {name: each.to(device) for name, each in tensors.items() if isinstance(each, Tensor | Change)}
        return replace(self, **moved)  # type: ignore[type-var]


@dataclass(frozen=True)
class LowRank(Change):
    """LoRA (arXiv 2106.09685): up @ down, times alpha / r."""

    down: Tensor  # (r, in) or (r, in, k, k)
    up: Tensor  # (out, r) or (out, r, 1, 1)
    alpha: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    def delta(self, weight: Tensor) -> Tensor:
        return (self.up.float().flatten(1) @ self.down.float().flatten(1)).reshape(weight.shape) * (
            self.alpha / self.rank
        )


@dataclass(frozen=True)
class Tucker(Change):
    """LoRA of a convolution with a core of the kernel's size (LyCORIS, arXiv 2309.14859), times alpha / r."""

    down: Tensor  # (r, in, 1, 1)
    mid: Tensor  # (s, r, k, k); s is r, as a rule
    up: Tensor  # (out, s, 1, 1)
    alpha: float

    def delta(self, weight: Tensor) -> Tensor:
        return rebuilt(self.mid, self.up.flatten(1).T, self.down.flatten(1)) * (self.alpha / self.down.shape[0])


@dataclass(frozen=True)
class Hadamard(Change):
    """LoHa (arXiv 2108.06098): (w1_a @ w1_b) * (w2_a @ w2_b), elementwise, times alpha / r."""

    w1_a: Tensor  # (out, r); (r, out) with a core
    w1_b: Tensor  # (r, in * k * k); (r, in) with a core
    w2_a: Tensor
    w2_b: Tensor
    alpha: float
    t1: Tensor | None = None  # the cores: (r, r, k, k)
    t2: Tensor | None = None

    def delta(self, weight: Tensor) -> Tensor:
        first = self._factor(self.t1, self.w1_a, self.w1_b)
        second = self._factor(self.t2, self.w2_a, self.w2_b)
        return (first * second).reshape(weight.shape) * (self.alpha / self.w1_b.shape[0])

    @staticmethod
    def _factor(core: Tensor | None, a: Tensor, b: Tensor) -> Tensor:
        return a.float() @ b.float() if core is None else rebuilt(core, a, b)


@dataclass(frozen=True)
class Kronecker(Change):
    """LoKr (LyCORIS, arXiv 2309.14859): the Kronecker product of two factors, times alpha / r if one has a rank."""

    w1: Tensor  # (out_1, in_1)
    w2: Tensor  # (out_2, in_2) or (out_2, in_2, k, k)
    scale: float

    def delta(self, weight: Tensor) -> Tensor:
        second = self.w2.reshape(self.w2.shape[0], -1, *weight.shape[2:]).contiguous()
        first = self.w1.reshape(*self.w1.shape, *(1,) * (weight.ndim - 2))
        return torch.kron(first, second).reshape(weight.shape) * self.scale


@dataclass(frozen=True)
class Decomposed(Change):
    """DoRA (arXiv 2402.09353): W + change is given the lengths that were learned, by output or by input."""

    change: Change
    lengths: Tensor
    by_output: bool

    def delta(self, weight: Tensor) -> Tensor:
        whole = weight.float()
        changed = whole + self.change.delta(weight)
        others = [axis for axis in range(weight.ndim) if axis != (0 if self.by_output else 1)]
        lengths = torch.linalg.vector_norm(changed, dim=others, keepdim=True)
        return changed * (self.lengths.float().view_as(lengths) / lengths.clamp_min(EPSILON)) - whole


EPSILON = torch.finfo(torch.float32).eps


def of(kind: Kind, sides: Mapping[str, Tensor], alpha: float | None, weight: Tensor) -> Change:
    """The change that the tensors of one module make, which fit each other and the weight.

    Args:
        sides: its tensors, by the words of `shared.lora_files.keys`.
        alpha: None: full strength.
    """
    full = float(kind.rank) if alpha is None else alpha
    change = MAKERS[kind.name](kind, sides, full)
    for side in (keys.MAGNITUDE, keys.DORA_SCALE):
        if side in sides:
            outputs = by_output(side, tuple(sides[side].shape), tuple(weight.shape))
            change = Decomposed(change, sides[side], outputs)
    return change


def _low_rank(kind: Kind, sides: Mapping[str, Tensor], alpha: float) -> Change:
    if kind.tucker:
        return Tucker(sides[keys.DOWN], sides[keys.MID], sides[keys.UP], alpha)
    return LowRank(sides[keys.DOWN], sides[keys.UP], alpha)


def _hadamard(kind: Kind, sides: Mapping[str, Tensor], alpha: float) -> Change:
    tensors = {side.removeprefix("hada_"): tensor for side, tensor in sides.items() if side in keys.LOHA}
    return Hadamard(alpha=alpha, **tensors)


def _kronecker(kind: Kind, sides: Mapping[str, Tensor], alpha: float) -> Change:
    scale = alpha / kind.rank if kind.rank else 1.0  # whole factors have no rank, and LyCORIS ignores their alpha
    return Kronecker(_whole(sides, "lokr_w1"), _whole(sides, "lokr_w2"), scale)


MAKERS = {"lora": _low_rank, "loha": _hadamard, "lokr": _kronecker}


def _whole(sides: Mapping[str, Tensor], factor: str) -> Tensor:
    """A factor of LoKr, out of its own matrices where it has some; in fp32."""
    if factor in sides:
        return sides[factor].float()
    a, b = sides[f"{factor}_a"], sides[f"{factor}_b"]
    if factor == "lokr_w2" and "lokr_t2" in sides:
        return rebuilt(sides["lokr_t2"], a, b)
    return a.float() @ b.float()


def rebuilt(core: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Tucker's form: the sum over i and j of core[i, j] a[i, out] b[j, in]: (out, in, k, k), in fp32."""
    return torch.einsum("ij...,io,jn->on...", core.float(), a.float(), b.float())
