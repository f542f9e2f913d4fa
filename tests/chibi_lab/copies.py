"""Two processes that share the work of a step. Each imports this module, so it imports little."""

from __future__ import annotations

import torch
from torch import Tensor, distributed

from chibi_lab import parallel
from chibi_lab.muon import orthogonal


def stacks() -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(3, 16, 32), torch.randn(1, 32, 16), torch.randn(1, 16, 16)]


def one_copy(rank: int, folder: str) -> None:
    """Do this process's part, and write what both have made."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", world_size=2, rank=rank)
    torch.save(parallel.spread(orthogonal, stacks()), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()
