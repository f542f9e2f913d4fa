"""The denoiser's inputs besides the noisy latents: a table with one row for each text or picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Placement:
    """How a picture was resized and cropped: (width, height) and (left, top), in pixels. An input of SDXL."""

    original: tuple[int, int]  # size before resizing
    crop: tuple[int, int]  # position of the visible part, after resizing
    size: tuple[int, int]  # of the visible part


@dataclass(frozen=True)
class Conditioning:
    """Base class of a family's own dataclass. Only the family reads the fields.

    Each field is a tensor whose first dimension counts the rows, a list with an item for each row (texts of different
    lengths), or None if it is not set.
    """

    def take(self, rows: Sequence[int]) -> Self:
        """These rows, in this order. A row may occur more than once."""
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
