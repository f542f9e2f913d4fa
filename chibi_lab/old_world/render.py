"""From a character and a shot to a picture."""

from dataclasses import dataclass

import numpy as np

from . import palette
from .accessory import accessory
from .animal import EAR_HEIGHT, ears, tail
from .background import background
from .body import Body, body_of, head
from .camera import Camera, Surface
from .character import Character
from .hair import hair
from .outfit import outfit
from .shot import Shot, view_angles
from .solid import Array, Solid, rotate_x, rotate_y, rotate_z
from .style import LIGHT, STYLES, Sheet

SEEN_SHARE = 0.0015  # of the picture: smaller than this nobody would tag it


@dataclass(frozen=True)
class Drawing:
    """A picture and the parts that can be seen in it."""

    pixels: Array  # (size, size, 3) uint8
    seen: frozenset[str]


def figure(character: Character, shot: Shot, body: Body) -> list[Solid]:
    return [
        *head(body, character, shot),
        *hair(body, character),
        *ears(body, character),
        *outfit(body, character, shot),
        *tail(body, character),
        *accessory(body, character),
    ]


def camera_for(character: Character, shot: Shot, body: Body) -> Camera:
    azimuth, elevation = view_angles(shot)
    turn = rotate_z(shot.roll) @ rotate_x(elevation) @ rotate_y(azimuth)
    ear_top = body.top + EAR_HEIGHT[character.ears]
    low, high = {
        "full body": (-0.06, ear_top + 0.06),
        "upper body": (body.hip - 0.06, body.top + 0.6 * EAR_HEIGHT[character.ears] + 0.10),
        "portrait": (body.neck - 0.10, body.top + 0.4 * EAR_HEIGHT[character.ears] + 0.08),
    }[shot.framing]
    half = max(0.5 * (high - low), 0.52) * shot.zoom
    x, y, _ = turn @ np.array([0.0, (low + high) / 2, 0.0])
    return Camera(turn, (x + shot.shift[0] * half, y + shot.shift[1] * half), half)


def seen_parts(surface: Surface, character: Character) -> frozenset[str]:
    least = SEEN_SHARE * surface.part.size
    counts = np.bincount(surface.part.ravel(), minlength=len(surface.parts))
    totals: dict[str, int] = {}
    for name, count in zip(surface.parts[1:], counts[1:], strict=True):
        kind = name.split(":")[0]
        totals[kind] = totals.get(kind, 0) + int(count)
    iris = np.array(palette.EYES[character.eyes], np.float32)
    at_head = surface.part == surface.parts.index("skin:head")
    totals["eyes"] = int((np.abs(surface.color[at_head] - iris).max(-1) < 1e-3).sum()) * 2 if at_head.any() else 0
    return frozenset(kind for kind, total in totals.items() if total >= least)


def shrink(image: Array, factor: int) -> Array:
    size = len(image) // factor
    return image.reshape(size, factor, size, factor, 3).mean((1, 3))


def draw(character: Character, shot: Shot, size: int = 128) -> Drawing:
    """Draw her; also tells what of her can be seen."""
    is_pixel_art = shot.style == "pixel art"
    blocks = max(1, size // 64)  # of pixel art
    detail = 3 if size < 128 else 2
    sheet_size = size // blocks if is_pixel_art else size * detail
    body = body_of(character)
    surface = camera_for(character, shot, body).see(figure(character, shot, body), sheet_size)
    sheet = Sheet(
        surface,
        background(shot.background, sheet_size, shot.seed),
        (surface.normal @ LIGHT)[..., None],
        max(1, sheet_size // 128),
        np.random.default_rng(shot.seed),
    )
    picture = STYLES[shot.style](sheet)
    picture = picture.repeat(blocks, 0).repeat(blocks, 1) if is_pixel_art else shrink(picture, detail)
    pixels = (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)
    return Drawing(pixels, seen_parts(surface, character))


def render(character: Character, shot: Shot, size: int = 128) -> Array:
    """The picture alone, uint8 (size, size, 3)."""
    return draw(character, shot, size).pixels
