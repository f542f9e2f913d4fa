"""The kinds of change that a LoRA file makes to a weight, told by the tensors of one module, and their shapes.

LoRA: arXiv 2106.09685. LoHa: arXiv 2108.06098. LoKr and the Tucker forms: LyCORIS, arXiv 2309.14859. DoRA: arXiv
2402.09353.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from shared.lora_files.keys import ALPHA, DORA_SCALE, DOWN, LOHA, LOKR, MAGNITUDE, MID, UP
from shared.lora_files.modules import Shape

FACTORS = ("lokr_w1", "lokr_w2")


class BadLora(ValueError):
    """A file that can't be used as a LoRA. The message says what it is, and what to do; `code` is stable."""

    def __init__(self, message: str, *, code: str = "bad_lora"):
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Kind:
    """How one weight is changed."""

    name: str  # lora, loha or lokr
    rank: int  # of its small matrices; 0: it has none
    tucker: bool  # whether a core of the kernel's size stands between its matrices
    decomposed: bool  # DoRA: the length of the changed weight is learned apart


def kind_of(sides: Mapping[str, Shape], weight: Shape) -> Kind:
    """The kind of change of a module.

    Args:
        sides: the shapes of its tensors, by the words of `keys`.
        weight: the shape of the weight that is changed.

    Raises:
        BadLora: tensors are missing or don't belong together, or the change doesn't fit the weight.
    """
    found = sides.keys() - {ALPHA, MAGNITUDE, DORA_SCALE}
    name = next((name for name, known in SIDES.items() if found <= known), None)
    if name is None or not found:
        raise BadLora(f"its tensors don't belong together: {', '.join(sorted(sides))}")
    if math.prod(sides.get(ALPHA, ())) != 1:
        raise BadLora(f"its alpha isn't a number, but has the shape {list(sides[ALPHA])}")
    rank, tucker = CHECKS[name](sides, weight)
    decomposed = sides.keys() & {MAGNITUDE, DORA_SCALE}
    if len(decomposed) > 1:
        raise BadLora(f"it has both {DORA_SCALE} and {MAGNITUDE}, which are the same")
    for side in decomposed:
        _check_lengths(side, sides[side], weight)
    return Kind(name, rank, tucker, bool(decomposed))


def _check_lora(sides: Mapping[str, Shape], weight: Shape) -> tuple[int, bool]:
    down, up = _shape(sides, DOWN), _shape(sides, UP)
    rank, out, into = down[0], weight[0], weight[1]
    if MID not in sides:
        _fit(sides, DOWN, (rank, math.prod(weight[1:])), flat=True)
        _fit(sides, UP, (out, rank), flat=True)
        return _positive(rank), False
    outer = math.prod(up[1:])
    _fit(sides, DOWN, (rank, into), flat=True)
    _fit(sides, UP, (out, outer), flat=True)
    _fit(sides, MID, (outer, rank, *weight[2:]))
    return _positive(rank), True


def _check_loha(sides: Mapping[str, Shape], weight: Shape) -> tuple[int, bool]:
    out, into = weight[0], weight[1]
    rank, tucker = _shape(sides, "hada_w1_b")[0], "hada_t1" in sides
    for number in (1, 2):
        _fit(sides, f"hada_w{number}_a", (rank, out) if tucker else (out, rank))
        _fit(sides, f"hada_w{number}_b", (rank, into if tucker else math.prod(weight[1:])))
        if tucker:
            _fit(sides, f"hada_t{number}", (rank, rank, *weight[2:]))
    if not tucker and "hada_t2" in sides:
        raise BadLora("it has hada_t2 without hada_t1")
    return _positive(rank), tucker


def _check_lokr(sides: Mapping[str, Shape], weight: Shape) -> tuple[int, bool]:
    for factor in FACTORS:
        if (factor in sides) == (f"{factor}_a" in sides):
            raise BadLora(f"it needs either {factor} or {factor}_a with {factor}_b")
    tucker = "lokr_t2" in sides
    first = _product(sides, "lokr_w1")
    if tucker:
        a, b = _shape(sides, "lokr_w2_a"), _shape(sides, "lokr_w2_b")
        second = (a[1], b[1], *weight[2:])
        _fit(sides, "lokr_t2", (a[0], b[0], *weight[2:]))
    else:
        second = _product(sides, "lokr_w2")
    made = (first[0] * second[0], math.prod(first[1:]) * math.prod(second[1:]))
    kernel = math.prod(weight[2:])
    is_kernel = len(second) == 2 or second[2:] == weight[2:]
    if len(first) != 2 or made != (weight[0], math.prod(weight[1:])) or math.prod(second[1:]) % kernel or not is_kernel:
        raise BadLora(f"its factors {list(first)} and {list(second)} don't make a weight of {list(weight)}")
    ranks = [_shape(sides, f"{factor}_b")[0] for factor in FACTORS if f"{factor}_b" in sides]
    for rank in ranks:
        _positive(rank)
    return max(ranks, default=0), tucker


SIDES = {"lora": {DOWN, UP, MID}, "loha": set(LOHA), "lokr": set(LOKR)}
CHECKS = {"lora": _check_lora, "loha": _check_loha, "lokr": _check_lokr}


def _product(sides: Mapping[str, Shape], factor: str) -> Shape:
    """The shape of a factor that is whole, or the product of two matrices."""
    if factor in sides:
        return _shape(sides, factor)
    a, b = _shape(sides, f"{factor}_a"), _shape(sides, f"{factor}_b")
    if len(a) != 2 or len(b) != 2 or a[1] != b[0]:
        raise BadLora(f"its {factor}_a {list(a)} and {factor}_b {list(b)} can't be multiplied")
    return a[0], b[1]


def _check_lengths(side: str, shape: Shape, weight: Shape) -> None:
    """One number for each output; in LyCORIS's spelling it may be one for each input."""
    by_input = side == DORA_SCALE and shape[:2] == (1, weight[1]) and math.prod(shape) == weight[1]
    if by_input or by_output(side, shape, weight):
        return
    raise BadLora(f"its {side} has the shape {list(shape)}, which doesn't fit a weight of {list(weight)}")


def by_output(side: str, shape: Shape, weight: Shape) -> bool:
    """Whether DoRA's lengths are those of the weight's outputs; peft's always are."""
    return math.prod(shape) == weight[0] and (side == MAGNITUDE or shape[:1] == weight[:1])


def _shape(sides: Mapping[str, Shape], side: str) -> Shape:
    """The shape of a tensor that must be there, and be a matrix at least."""
    if side not in sides:
        raise BadLora(f"its {side} is missing")
    if len(sides[side]) < 2:
        raise BadLora(f"its {side} isn't a matrix, but has the shape {list(sides[side])}")
    return sides[side]


def _fit(sides: Mapping[str, Shape], side: str, wanted: Shape, *, flat: bool = False) -> None:
    """Check a shape; `flat` takes a convolution's for a matrix."""
    shape = _shape(sides, side)
    if (shape[0], math.prod(shape[1:])) != wanted if flat else shape != wanted:
        raise BadLora(f"its {side} has the shape {list(shape)}, where {list(wanted)} would fit")


def _positive(rank: int) -> int:
    if rank < 1:
        raise BadLora("its rank is 0")
    return rank
