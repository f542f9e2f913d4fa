"""Contact sheets of pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def sheet(pictures: Sequence[np.ndarray] | np.ndarray, columns: int, gap: int = 2) -> Image.Image:
    """Pictures (n, size, size, 3) in rows, on grey."""
    size = pictures[0].shape[0]
    rows = -(-len(pictures) // columns)
    canvas = np.full((rows * (size + gap) + gap, columns * (size + gap) + gap, 3), 128, np.uint8)
    for i, picture in enumerate(pictures):
        y, x = gap + (i // columns) * (size + gap), gap + (i % columns) * (size + gap)
        canvas[y : y + size, x : x + size] = picture
    return Image.fromarray(canvas)


def save_sheet(path: Path, pictures: Sequence[np.ndarray] | np.ndarray, columns: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet(pictures, columns).save(path, optimize=True)
