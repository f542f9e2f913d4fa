"""Pictures are converted to sRGB by their colour profiles, and broken metadata is ignored."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from shared.outside import decoder, pictures
from tests.api.bodies import PROJECT, upload
from tests.api.files import LIMITS, chunk, clean, raw_png
from tests.factories import png
from tests.profiles import SRGB, cmyk_profile, grey_profile, rgb_profile

ADOBE_GREEN, SRGB_GREEN = (40, 200, 60), (0, 201, 37)
LONG_TEXT = Path(__file__).parent.parent / "data" / "pictures" / "compressed-text-of-1.1-MB.png"
LOSSLESS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "JPEG": {"quality": 100, "subsampling": 0},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
}


def picture(mode: str, color: Any, profile: bytes | None, format_: str = "PNG", **save: Any) -> bytes:
    target = io.BytesIO()
    Image.new(mode, (40, 48), color).save(target, format_, icc_profile=profile, **LOSSLESS[format_], **save)
    return target.getvalue()


def colour(content: bytes) -> Any:
    return clean(content).getpixel((5, 5))


def near(found: Any, wanted: Any, by: int = 2) -> bool:
    return len(found) == len(wanted) and all(abs(a - b) <= by for a, b in zip(found, wanted, strict=True))


def notes(content: bytes) -> tuple[str, ...]:
    return pictures.clean(content, **LIMITS).notes


@pytest.mark.parametrize("format_", list(LOSSLESS))
def test_a_colour_profile_is_applied(format_: str) -> None:
    assert near(
        colour(picture("RGB", ADOBE_GREEN, rgb_profile(), format_)), SRGB_GREEN, by=5 if format_ == "AVIF" else 2
    )


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "AVIF"])
def test_transparency_is_kept(format_: str) -> None:
    found = colour(picture("RGBA", (*ADOBE_GREEN, 128), rgb_profile(), format_))
    assert near(found, (*SRGB_GREEN, 128), by=5 if format_ == "AVIF" else 2)


def test_a_profile_is_applied_to_palettes_greys_and_inks() -> None:
    palette = Image.new("RGB", (40, 48), ADOBE_GREEN).quantize(2)
    target = io.BytesIO()
    palette.save(target, "PNG", icc_profile=rgb_profile())
    assert near(colour(target.getvalue()), SRGB_GREEN)
    assert near(colour(picture("L", 128, grey_profile(1.0))), (188, 188, 188))
    assert near(colour(picture("LA", (128, 100), grey_profile(1.0))), (188, 188, 188, 100))
    assert near(colour(picture("CMYK", (255, 255, 0, 0), cmyk_profile(), "JPEG")), (119, 119, 119))


def test_greys_with_a_profile_of_colours_are_read_as_colours() -> None:
    assert near(colour(picture("L", 128, rgb_profile(gamma=1.0))), (188, 188, 188))


def test_a_picture_that_is_in_srgb_keeps_every_pixel() -> None:
    content = picture("RGB", ADOBE_GREEN, rgb_profile(SRGB, 2.2))
    assert not near(colour(content), ADOBE_GREEN), "this one is close to sRGB, and not the same"
    whole = Image.effect_noise((64, 64), 90).convert("RGB")
    target = io.BytesIO()
    whole.save(target, "PNG", icc_profile=decoder._srgb().tobytes())
    assert clean(target.getvalue()).tobytes() == whole.tobytes()


@pytest.mark.parametrize(
    ("mode", "profile", "format_"),
    [
        ("RGB", b"", "PNG"),
        ("RGB", b"nonsense" * 40, "PNG"),
        ("RGB", b"nonsense" * 40, "JPEG"),
        ("RGB", b"nonsense" * 40, "WEBP"),
        ("RGB", rgb_profile()[:200], "JPEG"),
        ("RGB", cmyk_profile(), "PNG"),
        ("RGB", grey_profile(1.0), "WEBP"),
    ],
    ids=["empty", "png", "jpeg", "webp", "cut off", "of inks", "of greys"],
)
def test_a_profile_that_cannot_be_used_is_ignored_with_a_note(mode: str, profile: bytes, format_: str) -> None:
    content = picture(mode, ADOBE_GREEN, profile or None, format_)
    if not profile:
        content = raw_png(40, 48, chunk(b"iCCP", b"empty"))
        assert colour(content) == (0, 0, 0)
    else:
        assert near(colour(content), ADOBE_GREEN)
    assert any("colour profile" in note for note in notes(content))
    assert notes(png()) == ()


def test_a_compressed_text_of_any_length_is_not_unpacked() -> None:
    assert clean(LONG_TEXT.read_bytes()).size == (96, 96)
    for kind, head in (
        (b"zTXt", b"comment\0\0"),
        (b"iTXt", b"comment\0\1\0\0\0"),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0"),
    ):
        text = chunk(kind, head + zlib.compress(b"x" * 50_000_000))
        assert clean(raw_png(40, 40, text)).size == (40, 40)
    many = chunk(b"zTXt", b"comment\0\0" + zlib.compress(b"x" * 1_000_000)) * 100
    assert clean(raw_png(40, 40, many)).size == (40, 40)


def test_a_profile_that_unpacks_to_too_much_is_ignored() -> None:
    profile = chunk(b"iCCP", b"bomb\0\0" + zlib.compress(b"x" * 50_000_000))
    assert clean(raw_png(40, 40, profile)).size == (40, 40)
    assert any("colour profile" in note for note in notes(raw_png(40, 40, profile)))


def test_a_picture_is_turned_upright_by_what_editors_write() -> None:
    turned = b'<x:xmpmeta xmlns:tiff="http://ns.adobe.com/tiff/1.0/"><d tiff:Orientation="6"/></x:xmpmeta>'
    for kind, head in ((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0"), (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0")):
        text = zlib.compress(turned) if head[18] else turned
        assert clean(raw_png(64, 40, chunk(kind, head + text))).size == (40, 64)


def test_a_broken_exif_block_is_ignored() -> None:
    exif = chunk(b"eXIf", b"nonsense")
    assert clean(raw_png(64, 40, exif)).size == (64, 40)
    head, rest = png(64, 40, format="JPEG")[:2], png(64, 40, format="JPEG")[2:]
    block = b"Exif\0\0II*\0" + struct.pack("<I", 60_000)
    assert clean(head + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + rest).size == (64, 40)


def test_avif_is_accepted() -> None:
    assert clean(png(format="AVIF")).size == (64, 64)
    assert clean(png(mode="RGBA", color=(10, 20, 30, 0), format="AVIF")).mode == "RGBA"


@pytest.mark.slow
def test_a_large_picture_fits_into_the_memory_of_its_decoder() -> None:
    """The largest of each format, with a profile: 6 million pixels stand for the 40 that are allowed by default."""
    for format_ in LOSSLESS:
        target = io.BytesIO()
        mode = "RGB" if format_ == "JPEG" else "RGBA"
        Image.new(mode, (3000, 2000), (40, 200, 60, 128)[: len(mode)]).save(
            target, format_, icc_profile=rgb_profile(), **LOSSLESS[format_]
        )
        assert clean(target.getvalue(), max_pixels=6_000_000).size == (3000, 2000)


def test_the_client_is_told_what_was_ignored(ada: Any) -> None:
    project_id = ada.post("/v1/projects", PROJECT).json["id"]
    assert upload(ada, project_id, picture("RGB", ADOBE_GREEN, cmyk_profile())).status_code == 201
    assert upload(ada, project_id).status_code == 201
    told, silent = ada.get(f"/v1/projects/{project_id}/events").json["items"]
    assert any("colour profile" in note for note in told["data"]["notes"])
    assert silent["data"]["notes"] == []
