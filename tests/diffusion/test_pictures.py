"""Pictures prepared for training: a real game character by Kenney, CC0, 96x128 pixels, with a palette and alpha."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from shared import catalog
from workers import pictures
from workers.pictures import Crop

KENNEY = sorted((Path(__file__).resolve().parents[1] / "data/kenney").glob("femaleAdventurer_*.png"))


def sprite(name: str) -> Image.Image:
    (path,) = (path for path in KENNEY if name in path.name)
    return Image.open(path)


def area(crop: Crop) -> int:
    left, top, right, bottom = crop.box
    return (right - left) * (bottom - top)


@pytest.mark.parametrize("path", KENNEY, ids=lambda path: path.stem)
def test_auto_crops_go_from_the_whole_figure_to_her_face(path):
    image = pictures.prepare(Image.open(path), 384)
    crops = pictures.auto(image, view="front")
    assert [crop.framing for crop in crops] == ["full_body", "full_body", "upper_body", "portrait"]
    assert all(crop.view == "front" and crop.framing in catalog.FRAMINGS for crop in crops)
    assert sorted(crops, key=area, reverse=True) == crops
    for crop in crops:
        left, top, right, bottom = crop.box
        assert 0 <= left < right <= image.width
        assert 0 <= top < bottom <= image.height


def test_the_face_is_in_the_portrait():
    """Her eyes stand at (48, 64) and (65, 64) of the sprite, her mouth at (56, 74), her boots from 116 on."""
    image = sprite("idle")
    scale = 4
    _, figure, upper, face = pictures.auto(pictures.prepare(image, 96 * scale))
    for x, y in ((48, 64), (65, 64), (56, 74)):
        for crop in (figure, upper, face):
            left, top, right, bottom = crop.box
            assert left < x * scale < right
            assert top < y * scale < bottom
    assert figure.box[3] >= 126 * scale
    assert upper.box[3] < 116 * scale
    assert face.box[3] < 95 * scale


def test_crops_say_what_they_show():
    assert Crop((0, 0, 1, 1), "portrait", "behind").tags == ["from behind", "portrait"]
    assert Crop((0, 0, 1, 1)).tags == []


def test_a_slim_figure_has_a_small_head():
    image = Image.new("RGB", (300, 700), "white")
    draw = ImageDraw.Draw(image)
    draw.ellipse((120, 20, 180, 100), fill="brown")  # head
    draw.rectangle((142, 95, 158, 120), fill="brown")  # neck
    draw.rectangle((90, 120, 210, 400), fill="navy")
    draw.rectangle((110, 400, 190, 690), fill="grey")
    figure = pictures.find_figure(image)
    assert 95 <= figure.chin <= 125
    assert abs(figure.head_middle - 150) < 5
    framings = {crop.framing: crop.box for crop in pictures.auto(image)}
    assert framings["portrait"][3] < 160
    assert 200 < framings["upper_body"][3] < 420


def test_a_portrait_stays_a_portrait():
    image = Image.new("RGB", (200, 200), "white")
    ImageDraw.Draw(image).ellipse((20, 10, 180, 260), fill="brown")
    assert {crop.framing for crop in pictures.auto(image)} <= set(catalog.FRAMINGS)


@pytest.mark.parametrize("colour", ["white", "black"])
def test_an_empty_picture_can_be_cropped_too(colour):
    for crop in pictures.auto(Image.new("RGB", (64, 64), colour)):
        assert pictures.cut(Image.new("RGB", (64, 64), colour), crop.box).size > (0, 0)


def test_quadrants_cover_the_picture():
    crops = pictures.crops(Image.new("RGB", (101, 60)), "quadrants")
    assert [crop.box for crop in crops] == [(0, 0, 50, 30), (51, 0, 101, 30), (0, 30, 50, 60), (51, 30, 101, 60)]


def test_boxes_must_lie_inside():
    image = Image.new("RGB", (100, 60))
    assert pictures.crops(image, "boxes", [[10, 10, 100, 60]], view="side") == [Crop((10, 10, 100, 60), view="side")]
    for box in ((-1, 0, 10, 10), (0, 0, 101, 10), (10, 10, 10, 20), (20, 5, 10, 50)):
        with pytest.raises(ValueError, match="not inside the picture"):
            pictures.crops(image, "boxes", [box])


def test_every_crop_mode_of_the_catalog_is_there():
    for mode in catalog.CROP_MODES:
        assert pictures.crops(sprite("idle"), mode, [(0, 0, 10, 10)])
    with pytest.raises(ValueError, match="quadrants"):
        pictures.crops(sprite("idle"), "spiral")


def test_transparency_becomes_a_plain_background():
    image = pictures.prepare(sprite("idle"), 384)
    assert image.mode == "RGB"
    assert image.size == (384, 512)
    assert np.asarray(image)[:100, :100].min() == 255
    # no dark seam from colours that were hidden behind the transparency
    mask = pictures.silhouette(sprite("idle").resize((384, 512), Image.Resampling.NEAREST))
    outside = np.asarray(image).min(axis=2)[~mask]
    assert (outside < 60).mean() < 0.01


def test_pixel_art_keeps_its_pixels():
    image = Image.new("P", (16, 24))
    image.putpalette([255, 255, 255, 200, 30, 30, 30, 30, 200])
    image.paste(1, (4, 4, 12, 12))
    image.paste(2, (4, 12, 12, 20))
    assert pictures.is_pixel_art(image)
    assert not pictures.is_pixel_art(sprite("idle"))
    larger = pictures.prepare(image, 60)
    assert larger.size == (64, 96)
    assert len(larger.getcolors()) == 3


def test_large_pictures_are_left_as_they_are():
    image = Image.new("RGB", (600, 700))
    assert pictures.upscale(image, 512) is image


def test_padding_has_the_colour_of_the_border():
    image = Image.new("RGB", (20, 40), (10, 200, 30))
    image.paste((255, 0, 0), (5, 10, 15, 30))
    fitted = np.asarray(pictures.fit(image, (64, 64)))
    assert fitted.shape == (64, 64, 3)
    assert fitted[0, 0].tolist() == fitted[63, 63].tolist() == [10, 200, 30]
    assert np.asarray(pictures.fit(image, (64, 64), background=(9, 9, 9)))[0, 0].tolist() == [9, 9, 9]


def test_what_is_fitted_has_no_transparency():
    image = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    image.paste((255, 0, 0, 255), (8, 8, 24, 24))
    fitted = np.asarray(pictures.fit(image, (32, 32)))
    assert fitted[0, 0].tolist() == [255, 255, 255]
    assert fitted[16, 16].tolist() == [255, 0, 0]
