"""Pictures as they come in, made fit for training: plain background, enough pixels, useful crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from shared.catalog import CROP_MODES, FRAMINGS, VIEWS

Box = tuple[int, int, int, int]  # left, top, right, bottom

PALETTE_COLOURS = 48  # a picture with fewer colours than this is pixel art
ALPHA_FLOOR = 32  # of 255: fainter pixels are shadow or dust
COLOUR_FLOOR = 40  # distance from the background, in RGB; below it is noise of the encoder


@dataclass(frozen=True)
class Crop:
    """A part of a picture and what it shows, as far as its place tells."""

    box: Box
    framing: str | None = None  # a name from catalog.FRAMINGS
    view: str | None = None  # a name from catalog.VIEWS

    @property
    def tags(self) -> list[str]:
        """What its captions say of it."""
        return [words[name] for name, words in ((self.view, VIEWS), (self.framing, FRAMINGS)) if name in words]


@dataclass(frozen=True)
class Figure:
    """Where she stands, by her silhouette."""

    box: Box
    chin: int  # the row where her head ends
    head_middle: int  # the column


# crops


def crops(image: Image.Image, mode: str, wanted: Sequence[Box] = (), *, view: str | None = None) -> list[Crop]:
    """The crops that a mode of catalog.CROP_MODES makes."""
    if mode == "quadrants":
        return quadrants(image)
    if mode == "boxes":
        return boxes(image, wanted, view=view)
    if mode == "auto":
        return auto(image, view=view)
    raise ValueError(f"unknown crop mode {mode!r}; use one of {', '.join(CROP_MODES)}")


def quadrants(image: Image.Image) -> list[Crop]:
    """The four quarters, as on a sheet of four pictures."""
    w, h = image.width // 2, image.height // 2
    return [Crop((x, y, x + w, y + h)) for y in (0, image.height - h) for x in (0, image.width - w)]


def boxes(image: Image.Image, wanted: Sequence[Box], *, view: str | None = None) -> list[Crop]:
    """Explicit boxes, each of which must lie inside."""
    for left, top, right, bottom in wanted:
        if not (0 <= left < right <= image.width and 0 <= top < bottom <= image.height):
            raise ValueError(
                f"box {(left, top, right, bottom)} is not inside the picture of {image.width}x{image.height} pixels"
            )
    return [Crop((left, top, right, bottom), view=view) for left, top, right, bottom in wanted]


def auto(image: Image.Image, *, view: str | None = None) -> list[Crop]:
    """The whole figure, her upper body and her face; and the picture as it is, so that there are four."""
    figure = find_figure(image)
    left, top, right, bottom = figure.box
    body = bottom - figure.chin
    head = figure.chin - top
    if body < head // 2:  # a portrait to begin with: all that can be done is to come nearer
        nearer = _around(image, (left + right) // 2, top, figure.chin, 1.05)
        return [Crop((0, 0, image.width, image.height), "portrait", view), Crop(nearer, "portrait", view)]
    waist = figure.chin + round(0.55 * body) if body < 2 * head else figure.chin + round(0.4 * body)
    return [
        Crop((0, 0, image.width, image.height), "full_body", view),
        Crop(_around(image, (left + right) // 2, top, bottom, 1.08, width=right - left), "full_body", view),
        Crop(_around(image, figure.head_middle, top, waist, 1.06), "upper_body", view),
        Crop(_around(image, figure.head_middle, top, figure.chin + head // 6, 1.12), "portrait", view),
    ]


def cut(image: Image.Image, box: Box) -> Image.Image:
    """That part of the picture."""
    return image.crop(box)


# backgrounds and sizes


def flatten(image: Image.Image, background: str | tuple[int, int, int] = "white") -> Image.Image:
    """Without transparency: models don't know it."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, background), image).convert("RGB")


def upscale(image: Image.Image, min_side: int) -> Image.Image:
    """At least `min_side` pixels on the shorter side. Pixel art keeps its pixels, all else is smoothed."""
    shorter = min(image.size)
    if shorter >= min_side:
        return image
    if is_pixel_art(image):
        factor = -(-min_side // shorter)
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    size = (round(image.width * min_side / shorter), round(image.height * min_side / shorter))
    # resampling a palette would mix indices, not colours
    return image.convert("RGBA" if image.has_transparency_data else "RGB").resize(size, Image.Resampling.LANCZOS)


def fit(image: Image.Image, size: tuple[int, int], background: str | tuple[int, int, int] | None = None) -> Image.Image:
    """The whole picture inside `size`, padded with its own border colour unless told another."""
    image = flatten(image, background or "white")
    scale = min(size[0] / image.width, size[1] / image.height)
    inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    resized = image.resize(inner, Image.Resampling.LANCZOS)
    if inner == size:
        return resized
    canvas = Image.new("RGB", size, background or border_colour(image))
    canvas.paste(resized, ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2))
    return canvas


