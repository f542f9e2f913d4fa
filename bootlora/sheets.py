"""Contact sheets: many small pictures in one, with their numbers, captions and decisions."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

PAPER = (250, 249, 246)
INK = (46, 44, 40)
FAINT = (140, 136, 128)
ACCEPTED = (38, 150, 84)
GAP = 10
FRAME = 4
CELL = 144
CAPTION_SIZE = 12
CAPTION_LINES = 3
TITLE_SIZE = 18


@dataclass(frozen=True)
class Cell:
    """A picture on a sheet."""

    file: Path
    caption: str = ""
    number: int | None = None
    decision: str = "pending"  # accepted gets a frame, rejected is dimmed


def contact_sheet(cells: Sequence[Cell], *, title: str = "", columns: int = 8, cell: int = CELL) -> Image.Image:
    """A sheet of pictures in rows, in the given order."""
    columns = max(1, min(columns, len(cells)))
    captions = [_wrapped(each.caption, cell) for each in cells]
    caption_height = max((len(lines) for lines in captions), default=0) * (CAPTION_SIZE + 4)
    top = TITLE_SIZE + 2 * GAP if title else GAP
    step_x, step_y = cell + GAP, cell + caption_height + GAP
    rows = -(-len(cells) // columns)
    sheet = Image.new("RGB", (GAP + columns * step_x, top + rows * step_y), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, GAP), title, INK, _font(TITLE_SIZE))
    for place, each in enumerate(cells):
        x, y = GAP + place % columns * step_x, top + place // columns * step_y
        _put(sheet, each, x, y, cell)
        ink = FAINT if each.decision == "rejected" else INK
        draw.multiline_text((x, y + cell + 3), "\n".join(captions[place]), ink, _font(CAPTION_SIZE), spacing=2)
    return sheet


def comparison(rows: Sequence[tuple[str, Sequence[Path]]], columns: Sequence[str], *, cell: int = CELL) -> Image.Image:
    """A table of pictures: one row per thing compared, one column per prompt and seed."""
    label_width = 130
    top = TITLE_SIZE + 2 * GAP
    width = label_width + len(columns) * (cell + GAP) + GAP
    sheet = Image.new("RGB", (width, top + len(rows) * (cell + GAP)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for place, name in enumerate(columns):
        draw.text((label_width + place * (cell + GAP) + cell / 2, top - GAP), name, INK, _font(14), anchor="ms")
    for line, (label, files) in enumerate(rows):
        y = top + line * (cell + GAP)
        text = "\n".join(textwrap.wrap(label, 16))
        draw.multiline_text((GAP, y + cell / 2), text, INK, _font(14), anchor="lm", spacing=4)
        for place, file in enumerate(files):
            _put(sheet, Cell(file), label_width + place * (cell + GAP), y, cell)
    return sheet


def fit(picture: Image.Image, size: int) -> Image.Image:
    """Scale a picture to fit into a white square."""
    picture = picture.convert("RGBA")
    scale = size / max(picture.size)
    wanted = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    picture = picture.resize(wanted, Image.Resampling.LANCZOS)
    square = Image.new("RGBA", (size, size), "white")
    square.alpha_composite(picture, ((size - picture.width) // 2, (size - picture.height) // 2))
    return square.convert("RGB")


def _put(sheet: Image.Image, each: Cell, x: int, y: int, cell: int) -> None:
    draw = ImageDraw.Draw(sheet)
    with Image.open(each.file) as opened:
        picture = fit(opened, cell)
    if each.decision == "rejected":
        picture = Image.blend(picture.convert("L").convert("RGB"), Image.new("RGB", picture.size, PAPER), 0.45)
    sheet.paste(picture, (x, y))
    if each.decision == "accepted":
        box = (x - FRAME // 2, y - FRAME // 2, x + cell + FRAME // 2 - 1, y + cell + FRAME // 2 - 1)
        draw.rectangle(box, outline=ACCEPTED, width=FRAME)
    if each.number is not None:
        font = _font(15)
        left, top, right, bottom = draw.textbbox((x + 7, y + 5), str(each.number), font=font)
        draw.rounded_rectangle((left - 5, top - 4, right + 5, bottom + 4), 4, fill=INK)
        draw.text((x + 7, y + 5), str(each.number), PAPER, font)


def _wrapped(caption: str, width: int) -> list[str]:
    """Wrap a caption to at most `CAPTION_LINES` lines of `width` pixels."""
    letter = _font(CAPTION_SIZE).getlength("n")
    lines = textwrap.wrap(caption, int(width / letter))
    if len(lines) > CAPTION_LINES:
        lines = [*lines[: CAPTION_LINES - 1], lines[CAPTION_LINES - 1].rstrip(",") + " …"]
    return lines


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
