"""Which numbers to multiply."""

import time
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch

CLEARLY = 1.5  # times faster, or the conversions eat it up


@cache
def bf16_is_faster() -> bool:
    """Whether this processor multiplies bf16 clearly faster than fp32.

    Tried out once (20 ms), since flags don't tell: without tiles (AMX), but with AVX-512's bf16, a Xeon multiplies .6
    times as fast in it as in fp32, an EPYC twice as fast.
    """
    return CLEARLY * _seconds(torch.bfloat16) < _seconds(torch.float32)


def autocast() -> AbstractContextManager[Any]:
    """The fastest arithmetic of this processor."""
    return torch.autocast("cpu", torch.bfloat16) if bf16_is_faster() else nullcontext()


def _seconds(dtype: torch.dtype, size: int = 512, times: int = 7) -> float:
    """The shortest time of a product of two square matrices."""
    matrix = torch.ones(size, size, dtype=dtype)
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        matrix @ matrix
        taken.append(time.perf_counter() - started)
    return min(taken)
