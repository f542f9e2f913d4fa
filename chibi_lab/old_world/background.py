"""What is behind her."""

import numpy as np

from . import palette
from .solid import Array, Vector

WHITE = np.ones(3, np.float32)


def background(name: str, size: int, seed: int) -> Array:
    """(size, size, 3) floats."""
    scenes = {"outdoors": outdoors, "indoors": indoors, "night": night}
    if name in scenes:
        return scenes[name](size, np.random.default_rng(seed))
    color: Array = np.array(palette.BACKDROP[name.split()[0]], np.float32)
    if name.endswith("gradient"):
        down = np.linspace(0, 1, size, dtype=np.float32)[:, None, None]
        color = color * 0.9 * (1 - down) + (0.35 * color + 0.65 * WHITE) * down
    return np.broadcast_to(color, (size, size, 3)).copy()


def grid(size: int) -> tuple[Array, Array]:
    """x to the right and y downwards, in 0..1."""
    line = (np.arange(size, dtype=np.float32) + 0.5) / size
    return line[None, :], line[:, None]


def fill(picture: Array, mask: Array, color: Vector) -> None:
    picture[np.broadcast_to(mask, picture.shape[:2])] = color


def outdoors(size: int, rng: np.random.Generator) -> Array:
    """Sky, clouds, a meadow."""
    x, y = grid(size)
    picture = background("blue gradient", size, 0)
    for _ in range(3):
        cx, cy, r = rng.uniform(0, 1), rng.uniform(0.06, 0.4), rng.uniform(0.06, 0.12)
        fill(picture, ((x - cx) / (2.2 * r)) ** 2 + ((y - cy) / r) ** 2 < 1, WHITE)
    horizon = rng.uniform(0.60, 0.75)
    hill = horizon + 0.04 * np.sin(x * rng.uniform(4, 8) + rng.uniform(0, 6))
    fill(picture, y > hill, (0.55, 0.80, 0.45))
    return picture


def indoors(size: int, rng: np.random.Generator) -> Array:
    """A wall with a window, and a wooden floor."""
    x, y = grid(size)
    picture = np.broadcast_to(np.array((0.96, 0.90, 0.80), np.float32), (size, size, 3)).copy()
    left, top, width = rng.uniform(0.02, 0.65), rng.uniform(0.06, 0.18), 0.3
    dx, dy = x - left - width / 2, y - top - width / 2
    fill(picture, (np.abs(dx) < 0.5 * width) & (np.abs(dy) < 0.5 * width), (0.72, 0.55, 0.40))
    pane = (np.abs(np.abs(dx) - 0.24 * width) < 0.18 * width) & (np.abs(np.abs(dy) - 0.24 * width) < 0.18 * width)
    fill(picture, pane, (0.70, 0.87, 0.97))
    floor = rng.uniform(0.70, 0.80)
    fill(picture, y > floor, (0.76, 0.58, 0.42))
    fill(picture, np.abs(y - floor) < 0.012, (0.60, 0.44, 0.32))
    return picture


def night(size: int, rng: np.random.Generator) -> Array:
    """A dark sky with stars and a moon."""
    x, y = grid(size)
    top, low = np.array((0.10, 0.11, 0.28), np.float32), np.array((0.28, 0.26, 0.50), np.float32)
    picture = np.broadcast_to(top * (1 - y[..., None]) + low * y[..., None], (size, size, 3)).copy()
    for _ in range(14):
        cx, cy, r = rng.uniform(0, 1), rng.uniform(0, 0.8), rng.uniform(0.006, 0.012)
        fill(picture, np.abs(x - cx) + np.abs(y - cy) < r * 1.4, (1.0, 0.97, 0.75))
    cx, cy = rng.choice((0.14, 0.86)), rng.uniform(0.12, 0.2)
    fill(picture, (x - cx) ** 2 + (y - cy) ** 2 < 0.008, (1.0, 0.95, 0.70))
    return picture
