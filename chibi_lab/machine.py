"""Where a training runs: on the processor, as is usual, or on a card."""

from contextlib import AbstractContextManager
from typing import Any

import torch

from models import arithmetic

_device = torch.device("cpu")


def use(name: str) -> None:
    """Run on this device from now on: cpu, or cuda."""
    global _device  # noqa: PLW0603 - one process trains on one device
    _device = torch.device(name)


def device() -> torch.device:
    return _device


def bf16_is_faster() -> bool:
    return _device.type != "cpu" or arithmetic.bf16_is_faster()


def autocast() -> AbstractContextManager[Any]:
    """The fastest arithmetic of this device."""
    return arithmetic.autocast() if _device.type == "cpu" else torch.autocast(_device.type, torch.bfloat16)
