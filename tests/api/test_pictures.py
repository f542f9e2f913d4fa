"""Uploaded pictures are stored as plain PNG, or refused."""

from __future__ import annotations

import io
import random
import struct
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from PIL import Image

from shared.outside import decoder, pictures
from tests.api.files import chunk, clean, raw_png, refusal
from tests.factories import png


@pytest.mark.parametrize(
    ("mode", "becomes"),
    [("RGB", "RGB"), ("RGBA", "RGB"), ("L", "RGB"), ("LA", "RGBA"), ("P", "RGB"), ("1", "RGB"), ("I;16", "RGB")],
)
def test_every_kind_of_png_is_accepted(mode, becomes):
    target = io.BytesIO()
    Image.new(mode, (40, 48)).save(target, "PNG")
    content = png(40, 48) if mode == "RGB" else target.getvalue()
    if mode == "RGBA":
        content = png(40, 48, "RGBA", (1, 2, 3, 255))
    assert clean(content).mode == becomes


def test_the_number_of_decoding_children_is_limited():
    content, others, most = png(1500, 1500), set(psutil.Process().children()), 0
    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(clean, content, max_pixels=2_250_000) for _ in range(8)]
        while not all(each.done() for each in running):
            most = max(most, len(set(psutil.Process().children()) - others))
            time.sleep(0.01)
    assert all(each.result() for each in running)
    assert 0 < most <= pictures.AT_ONCE


def test_a_sigterm_for_all_processes_spoils_no_picture():
    content, others, children = png(3000, 3000), set(psutil.Process().children()), set()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(clean, content, max_pixels=9_000_000)
        while not children and not running.done():
            children = set(psutil.Process().children()) - others
        children.pop().terminate()
        assert running.result().size == (3000, 3000)


@pytest.mark.parametrize("format_", ["JPEG", "WEBP", "AVIF"])
def test_other_formats_become_png(format_):
    assert clean(png(format=format_)).format == "PNG"


def test_transparent_pictures_stay_transparent():
    assert clean(png(mode="RGBA", color=(10, 20, 30, 0))).mode == "RGBA"
    palette = Image.new("P", (40, 40))
    target = io.BytesIO()
    palette.save(target, "PNG", transparency=0)
    assert clean(target.getvalue()).mode == "RGBA"


def test_a_picture_is_turned_upright_and_loses_its_metadata():
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    exif[0x010E] = "taken at home"
    found = clean(png(64, 40, format="JPEG", exif=exif))
    assert found.size == (40, 64)
    assert not found.getexif()
    assert set(found.info) == set()


def test_a_picture_arrives_whole_at_a_decoder_that_is_slow_to_start(monkeypatch):
    """It is larger than a pipe holds, so most of it is left when the client is looked after for the first time."""
    monkeypatch.setattr(pictures, "LOOK_EVERY_SECONDS", 0.001)
    monkeypatch.setattr(pictures, "WALL_SECONDS", 30)
    noise = Image.frombytes("RGB", (300, 300), random.Random(1).randbytes(270_000))
    target = io.BytesIO()
    noise.save(target, "PNG")
    assert len(target.getvalue()) > 1 << 17
    assert clean(target.getvalue()).tobytes() == noise.tobytes()


def test_the_first_frame_of_an_animation_is_used():
    frames = [Image.new("RGB", (40, 40), color) for color in ("red", "lime")]
    target = io.BytesIO()
    frames[0].save(target, "PNG", save_all=True, append_images=frames[1:])
    assert clean(target.getvalue()).getpixel((5, 5)) == (255, 0, 0)


def test_the_first_of_a_hundred_thousand_frames_is_used():
    control = chunk(b"acTL", struct.pack(">II", 100_000, 0))
    frames = b"".join(chunk(b"fcTL", struct.pack(">IIIIIHHBB", n, 40, 40, 0, 0, 1, 1, 0, 0)) for n in range(100_000))
    assert clean(raw_png(40, 40, control, frames)).size == (40, 40)


def test_decompression_bombs_are_refused():
    assert refusal(raw_png(50_000, 50_000)) == "picture_too_large"
    assert refusal(raw_png(1001, 1000)) == "picture_too_large"


def test_small_and_long_files_are_refused():
    assert refusal(png(40, 31)) == "picture_too_small"
    assert refusal(png(), max_bytes=100) == "picture_too_large"


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP", "AVIF"])
def test_broken_files_are_refused_or_read_but_never_crash(format_):
    """Cut and spoilt in three hundred ways; in this process, for that is faster than as many children."""
    whole, chance = png(format=format_), random.Random(4)
    for _ in range(100):
        broken = bytearray(whole[: chance.randrange(4, len(whole))] if chance.random() < 0.3 else whole)
        for _ in range(chance.randrange(1, 12)):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        head, content = decoder.answer(bytes(broken), 1_000_000, 32)
        assert bool(content) == ("code" not in head)
        assert head.get("code") in (
            None,
            "not_a_picture",
            "picture_too_large",
            "picture_too_small",
            "picture_too_narrow",
        )
