"""The base models that a worker process keeps in memory between jobs: as many as fit."""

from __future__ import annotations

import gc
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

from shared import catalog
from shared.checkpoints.scan import Stamp, stamp_of

if TYPE_CHECKING:
    import torch

    from workers.diffusion.families.base import Family

DEFAULT_BYTES = 8_000_000_000
WIDENED = 2  # on a CPU, half-precision weights take twice the bytes of their file

# A base model, with the sizes and times of its VAE and its configs. Its row has the hash of its own file.
Key = tuple[catalog.BaseModel, tuple[Stamp, ...]]

_warm: OrderedDict[Key, Family] = OrderedDict()  # the one used last comes last


def load(
    base_model: catalog.BaseModel, device: str | torch.device | None = None, keep_bytes: int = DEFAULT_BYTES
) -> Family:
    """The base model, from memory if it is there, else from disk.

    Before one is loaded, those used least recently are dropped until all together have at most `keep_bytes`, the new
    one counted with twice the size of its file.

    Raises:
        OSError, ValueError: it can't be read.
    """
    key = base_model, tuple(stamp_of(Path(path)) for path in base_model.companions)
    warm = _warm.get(key)
    if warm is None or (device is not None and str(warm.device) != str(device)):
        _warm.pop(key, None)
        _make_room(keep_bytes - WIDENED * base_model.size_bytes)
        _warm[key] = catalog.resolve(catalog.FAMILIES[base_model.family].code)(base_model, device)
    _warm.move_to_end(key)
    return _warm[key]


def check_device(device: str) -> None:
    """Refuse one that this machine doesn't have, or has lost."""
    import torch

    try:
        torch.zeros(1, device=device)
    except (AssertionError, RuntimeError) as error:  # torch without CUDA asserts
        raise RuntimeError(f"there is no device {device!r} here: {error}") from error


def unload() -> None:
    """Free all base models."""
    _drop(len(_warm))


def bytes_of(family: Family) -> int:
    """The memory of a base model's weights."""
    modules = [*(part.module for part in family.parts), *_others(family)]
    return sum(each.nbytes for module in modules for each in (*module.parameters(), *module.buffers()))


def _others(family: Family) -> list[torch.nn.Module]:
    import torch

    parts = [part.module for part in family.parts]
    return [each for each in vars(family).values() if isinstance(each, torch.nn.Module) and each not in parts]


def _make_room(allowed: int) -> None:
    """Drop base models, the one used least recently first, until the others have at most `allowed` bytes."""
    sizes = [bytes_of(family) for family in _warm.values()]
    dropped = 0
    while dropped < len(sizes) and sum(sizes[dropped:]) > allowed:
        dropped += 1
    _drop(dropped)


def _drop(count: int) -> None:
    if not count:
        return
    import torch

    for _ in range(count):
        _warm.popitem(last=False)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
