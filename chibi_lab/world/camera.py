"""An orthographic camera: rays against solids, nearest first; only what is seen is painted."""

from dataclasses import dataclass

import numpy as np

from .solid import NOWHERE, Array, Solid

INSIDE_SHADE = 0.72  # the inner wall of cut-open solids


@dataclass
class Surface:
    """What each pixel sees."""

    depth: Array  # (s, s)
    part: Array  # (s, s) index into parts, 0 for nothing
    normal: Array  # (s, s, 3)
    color: Array  # (s, s, 3)
    parts: list[str]

    @property
    def covered(self) -> Array:
        return self.part > 0


@dataclass(frozen=True)
class Camera:
    turn: Array  # (3, 3), world -> view
    centre: tuple[float, float]  # of the window, in view space
    half: float  # of its width

    def see(self, solids: list[Solid], size: int) -> Surface:
        depth = np.full((size, size), NOWHERE, np.float32)
        index = np.zeros((size, size), np.int16)
        x, y = self._line(size, self.centre[0]), -self._line(size, -self.centre[1])
        for number, solid in enumerate(solids, 1):
            self._cover(solid, number, depth, index, x, y)
        return self._painted(solids, depth, index, x, y)

    def _cover(self, solid: Solid, number: int, depth: Array, index: Array, x: Array, y: Array) -> None:
        """Mark the pixels in which this solid is the nearest so far."""
        window = self._window(solid, len(depth))
        if window is None:
            return
        rows, cols = window
        to_local, shift = self._to_local(solid)
        left, up = x[cols][None, :], y[rows][:, None]
        origin = [to_local[k, 0] * left + (to_local[k, 1] * up - shift[k]) for k in range(3)]
        t = nearest(solid, origin, to_local[:, 2])
        before = depth[rows, cols]
        closer = t > before
        np.copyto(before, t, where=closer)
        index[rows, cols][closer] = number

    def _painted(self, solids: list[Solid], depth: Array, index: Array, x: Array, y: Array) -> Surface:
        size = len(depth)
        names = ["", *sorted({s.part for s in solids})]
        number_of = {name: i for i, name in enumerate(names)}
        part = np.array([0, *(number_of[s.part] for s in solids)], np.int16)[index]
        normal, color = np.zeros((size * size, 3), np.float32), np.zeros((size * size, 3), np.float32)
        flat = index.ravel()
        pixels = np.flatnonzero(flat)
        pixels = pixels[np.argsort(flat[pixels], kind="stable")]
        ends = np.cumsum(np.bincount(flat[pixels], minlength=len(solids) + 1))
        for number, solid in enumerate(solids, 1):
            mine = pixels[ends[number - 1] : ends[number]]
            if len(mine):
                row, column = np.divmod(mine, size)
                normal[mine], color[mine] = self._paint(solid, x[column], y[row], depth.ravel()[mine])
        return Surface(depth, part, normal.reshape(size, size, 3), color.reshape(size, size, 3), names)

    def _paint(self, solid: Solid, x: Array, y: Array, t: Array) -> tuple[Array, Array]:
        """Normals (towards the viewer) and colours at the points seen."""
        to_local, shift = self._to_local(solid)
        points = np.stack([x, y, t], 1) @ to_local.T - shift
        normals = solid.normals(points) @ to_local
        normals /= np.sqrt((normals**2).sum(1, keepdims=True)) + 1e-9
        colors = np.array(solid.paint(points), np.float32)
        inside = normals[:, 2] < 0
        normals[inside] *= -1
        if solid.keep is not None:
            colors[inside] *= INSIDE_SHADE
        return normals, colors

    def _to_local(self, solid: Solid) -> tuple[Array, Array]:
        return (solid.to_local @ self.turn.T).astype(np.float32), (solid.to_local @ solid.centre).astype(np.float32)

    def _line(self, size: int, middle: float) -> Array:
        return (((np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1) * self.half + middle).astype(np.float32)

    def _window(self, solid: Solid, size: int) -> tuple[slice, slice] | None:
        """The pixels that a solid can touch."""
        x, y = self.turn[:2] @ solid.centre
        wide, high = solid.half_extent(self.turn[:2] @ solid.from_local)
        scale = size / (2 * self.half)
        left, right = ((x + s * wide - self.centre[0] + self.half) * scale for s in (-1, 1))
        top, bottom = ((self.half + self.centre[1] - y + s * high) * scale for s in (-1, 1))
        cols = slice(max(0, int(left)), min(size, int(right) + 2))
        rows = slice(max(0, int(top)), min(size, int(bottom) + 2))
        return None if rows.start >= rows.stop or cols.start >= cols.stop else (rows, cols)


def nearest(solid: Solid, origin: list[Array], ray: Array) -> Array:
    """Depth of the nearest hit that exists; NOWHERE where there is none."""
    found = []
    for t, ok in solid.hits(origin, ray):
        kept = ok
        if solid.keep is not None and ok.any():
            kept = ok & solid.keep(np.stack([o + t * d for o, d in zip(origin, ray, strict=True)], -1))
        found.append(np.where(kept, t, NOWHERE))
    best = found[0]
    for other in found[1:]:
        best = np.maximum(best, other)
    return best
