"""The one base model that a worker process keeps warm."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

from shared import catalog

if TYPE_CHECKING:
    import torch

    from workers.diffusion.families.base import Family

_warm: list[Family] = []  # one or none


def load(base_model: catalog.BaseModel, device: str | torch.device | None = None) -> Family:
    """The base model, from memory if it is the last one asked for, else from disk in its place."""
    if _warm and _warm[0].row == base_model and (device is None or str(_warm[0].device) == str(device)):
        return _warm[0]
    unload()
    _warm.append(catalog.resolve(catalog.FAMILIES[base_model.family].code)(base_model, device))
    return _warm[0]


def check_device(device: str) -> None:
    """Refuse one that this machine doesn't have, or has lost."""
    import torch

    try:
        torch.zeros(1, device=device)
    except (AssertionError, RuntimeError) as error:  # torch without CUDA asserts
        raise RuntimeError(f"there is no device {device!r} here: {error}") from error


def unload() -> None:
    """Free the warm base model, before the next one takes its memory."""
    if not _warm:
        return
    import torch

    _warm.clear()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
