"""An orthographic camera: rays against solids, nearest first."""

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
        names = ["", *sorted({s.part for s in solids})]
        surface = Surface(
            np.full((size, size), NOWHERE, np.float32),
            np.zeros((size, size), np.int16),
            np.zeros((size, size, 3), np.float32),
            np.zeros((size, size, 3), np.float32),
            names,
        )
        for solid in solids:
            self._draw(solid, surface, names.index(solid.part))
        return surface

    def _draw(self, solid: Solid, surface: Surface, index: int) -> None:
        size = len(surface.depth)
        window = self._window(solid, size)
        if window is None:
            return
        rows, cols = window
        to_local = (solid.to_local @ self.turn.T).astype(np.float32)
        shift = (solid.to_local @ solid.centre).astype(np.float32)
        x = self._coordinates(size, self.centre[0])[cols][None, :]
        y = -self._coordinates(size, -self.centre[1])[rows][:, None]
        origin = [to_local[k, 0] * x + to_local[k, 1] * y - shift[k] for k in range(3)]
        ray = to_local[:, 2]
        depth = nearest(solid, origin, ray)
        visible = (depth > surface.depth[rows, cols]) & (depth > NOWHERE)
        if not visible.any():
            return
        t = depth[visible]
        points = np.stack([o[visible] + t * d for o, d in zip(origin, ray, strict=True)], -1)
        normals = solid.normals(points) @ to_local
        normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9
        colors = np.array(solid.paint(points), np.float32)
        inside = normals[:, 2] < 0
        normals[inside] *= -1
        if solid.keep is not None:
            colors[inside] *= INSIDE_SHADE
        surface.depth[rows, cols][visible] = t
        surface.part[rows, cols][visible] = index
        surface.normal[rows, cols][visible] = normals
        surface.color[rows, cols][visible] = colors

    def _coordinates(self, size: int, middle: float) -> Array:
        return (((np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1) * self.half + middle).astype(np.float32)

    def _window(self, solid: Solid, size: int) -> tuple[slice, slice] | None:
        """The pixels that a solid can touch."""
        middle = self.turn @ solid.centre
        extent = solid.half_extent(self.turn @ np.linalg.inv(solid.to_local))
        pixel = 2 * self.half / size
        left = (middle[0] - extent[0] - self.centre[0] + self.half) / pixel
        right = (middle[0] + extent[0] - self.centre[0] + self.half) / pixel
        top = (self.half + self.centre[1] - middle[1] - extent[1]) / pixel
        bottom = (self.half + self.centre[1] - middle[1] + extent[1]) / pixel
        cols = slice(max(0, int(left)), min(size, int(right) + 2))
        rows = slice(max(0, int(top)), min(size, int(bottom) + 2))
        return None if rows.start >= rows.stop or cols.start >= cols.stop else (rows, cols)


def nearest(solid: Solid, origin: list[Array], ray: Array) -> Array:
    """Depth of the nearest hit that exists; NOWHERE where there is none."""
    best: Array = np.float32(NOWHERE)  # type: ignore[assignment]
    for t, ok in solid.hits(origin, ray):
        if solid.keep is not None and ok.any():
            kept = solid.keep(np.stack([o + t * d for o, d in zip(origin, ray, strict=True)], -1))
            depth = np.where(ok & kept, t, NOWHERE)
        else:
            depth = np.where(ok, t, NOWHERE)
        best = np.maximum(best, depth)
    return best
