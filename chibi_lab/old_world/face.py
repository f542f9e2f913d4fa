"""Her face, painted on the front of the head."""

import numpy as np

from . import palette
from .character import Character, Look
from .shot import Shot
from .solid import Array, Paint, Vector

INK = (0.22, 0.13, 0.13)
MOUTH = (0.72, 0.22, 0.24)


class Canvas:
    """Colours of surface points, addressed by azimuth and height on the head."""

    def __init__(self, points: Array, skin: Array):
        self.colors = np.broadcast_to(np.asarray(skin, np.float32), points.shape).copy()
        self.azimuth = np.arctan2(points[..., 0], points[..., 2])
        self.height = points[..., 1]
        self.in_front = points[..., 2] > 0

    def fill(self, mask: Array, color: Vector) -> None:
        self.colors[self.in_front & mask] = color


def face_paint(
    character: Character, shot: Shot, skin: Array, scale: Vector = (1.0, 1.0, 1.0), lift: float = 0.0
) -> Paint:
    """`scale` and `lift` place a second solid (the chin) in the coordinates of the head."""
    look, eye = character.look, np.array(palette.EYES[character.eyes])

    def paint(p: Array) -> Array:
        q = p * np.asarray(scale, np.float32)
        q[..., 1] += lift
        canvas = Canvas(q, skin)
        if look.blush:
            paint_blush(canvas, look, skin)
        for side in (-1, 1):
            paint_eye(canvas, look, shot.expression, eye, side)
        if look.nose:
            ring = (canvas.azimuth / 0.05) ** 2 + ((canvas.height + 0.42) / 0.045) ** 2
            canvas.fill(ring < 1, np.asarray(skin) * 0.80)
        paint_mouth(canvas, shot.expression)
        return canvas.colors

    return paint


def paint_blush(canvas: Canvas, look: Look, skin: Array) -> None:
    for side in (-1, 1):
        x = (canvas.azimuth - side * (look.eye_spacing + 0.16)) / 0.16
        y = (canvas.height + look.eye_drop + 0.36) / 0.085
        canvas.fill(x * x + y * y < 1, np.asarray(skin) * (1.0, 0.80, 0.80))


def paint_eye(canvas: Canvas, look: Look, expression: str, iris: Array, side: int) -> None:
    x = (canvas.azimuth - side * look.eye_spacing) / look.eye_width
    y = (canvas.height + look.eye_drop) / look.eye_height
    if look.brows:
        brow = np.abs(canvas.height + look.eye_drop - look.eye_height * 1.5 + 0.10 * x * x * look.eye_height)
        canvas.fill((np.abs(x) < 0.85) & (brow < 0.035), INK)
    if expression == "closed eyes":
        canvas.fill((np.abs(x) < 1) & (np.abs(y + 0.3 - 0.55 * (1 - x * x) + 0.3) < 0.22), INK)
        return
    {"large": large_eye, "round": round_eye, "narrow": narrow_eye, "dot": dot_eye}[look.eye_kind](canvas, x, y, iris)


def large_eye(canvas: Canvas, x: Array, y: Array, iris: Array) -> None:
    radius = x * x + y * y
    canvas.fill(radius < 1, iris)
    canvas.fill((radius < 1) & (y > 0.45), iris * 0.5)
    canvas.fill((x / 0.42) ** 2 + ((y + 0.05) / 0.45) ** 2 < 1, iris * 0.22)
    canvas.fill(((x + 0.36) / 0.30) ** 2 + ((y - 0.42) / 0.26) ** 2 < 1, (1, 1, 1))
    canvas.fill((radius >= 0.88) & (radius < 1.5) & (y > 0.25), INK)


def round_eye(canvas: Canvas, x: Array, y: Array, iris: Array) -> None:
    radius = x * x + y * y
    canvas.fill(radius < 1.1, (1, 1, 1))
    canvas.fill((x / 0.78) ** 2 + (y / 0.78) ** 2 < 1, iris)
    canvas.fill((x / 0.30) ** 2 + (y / 0.30) ** 2 < 1, iris * 0.2)
    canvas.fill((radius >= 0.95) & (radius < 1.45) & (y > 0.1), INK)


def narrow_eye(canvas: Canvas, x: Array, y: Array, iris: Array) -> None:
    inside = (x * x + y * y < 1) & (y < 0.30)
    canvas.fill(inside, (1, 1, 1))
    canvas.fill(inside & (np.abs(x) < 0.62), iris)
    canvas.fill(inside & (np.abs(x) < 0.24), iris * 0.25)
    canvas.fill((np.abs(x) < 1.15) & (np.abs(y - 0.36) < 0.16), INK)


def dot_eye(canvas: Canvas, x: Array, y: Array, iris: Array) -> None:
    canvas.fill((x / 0.70) ** 2 + (y / 0.80) ** 2 < 1, iris)
    canvas.fill((x / 0.36) ** 2 + (y / 0.42) ** 2 < 1, iris * 0.25)


def paint_mouth(canvas: Canvas, expression: str) -> None:
    x, y = canvas.azimuth, canvas.height + 0.66
    if expression == "smile":
        canvas.fill((np.abs(x) < 0.24) & (np.abs(y + 0.09 - 0.11 * (x / 0.24) ** 2) < 0.045), MOUTH)
    elif expression == "open mouth":
        canvas.fill((x / 0.15) ** 2 + (y / 0.13) ** 2 < 1, MOUTH)
        canvas.fill((x / 0.09) ** 2 + ((y + 0.07) / 0.05) ** 2 < 1, (0.98, 0.55, 0.55))
    else:
        canvas.fill((np.abs(x) < 0.11) & (np.abs(y) < 0.035), MOUTH)
