"""Ellipsoids, frusta and boxes: all that characters are made of, because a ray meets them in closed form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

Array = np.ndarray
Vector = Array | Sequence[float]
Paint = Callable[[Array], Array]  # local points (n, 3) -> colours (n, 3)
Keep = Callable[[Array], Array]  # local points (..., 3) -> which of them exist

NOWHERE = np.float32(-99.0)  # behind everything
Hit = tuple[Array, Array]  # depth along the ray (larger is nearer), and where the ray meets the solid
EYE = np.eye(3)


def rotate_x(degrees: float) -> Array:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def rotate_y(degrees: float) -> Array:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def rotate_z(degrees: float) -> Array:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def unit(v: Vector) -> Array:
    v = np.asarray(v, float)
    return v / (np.linalg.norm(v) + 1e-12)


def frame(y: Vector, z: Vector = (0.0, 0.0, 1.0)) -> Array:
    """A turn whose y axis is along `y` and whose z axis is as near to `z` as can be."""
    y = unit(y)
    x = np.cross(y, z)
    x = unit(x) if np.linalg.norm(x) > 1e-4 else unit(np.cross(y, (1.0, 0.3, 0.0)))
    return np.stack([x, y, np.cross(x, y)], 1)


@dataclass
class Solid:
    """A shape around the origin, put into the world by a turn and three radii.

    `part` names what it is ("tail") and, after a colon, which one ("arm:left"); where two parts meet a line is drawn.
    """

    part: str
    centre: Array
    turn: Array  # (3, 3), its columns are the axes
    radii: Array
    paint: Paint
    keep: Keep | None = None

    @property
    def to_local(self) -> Array:
        """(3, 3), world offset -> local."""
        return (self.turn / self.radii[None, :]).T

    @property
    def from_local(self) -> Array:
        return self.turn * self.radii[None, :]

    def hits(self, p: list[Array], d: Array) -> list[Hit]:
        """Where rays `p + t * d` (in local space) meet the surface."""
        raise NotImplementedError

    def normals(self, p: Array) -> Array:
        """Outward normals at local surface points (n, 3), still in local space (not unit)."""
        raise NotImplementedError

    def half_extent(self, axes: Array) -> Array:
        """Half of the bounding box on the screen; `axes` (2, 3) maps local to screen."""
        raise NotImplementedError


class Ellipsoid(Solid):
    def hits(self, p: list[Array], d: Array) -> list[Hit]:
        a = float(d @ d)
        b = p[0] * d[0] + p[1] * d[1] + p[2] * d[2]
        c = p[0] ** 2 + p[1] ** 2 + p[2] ** 2 - 1
        root, ok = real_root(b, a, c)
        hits = [((root - b) / a, ok)]
        if self.keep is not None:  # through the hole one sees the far wall
            hits.append(((-b - root) / a, ok))
        return hits

    def normals(self, p: Array) -> Array:
        return p

    def half_extent(self, axes: Array) -> Array:
        return np.sqrt((axes**2).sum(1))


@dataclass
class Frustum(Solid):
    """Of radii `bottom` and `top` along y in -1..1."""

    bottom: float = 1.0
    top: float = 1.0
    capped: bool = True

    @property
    def slope(self) -> float:
        return (self.top - self.bottom) / 2

    @property
    def middle(self) -> float:
        return (self.top + self.bottom) / 2

    def hits(self, p: list[Array], d: Array) -> list[Hit]:
        radius = self.middle + self.slope * p[1]
        a = d[0] ** 2 + d[2] ** 2 - (self.slope * d[1]) ** 2
        a = a if abs(a) > 1e-6 else np.float32(1e-6)
        b = p[0] * d[0] + p[2] * d[2] - radius * self.slope * d[1]
        c = p[0] ** 2 + p[2] ** 2 - radius**2
        root, ok = real_root(b, a, c)
        hits = []
        for t in ((root - b) / a, (-b - root) / a):
            y = p[1] + t * d[1]
            hits.append((t, ok & (np.abs(y) <= 1) & (self.middle + self.slope * y >= 0)))
        if self.capped and abs(d[1]) > 1e-6:
            for y_cap, r in ((-1.0, self.bottom), (1.0, self.top)):
                t = (y_cap - p[1]) / d[1]
                hits.append((t, (p[0] + t * d[0]) ** 2 + (p[2] + t * d[2]) ** 2 <= r * r))
        return hits

    def normals(self, p: Array) -> Array:
        normal = p.copy()
        normal[:, 1] = -self.slope * (self.middle + self.slope * p[:, 1])
        if self.capped:
            cap = np.abs(np.abs(p[:, 1]) - 1) < 1e-4
            normal[cap] = np.sign(p[cap]) * np.array([0, 1, 0], p.dtype)
        return normal

    def half_extent(self, axes: Array) -> Array:
        return np.abs(axes[:, 1]) + np.hypot(axes[:, 0], axes[:, 2])


class Box(Solid):
    def hits(self, p: list[Array], d: Array) -> list[Hit]:
        enter: Array | None = None
        leave: Array | None = None
        for k in range(3):
            dk = d[k] if abs(d[k]) > 1e-6 else np.float32(1e-6)
            near, far = (np.sign(dk) - p[k]) / dk, (-np.sign(dk) - p[k]) / dk
            enter = near if enter is None else np.minimum(enter, near)
            leave = far if leave is None else np.maximum(leave, far)
        assert enter is not None
        assert leave is not None
        hits = [(enter, enter >= leave)]
        if self.keep is not None:
            hits.append((leave, enter >= leave))
        return hits

    def normals(self, p: Array) -> Array:
        size = np.abs(p)
        return np.where(size >= size.max(1, keepdims=True) - 1e-4, np.sign(p), 0).astype(p.dtype)

    def half_extent(self, axes: Array) -> Array:
        return np.abs(axes).sum(1)


def real_root(b: Array, a: float | np.floating, c: Array) -> Hit:
    discriminant = b * b - a * c
    return np.sqrt(np.maximum(discriminant, 0)), discriminant > 0


def plain(color: Vector) -> Paint:
    shade = np.asarray(color, np.float32)
    return lambda p: np.broadcast_to(shade, p.shape)


def as_paint(color: Vector | Paint) -> Paint:
    return color if callable(color) else plain(color)


def ellipsoid(
    part: str,
    centre: Vector,
    radii: Vector,
    color: Vector | Paint,
    turn: Array | None = None,
    keep: Keep | None = None,
) -> Solid:
    turn = EYE if turn is None else turn
    return Ellipsoid(part, np.asarray(centre, float), turn, np.asarray(radii, float), as_paint(color), keep)


def box(part: str, centre: Vector, radii: Vector, color: Vector | Paint, turn: Array | None = None) -> Solid:
    turn = EYE if turn is None else turn
    return Box(part, np.asarray(centre, float), turn, np.asarray(radii, float), as_paint(color))


def cone(
    part: str,
    start: Vector,
    end: Vector,
    start_radius: float,
    end_radius: float,
    color: Vector | Paint,
    flat: float = 1.0,
    capped: bool = True,
    keep: Keep | None = None,
) -> Solid:
    """A frustum from `start` (local y = -1) to `end` (y = +1); `flat` squashes it from front to back."""
    start, end = np.asarray(start, float), np.asarray(end, float)
    half = float(np.linalg.norm(end - start)) / 2
    widest = max(start_radius, end_radius)
    radii = np.array([widest, half, widest * flat])
    turn = frame(end - start)
    ends = (start_radius / widest, end_radius / widest)
    return Frustum(part, (start + end) / 2, turn, radii, as_paint(color), keep, ends[0], ends[1], capped)


def ball(part: str, centre: Vector, radius: float, color: Vector | Paint) -> Solid:
    return ellipsoid(part, centre, (radius, radius, radius), color)


def tube(part: str, points: Iterable[Vector], radius: float, color: Vector | Paint) -> list[Solid]:
    """A bent tube with round joints."""
    bends = [np.asarray(p, float) for p in points]
    spans = [cone(part, a, b, radius, radius, color, capped=False) for a, b in pairwise(bends)]
    return [ball(part, p, radius, color) for p in bends] + spans
