"""Pictures as numbers, and back."""

import numpy as np
import torch
from torch import Tensor


def to_tensor(pictures: np.ndarray) -> Tensor:
    """uint8 (n, h, w, 3) to floats in -1..1, (n, 3, h, w)"""
    return torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float().contiguous() / 127.5 - 1


def to_pictures(x: Tensor) -> np.ndarray:
    """The way back; what lies outside -1..1 is cut off."""
    return ((x.float().permute(0, 2, 3, 1) + 1) * 127.5).clamp(0, 255).round().byte().numpy()
