"""Several processes of one thread each, which share their gradients.

On a machine that does other work too, threads wait for each other at every operation; processes do so once a step.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

PATIENCE = timedelta(days=1)  # while one copy does what can't be shared


def relaunch(processes: int, arguments: list[str]) -> int:
    """Run this training again in `processes` copies; returns the first exit code that is not 0."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    command = [sys.executable, "-m", "chibi_lab.train", *arguments]
    environments = [os.environ | shared | {"RANK": str(rank)} for rank in range(processes)]
    copies = [subprocess.Popen(command, env=environment) for environment in environments]  # noqa: S603 - ourselves
    try:
        return max((copy.wait() for copy in copies), key=abs)
    finally:
        for copy in copies:
            copy.terminate()


def join() -> None:
    """Meet the other copies, if there are any."""
    if "WORLD_SIZE" in os.environ and not dist.is_initialized():
        dist.init_process_group("gloo", timeout=PATIENCE)


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def copies() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def wait() -> None:
    """Until every copy is here."""
    if dist.is_initialized():
        dist.barrier()


def share(batch: int) -> slice:
    """This copy's rows of a batch."""
    each = batch // copies()
    return slice(rank() * each, (rank() + 1) * each)


def spread(f: Callable[[Tensor], Tensor], stacks: list[Tensor]) -> list[Tensor]:
    """f of each stack, row by row; every copy works out some of the rows, and all get all. f keeps the shape."""
    if copies() == 1:
        return [f(stack) for stack in stacks]

    def rows(owner: int) -> list[slice]:
        return [slice((owner + i) % copies(), None, copies()) for i in range(len(stacks))]

    mine = [f(stack[some]) for stack, some in zip(stacks, rows(rank()), strict=True)]
    found = [torch.empty_like(stack) for stack in stacks]
    for owner in range(copies()):
        places = [whole[some] for whole, some in zip(found, rows(owner), strict=True)]
        parts = mine if owner == rank() else places
        flat = torch.cat([part.reshape(-1) for part in parts])
        dist.broadcast(flat, owner)
        for place, part in zip(places, flat.split([place.numel() for place in places]), strict=True):
            place.copy_(part.view_as(place))
    return found


@torch.no_grad()
def average_gradients(model: nn.Module) -> None:
    if copies() == 1:
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    dist.all_reduce(flat)
    flat /= copies()
    for g, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        g.copy_(part.view_as(g))
