"""From a character and a shot to a picture."""

from dataclasses import dataclass

import numpy as np

from .background import background
from .beast import animal_ears, tail
from .body import Body, body_of
from .camera import Camera, Surface
from .character import Character
from .clothes import clothed
from .face import SCAR, face_wear, facepaint_color, facial_hair, head, iris_color, stubble_color
from .hair import hair
from .headwear import head_extra, headwear, shown_by
from .held import held
from .shot import Shot, view_angles
from .solid import Array, Solid, rotate_x, rotate_y, rotate_z
from .style import STYLES, Sheet, Style
from .wear import belts, emblem, footwear, handwear, joints, outer, shoulders, stripe

SEEN_SHARE = 0.0015  # of the picture: smaller than this nobody would tag it
MARKS = {
    "eyes": 0.5,
    "scar": 0.8,
    "facepaint": 0.8,
    "stubble": 1.0,
}  # what is painted, with its share of the least size


@dataclass(frozen=True)
class Drawing:
    """A picture and the parts that can be seen in it."""

    pixels: Array  # (size, size, 3) uint8
    seen: frozenset[str]


def figure(character: Character, shot: Shot, body: Body) -> list[Solid]:
    covers = shown_by(character)
    solids = [
        *head(body, character, shot.expression),
        *hair(body, character, covers.covers_top),
        *facial_hair(body, character),
        *face_wear(body, character),
        *headwear(body, character),
        *clothed(body, character),
        *footwear(body, character),
        *handwear(body, character),
        *joints(body, character),
        *tail(body, character),
        *outer(body, character),
        *belts(body, character),
        *shoulders(body, character),
        *emblem(body, character),
        *stripe(body, character),
        *held(body, character, shot.pose),
    ]
    if not covers.covers_ears:
        solids += [*animal_ears(body, character), *head_extra(body, character)]
    return solids


def camera_for(solids: list[Solid], shot: Shot, body: Body) -> Camera:
    """The whole figure with all that it holds, or from the waist, or the head."""
    azimuth, elevation = view_angles(shot)
    turn = rotate_z(shot.roll) @ rotate_x(elevation) @ rotate_y(azimuth)
    if shot.framing != "full body":
        solids = [s for s in solids if not s.part.startswith("held") and s.centre[1] > lowest(body, shot.framing)]
    middles = np.array([turn[:2] @ s.centre for s in solids])
    halves = np.array([s.half_extent(turn[:2] @ s.from_local) for s in solids])
    low, high = (middles - halves).min(0), (middles + halves).max(0)
    if shot.framing != "full body":
        floor = turn[:2] @ np.array([0.0, lowest(body, shot.framing), 0.0])
        low[1] = max(low[1], floor[1])
        low[0], high[0] = turn[0] @ body.head - body.radii[0], turn[0] @ body.head + body.radii[0]
    half = max(0.5 * float((high - low).max()) * 1.06, 0.45) * shot.zoom
    x, y = (low + high) / 2
    return Camera(turn, (float(x + shot.shift[0] * half), float(y + shot.shift[1] * half)), half)


def lowest(body: Body, framing: str) -> float:
    return body.torso(-0.10) if framing == "upper body" else body.torso(0.72)


def seen_parts(surface: Surface, character: Character) -> frozenset[str]:
    """The parts that are large enough to be tagged; `held` with its side, as left and right differ."""
    least = SEEN_SHARE * surface.part.size
    counts = np.bincount(surface.part.ravel(), minlength=len(surface.parts))
    totals: dict[str, float] = {}
    for name, count in zip(surface.parts[1:], counts[1:], strict=True):
        kind, _, which = name.partition(":")
        side = which.split(" ")[0]
        for key in (kind, f"{kind} {side}") if side in ("left", "right") else (kind,):
            totals[key] = totals.get(key, 0) + int(count)
    heads = [i for i, name in enumerate(surface.parts) if name in ("skin:head", "skin:jaw")]
    face = surface.color[np.isin(surface.part, heads)]
    for mark, color in marks(character).items():
        totals[mark] = (np.abs(face - color).max(-1) < 2e-3).sum() / MARKS[mark]
    return frozenset(kind for kind, total in totals.items() if total >= least)


def marks(character: Character) -> dict[str, Array]:
    """What is painted on the face, by its colour."""
    found = {"eyes": iris_color(character)}
    if character.face == "scar":
        found["scar"] = np.array(SCAR, np.float32)
    if character.face == "facepaint":
        found["facepaint"] = facepaint_color(character)
    if character.facial_hair == "stubble":
        found["stubble"] = stubble_color(character)
    return found


def shrink(image: Array, factor: int) -> Array:
    size = len(image) // factor
    return image.reshape(size, factor, size, factor, 3).mean((1, 3))


def draw(character: Character, shot: Shot, size: int = 128, styles: dict[str, Style] = STYLES) -> Drawing:
    """Draw a character; also tells what of it can be seen."""
    is_pixel_art = shot.style == "pixel art"
    blocks = max(1, size // 64)  # of pixel art
    detail = 3 if size < 128 else 2
    sheet_size = size // blocks if is_pixel_art else size * detail
    body = body_of(character, shot.pose, shot.raised)
    solids = figure(character, shot, body)
    surface = camera_for(solids, shot, body).see(solids, sheet_size)
    backdrop = background(shot.background, sheet_size, shot.seed)
    sheet = Sheet(surface, backdrop, max(1, sheet_size // 128), np.random.default_rng(shot.seed))
    picture = styles[shot.style](sheet)
    picture = picture.repeat(blocks, 0).repeat(blocks, 1) if is_pixel_art else shrink(picture, detail)
    pixels = (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)
    return Drawing(pixels, seen_parts(surface, character))


def render(character: Character, shot: Shot, size: int = 128) -> Array:
    """The picture alone, uint8 (size, size, 3)."""
    return draw(character, shot, size).pixels
