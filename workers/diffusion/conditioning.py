"""What the denoiser is told besides the noisy latents: a table with one row for each text or picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Placement:
    """How a picture came to its size: (width, height) and (left, top), in pixels. SDXL was trained with it."""

    original: tuple[int, int]  # before it was resized
    crop: tuple[int, int]  # where the part that is seen begins, after resizing
    size: tuple[int, int]  # of what is seen


@dataclass(frozen=True)
class Conditioning:
    """Base of a family's own dataclass, into which only the family looks.

    Each field is a tensor whose first dimension counts the rows, a list with an item for each row (texts of different
    lengths), or None if it is not there (yet).
    """

    def take(self, rows: Sequence[int]) -> Self:
        """These rows, in this order; a row may be taken more than once."""
        index = list(rows)
        return self._map(lambda field: field[index] if isinstance(field, Tensor) else [field[row] for row in index])

    def to(self, device: torch.device) -> Self:
        """The same on another device."""
        return self._map(
            lambda field: (
                field.to(device)
                if isinstance(field, Tensor)
                else [item.to(device) if isinstance(item, Tensor) else item for item in field]
            )
        )

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """The rows of all parts, one part after the other."""
        joined: dict[str, Any] = {}
        for field in fields(cls):
            values = [getattr(part, field.name) for part in parts]
            if values[0] is None:
                joined[field.name] = None
            elif isinstance(values[0], Tensor):
                joined[field.name] = torch.cat(values)
            else:
                joined[field.name] = [item for value in values for item in value]
        return cls(**joined)

    def _map(self, change: Callable[[Any], Any]) -> Self:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return type(self)(**{name: None if value is None else change(value) for name, value in values.items()})
