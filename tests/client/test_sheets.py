"""The contents of contact sheets."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from bootlora import sheets


@pytest.fixture
def red(tmp_path: Path) -> Path:
    file = tmp_path / "red.png"
    Image.new("RGBA", (96, 128), (220, 20, 20, 255)).save(file)
    return file


def middle(sheet: Image.Image, column: int, cell: int = 100) -> tuple[int, int, int]:
    return sheet.getpixel((sheets.GAP + column * (cell + sheets.GAP) + cell // 2, sheets.GAP + cell // 2))


def test_accepted_is_framed_and_rejected_dimmed(red: Path) -> None:
    cells = [sheets.Cell(red, decision=decision) for decision in ("accepted", "rejected", "pending")]
    sheet = sheets.contact_sheet(cells, cell=100)
    assert sheet.getpixel((sheets.GAP, sheets.GAP + 50)) == sheets.ACCEPTED
    assert middle(sheet, 0) == middle(sheet, 2) == (220, 20, 20)
    grey = middle(sheet, 1)
    assert max(grey) - min(grey) < 10


def test_sheets_grow_with_their_pictures_and_captions(red: Path) -> None:
    plain = sheets.contact_sheet([sheets.Cell(red)] * 9, columns=4)
    captioned = sheets.contact_sheet([sheets.Cell(red, "from behind, full body")] * 9, columns=4)
    assert plain.height > 3 * sheets.CELL
    assert captioned.height > plain.height
    assert captioned.width == plain.width


def test_a_tall_picture_is_whole_and_on_white(red: Path) -> None:
    square = sheets.fit(Image.open(red), 128)
    assert square.size == (128, 128)
    assert square.getpixel((64, 2)) == (220, 20, 20)
    assert square.getpixel((2, 64)) == (255, 255, 255)


def test_what_is_compared_stands_in_rows(red: Path) -> None:
    sheet = sheets.comparison([("before", [red] * 2), ("after", [red] * 2)], ["front", "behind"], cell=100)
    assert sheet.size[0] > 2 * 100
    assert sheet.size[1] > 2 * 100


def test_an_empty_sheet_is_a_sheet() -> None:
    assert sheets.contact_sheet([], title="round 1: candidates").height > 0
