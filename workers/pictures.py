"""Prepares uploaded pictures for training: plain background, enough pixels, useful crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from shared.catalog import CROP_MODES, FRAMINGS, VIEWS

Box = tuple[int, int, int, int]  # left, top, right, bottom

PALETTE_COLOURS = 48  # a picture with fewer colours than this is pixel art
ALPHA_FLOOR = 32  # of 255; pixels below it count as shadow or dust
COLOUR_FLOOR = 40  # distance from the background in RGB; less is noise of the encoder


@dataclass(frozen=True)
class Crop:
    """A part of a picture, with its framing and view if they are known."""

    box: Box
    framing: str | None = None  # a name from catalog.FRAMINGS
    view: str | None = None  # a name from catalog.VIEWS

    @property
    def tags(self) -> list[str]:
        """The tags of its view and framing."""
        return [words[name] for name, words in ((self.view, VIEWS), (self.framing, FRAMINGS)) if name in words]


@dataclass(frozen=True)
class Figure:
    """The position of the figure, found by its silhouette."""

    box: Box
    chin: int  # the row where her head ends
    head_middle: int  # the column


# crops


def crops(image: Image.Image, mode: str, wanted: Sequence[Box] = (), *, view: str | None = None) -> list[Crop]:
    """The crops of a mode of catalog.CROP_MODES."""
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
    """Crops by explicit boxes, which must lie inside the picture."""
    for left, top, right, bottom in wanted:
        if not (0 <= left < right <= image.width and 0 <= top < bottom <= image.height):
            raise ValueError(
                f"box {(left, top, right, bottom)} is not inside the picture of {image.width}x{image.height} pixels"
            )
    return [Crop((left, top, right, bottom), view=view) for left, top, right, bottom in wanted]


def auto(image: Image.Image, *, view: str | None = None) -> list[Crop]:
    """Four crops: the whole figure, her upper body, her face, and the whole picture."""
    figure = find_figure(image)
    left, top, right, bottom = figure.box
    body = bottom - figure.chin
    head = figure.chin - top
    if body < head // 2:  # the picture is a portrait, so only closer crops are possible
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
    """The part of the picture inside a box."""
    return image.crop(box)


# backgrounds and sizes


def flatten(image: Image.Image, background: str | tuple[int, int, int] = "white") -> Image.Image:
    """The picture on a plain background, because models don't support transparency."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, background), image).convert("RGB")


def upscale(image: Image.Image, min_side: int) -> Image.Image:
    """Enlarge the shorter side to at least `min_side` pixels. Pixel art is not smoothed, other pictures are."""
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
    """Scale the picture to fit into `size`, and pad it with `background`, by default its border colour."""
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
    """An uploaded picture, ready to be cropped: RGB, on a plain background, large enough."""
    if image.has_transparency_data and not is_pixel_art(image):
        image = flatten(image)  # before resampling, which would mix hidden colours into the edges
    return flatten(upscale(image, min_side))


def is_pixel_art(image: Image.Image) -> bool:
    """Whether a picture has few colours and hard edges, which smoothing would spoil."""
    rgba = image.convert("RGBA")
    alpha = np.asarray(rgba.getchannel("A"))
    return bool(np.isin(alpha, (0, 255)).all()) and rgba.getcolors(maxcolors=PALETTE_COLOURS) is not None


def border_colour(image: Image.Image) -> tuple[int, int, int]:
    """The most frequent colour of the border."""
    pixels = np.asarray(image.convert("RGB"))
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    red, green, blue = np.median(border, axis=0).astype(int).tolist()
    return red, green, blue


# the figure


def silhouette(image: Image.Image) -> np.ndarray:
    """The pixels of the figure, (height, width): the opaque ones, or else those that differ from the border."""
    if image.has_transparency_data:
        return np.asarray(image.convert("RGBA").getchannel("A")) > ALPHA_FLOOR
    pixels = np.asarray(image.convert("RGB")).astype(int)
    return np.linalg.norm(pixels - np.array(border_colour(image)), axis=2) > COLOUR_FLOOR


def find_figure(image: Image.Image) -> Figure:
    """The figure's box, and the end of its head: at the neck if the silhouette has one, else by its proportions."""
    mask = silhouette(image)
    # a stray pixel is no part of her: a row or column counts from 2 % of the longest on
    rows, columns = mask.sum(axis=1), mask.sum(axis=0)
    ys = np.flatnonzero(rows > 0.02 * rows.max(initial=0))
    xs = np.flatnonzero(columns > 0.02 * columns.max(initial=0))
    if not len(ys) or not len(xs):  # the picture is empty, or the figure fills it
        ys, xs = np.arange(image.height), np.arange(image.width)
    left, top, right, bottom = int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1
    chin = _neck(rows[top:bottom]) or round(_head_share(right - left, bottom - top) * (bottom - top))
    head = mask[top : top + max(1, round(0.7 * chin))].sum(axis=0)
    middle = round(float(np.average(np.arange(len(head)), weights=head))) if head.any() else (left + right) // 2
    return Figure((left, top, right, bottom), top + chin, middle)


def _neck(widths: np.ndarray) -> int | None:
    """The row where the silhouette clearly narrows between head and shoulders. None if there is no such row."""
    height = len(widths)
    if height < 16:
        return None
    smooth = np.convolve(np.pad(widths, 2, mode="edge"), np.ones(5) / 5, mode="valid")
    low, high = round(0.1 * height), round(0.62 * height)
    dip = [min(smooth[:y].max(), smooth[y + 1 : y + height // 4].max()) - smooth[y] for y in range(low, high)]
    best = int(np.argmax(dip))
    return low + best if dip[best] > 0.12 * smooth.max() else None


def _head_share(width: int, height: int) -> float:
    """The head's share of the height, larger for stocky figures: 1/2 at 1.5 times the width, 1/7 at 3.5 times."""
    return float(np.interp(height / max(1, width), [1.5, 2.2, 3.5], [0.5, 0.34, 0.15]))


def _around(image: Image.Image, middle: int, top: int, bottom: int, margin: float, width: int = 0) -> Box:
    """A square around rows top..bottom, moved inside the picture, and cut if the picture is too small."""
    side = round(max(bottom - top, width) * margin)
    x = min(max(0, middle - side // 2), max(0, image.width - side))
    y = min(max(0, (top + bottom - side) // 2), max(0, image.height - side))
    return x, y, min(image.width, x + side), min(image.height, y + side)
