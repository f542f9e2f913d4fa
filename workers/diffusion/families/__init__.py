"""The one base model that a worker process keeps warm."""

from __future__ import annotations

import gc
from importlib import import_module
from typing import TYPE_CHECKING

from shared import catalog

if TYPE_CHECKING:
    import torch

    from workers.diffusion.families.base import Family

_warm: Family | None = None


def load(base_model: catalog.BaseModel, device: str | torch.device | None = None) -> Family:
    """The base model, from memory if it is the last one asked for, else from disk in its place."""
    global _warm
    if _warm is not None and _warm.row == base_model and (device is None or str(_warm.device) == str(device)):
        return _warm
    unload()
    module, name = catalog.FAMILIES[base_model.family].code.split(":")
    _warm = getattr(import_module(module), name)(base_model, device)
    return _warm


def unload() -> None:
    """Free the warm base model, before the next one takes its memory."""
    global _warm
    if _warm is None:
        return
    _warm = None
    gc.collect()
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
