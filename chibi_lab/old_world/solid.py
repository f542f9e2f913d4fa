"""Ellipsoids and cone frusta: the only shapes that she is made of, because a ray meets them in closed form."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

Array = np.ndarray
Vector = Array | Sequence[float]
Paint = Callable[[Array], Array]  # local points (..., 3) -> colours (..., 3)
Keep = Callable[[Array], Array]  # local points (..., 3) -> which of them exist

NOWHERE = np.float32(-99.0)  # behind everything
Hit = tuple[Array, Array]  # depth along the ray (larger is nearer), and where the ray meets the solid


def rotate_x(degrees: float) -> Array:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def rotate_y(degrees: float) -> Array:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def rotate_z(degrees: float) -> Array:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


@dataclass
class Solid:
    """A unit sphere, or a frustum of radii `bottom` and `top` along y in -1..1, put into the world.

    `part` names what it is ("tail") and, after a colon, which one ("arm:left"); where two parts meet a line is drawn.
    """

    part: str
    centre: Array
    to_local: Array  # (3, 3), world offset -> local
    paint: Paint
    keep: Keep | None = None
    is_cone: bool = False
    bottom: float = 1.0
    top: float = 1.0
    capped: bool = True

    @property
    def slope(self) -> float:
        return (self.top - self.bottom) / 2

    @property
    def middle(self) -> float:
        return (self.top + self.bottom) / 2

    def hits(self, origin: list[Array], ray: Array) -> list[Hit]:
        """Where rays `origin + t * ray` (in local space) meet the surface."""
        return self._cone_hits(origin, ray) if self.is_cone else self._ellipsoid_hits(origin, ray)

    def _ellipsoid_hits(self, p: list[Array], d: Array) -> list[Hit]:
        a = d @ d
        b = p[0] * d[0] + p[1] * d[1] + p[2] * d[2]
        c = p[0] ** 2 + p[1] ** 2 + p[2] ** 2 - 1
        root, ok = real_root(b, a, c)
        hits = [((-b + root) / a, ok)]
        if self.keep is not None:  # through the hole one sees the far wall
            hits.append(((-b - root) / a, ok))
        return hits

    def _cone_hits(self, p: list[Array], d: Array) -> list[Hit]:
        radius = self.middle + self.slope * p[1]
        a = d[0] ** 2 + d[2] ** 2 - (self.slope * d[1]) ** 2
        a = a if abs(a) > 1e-6 else 1e-6
        b = p[0] * d[0] + p[2] * d[2] - radius * self.slope * d[1]
        c = p[0] ** 2 + p[2] ** 2 - radius**2
        root, ok = real_root(b, a, c)
        hits = []
        for t in ((-b + root) / a, (-b - root) / a):
            y = p[1] + t * d[1]
            hits.append((t, ok & (np.abs(y) <= 1) & (self.middle + self.slope * y >= 0)))
        if self.capped and abs(d[1]) > 1e-6:
            for y, r in ((-1.0, self.bottom), (1.0, self.top)):
                t = (y - p[1]) / d[1]
                hits.append((t, (p[0] + t * d[0]) ** 2 + (p[2] + t * d[2]) ** 2 <= r * r))
        return hits

    def normals(self, p: Array) -> Array:
        """Outward normals at local surface points, still in local space (not unit)."""
        if not self.is_cone:
            return p
        normal = p.copy()
        normal[:, 1] = -self.slope * (self.middle + self.slope * p[:, 1])
        cap = np.abs(np.abs(p[:, 1]) - 1) < 1e-4
        normal[cap] = np.sign(p[cap]) * np.array([0, 1, 0], p.dtype)
        return normal

    def half_extent(self, from_local: Array) -> Array:
        """Half of the bounding box on the screen; `from_local` maps local to view space."""
        rows = from_local[:2]
        if self.is_cone:
            return np.abs(rows[:, 1]) + np.hypot(rows[:, 0], rows[:, 2])
        return np.sqrt((rows**2).sum(1))


def real_root(b: Array, a: float, c: Array) -> Hit:
    discriminant = b * b - a * c
    ok = discriminant > 0
    return np.sqrt(np.where(ok, discriminant, 0)), ok


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
    turn = np.eye(3) if turn is None else turn
    to_local = (turn / np.asarray(radii, float)[None, :]).T
    return Solid(part, np.asarray(centre, float), to_local, as_paint(color), keep)


def cone(
    part: str,
    start: Vector,
    end: Vector,
    start_radius: float,
    end_radius: float,
    color: Vector | Paint,
    flat: float = 1.0,
    capped: bool = True,
) -> Solid:
    """A frustum from `start` (local y = -1) to `end` (y = +1); `flat` squashes it from front to back."""
    start, end = np.asarray(start, float), np.asarray(end, float)
    half = np.linalg.norm(end - start) / 2
    y = (end - start) / (2 * half)
    x = np.cross(y, (0.0, 0.0, 1.0))
    x = x / np.linalg.norm(x)
    z = np.cross(x, y)
    widest = max(start_radius, end_radius)
    turn = np.stack([x, y, z], 1)
    to_local = (turn / np.array([widest, half, widest * flat])[None, :]).T
    return Solid(
        part,
        (start + end) / 2,
        to_local,
        as_paint(color),
        is_cone=True,
        bottom=start_radius / widest,
        top=end_radius / widest,
        capped=capped,
    )


def ball(part: str, centre: Vector, radius: float, color: Vector | Paint) -> Solid:
    return ellipsoid(part, centre, (radius, radius, radius), color)


def tube(part: str, points: Sequence[Array], radius: float, color: Vector | Paint) -> list[Solid]:
    """A bent tube with round joints."""
    joints = [ball(part, p, radius, color) for p in points]
    spans = [cone(part, a, b, radius, radius, color, capped=False) for a, b in pairwise(points)]
    return joints + spans
