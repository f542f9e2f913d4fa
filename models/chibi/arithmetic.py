"""Which numbers to multiply."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

# Tiles for bf16 (AMX). Without them torch is slower in bf16 than in fp32, even where AVX-512 knows bf16.
HAS_TILES = bool(torch.cpu.get_capabilities().get("amx_bf16"))


def autocast() -> AbstractContextManager[Any]:
    """The fastest arithmetic of this processor."""
    return torch.autocast("cpu", torch.bfloat16) if HAS_TILES else nullcontext()