def prepare(image: Image.Image, min_side: int) -> Image.Image:
    """What an uploaded picture becomes before it is cropped: RGB, on a plain background, large enough."""
    if image.has_transparency_data and not is_pixel_art(image):
        image = flatten(image)  # before resampling, which would drag hidden colours into the edges
    return flatten(upscale(image, min_side))


def is_pixel_art(image: Image.Image) -> bool:
    """Few colours and hard edges: smoothing would spoil what makes it."""
    rgba = image.convert("RGBA")
    alpha = np.asarray(rgba.getchannel("A"))
    return bool(np.isin(alpha, (0, 255)).all()) and rgba.getcolors(maxcolors=PALETTE_COLOURS) is not None


def border_colour(image: Image.Image) -> tuple[int, int, int]:
    """The colour most of the border has."""
    pixels = np.asarray(image.convert("RGB"))
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    red, green, blue = np.median(border, axis=0).astype(int).tolist()
    return red, green, blue


# the figure


def silhouette(image: Image.Image) -> np.ndarray:
    """Which pixels are hers: by transparency if there is any, else by what differs from the border. (height, width)"""
    if image.has_transparency_data:
        return np.asarray(image.convert("RGBA").getchannel("A")) > ALPHA_FLOOR
    pixels = np.asarray(image.convert("RGB")).astype(int)
    return np.linalg.norm(pixels - np.array(border_colour(image)), axis=2) > COLOUR_FLOOR


def find_figure(image: Image.Image) -> Figure:
    """Her box, and where her head ends: at the neck if the silhouette has one, else by her proportions."""
    mask = silhouette(image)
    # a stray pixel is no part of her: a row or column counts from 2 % of the longest on
    rows, columns = mask.sum(axis=1), mask.sum(axis=0)
    ys = np.flatnonzero(rows > 0.02 * rows.max(initial=0))
    xs = np.flatnonzero(columns > 0.02 * columns.max(initial=0))
    if not len(ys) or not len(xs):  # an empty picture, or one that is figure to its edges
        ys, xs = np.arange(image.height), np.arange(image.width)
    left, top, right, bottom = int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1
    chin = _neck(rows[top:bottom]) or round(_head_share(right - left, bottom - top) * (bottom - top))
    head = mask[top : top + max(1, round(0.7 * chin))].sum(axis=0)
    middle = round(float(np.average(np.arange(len(head)), weights=head))) if head.any() else (left + right) // 2
    return Figure((left, top, right, bottom), top + chin, middle)


def _neck(widths: np.ndarray) -> int | None:
    """The row where the silhouette narrows between head and shoulders, if it clearly does."""
    height = len(widths)
    if height < 16:
        return None
    smooth = np.convolve(np.pad(widths, 2, mode="edge"), np.ones(5) / 5, mode="valid")
    low, high = round(0.1 * height), round(0.62 * height)
    dip = [min(smooth[:y].max(), smooth[y + 1 : y + height // 4].max()) - smooth[y] for y in range(low, high)]
    best = int(np.argmax(dip))
    return low + best if dip[best] > 0.12 * smooth.max() else None


def _head_share(width: int, height: int) -> float:
    """Stocky figures are drawn with large heads: half of the height at 1.5 times the width, a seventh at 3.5 times."""
    return float(np.interp(height / max(1, width), [1.5, 2.2, 3.5], [0.5, 0.34, 0.15]))


def _around(image: Image.Image, middle: int, top: int, bottom: int, margin: float, width: int = 0) -> Box:
    """A square around rows top..bottom, moved inside the picture and cut where that is too small."""
    side = round(max(bottom - top, width) * margin)
    x = min(max(0, middle - side // 2), max(0, image.width - side))
    y = min(max(0, (top + bottom - side) // 2), max(0, image.height - side))
    return x, y, min(image.width, x + side), min(image.height, y + side)
