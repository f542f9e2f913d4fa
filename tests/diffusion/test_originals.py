"""Pictures drawn from others: what is left of them, with every family and every sampler."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from shared import catalog
from shared.catalog.params import GenerateParams, Original, StoredPicture, TrainParams, WantedPicture
from tests.diffusion import flow, tiny
from workers.diffusion import families, originals
from workers.diffusion.dataset import Example
from workers.diffusion.families.base import Family
from workers.diffusion.generate import generate
from workers.diffusion.lora import files
from workers.diffusion.lora.about import About
from workers.diffusion.train import train_lora

SIZE = (32, 64)  # width and height
PARAMS = GenerateParams(
    width=SIZE[0], height=SIZE[1], inference_steps=4, guidance_scale=3.0, negative_prompt="bad", batch_size=3,
    precision="fp32",
)  # fmt: skip
PLAIN = WantedPicture(prompt="1girl, from behind", seed=3)


class Album:
    """Pictures by their key, as a store has them."""

    def __init__(self) -> None:
        self.pictures: dict[str, Image.Image] = {}

    def open(self, stored: StoredPicture) -> Image.Image:
        return self.pictures[stored.key]

    def add(self, image: Image.Image) -> StoredPicture:
        key = str(len(self.pictures))
        self.pictures[key] = image
        return StoredPicture(key=key, sha256="")

    def wanted(
        self, image: Image.Image, strength: float, mask: Image.Image | None = None, *, seed: int = 3, **size: int
    ) -> WantedPicture:
        original = Original(
            image_id="img_1", image=self.add(image), mask=self.add(mask) if mask else None, strength=strength,
            width=size.get("width", SIZE[0]), height=size.get("height", SIZE[1]),
        )  # fmt: skip
        return replace(PLAIN, seed=seed, original=original)


@pytest.fixture
def album() -> Album:
    return Album()


@pytest.fixture(scope="module", params=["sd15", "sd2", "sdxl", "chibi", "flow"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Family]:
    torch.set_num_threads(1)
    name, chibi = request.param, catalog.BASE_MODELS["chibi"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(catalog.FAMILIES, "flow", flow.FAMILY)
        if name == "flow":
            row = flow.ROW
        elif name == "chibi":
            row = replace(chibi, path=str(tiny.ROOT / chibi.path))
        else:
            kind = "v_prediction" if name == "sd2" else "epsilon"
            row = tiny.make_base_model(tmp_path_factory.mktemp(name), kind, family=name)
        yield families.load(row, "cpu")
    families.unload()


def photo(size: tuple[int, int] = SIZE, seed: int = 5) -> Image.Image:
    """Something with edges and a gradient."""
    across, down = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    image = Image.fromarray(np.stack([across, down, 255 - across], axis=2).astype(np.uint8))
    ImageDraw.Draw(image).ellipse((4, 4 + seed, 20, 24 + seed), fill="orange", outline="black")
    return image


def left_half(size: tuple[int, int] = SIZE) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(255, (0, 0, size[0] // 2, size[1]))
    return mask


def draw(family: Family, wanted: list[WantedPicture], params: GenerateParams, album: Album, **more: Any) -> list[Any]:
    drawn = sorted(generate(family, wanted, params, open_picture=album.open, **more), key=lambda each: each[0])
    assert [index for index, _ in drawn] == list(range(len(wanted)))
    return [np.asarray(image).astype(int) for _, image in drawn]


def round_trip(family: Family, image: Image.Image) -> np.ndarray:
    (back,) = family.decode(family.encode_images([image])[0])
    return np.asarray(back).astype(int)


def samplers(family: Family) -> list[GenerateParams]:
    """All that it offers; of families that take long to draw, one with noise of its own and one of several steps."""
    name = family.row.family
    offered = catalog.FAMILIES[name].samplers if name in ("sd15", "flow") else ("euler_a", "dpmpp_2m")
    return [replace(PARAMS, sampler=sampler) for sampler in offered]


class TestWithoutAMask:
    def test_the_weakest_is_almost_what_the_latents_hold_of_it(self, family: Family, album: Album) -> None:
        """One step of little noise. Latents of random VAEs are as small as that noise."""
        most = 0.2 if family.row.family in ("chibi", "flow") else 0.9
        expected = round_trip(family, photo())
        for params in (replace(each, guidance_scale=1.0) for each in samplers(family)):
            (weak,) = draw(family, [album.wanted(photo(), 0.01)], replace(params, inference_steps=60), album)
            (strong,) = draw(family, [album.wanted(photo(), 0.9)], params, album)
            assert np.abs(weak - expected).mean() < most * np.abs(strong - expected).mean(), params.sampler

    def test_the_strongest_draws_as_if_there_were_no_original(self, family: Family, album: Album) -> None:
        for params in samplers(family):
            (redrawn,) = draw(family, [album.wanted(photo(), 1.0)], params, album)
            (plain,) = draw(family, [PLAIN], params, album)
            assert np.array_equal(redrawn, plain), params.sampler

    def test_the_original_is_scaled_to_the_size_at_which_it_is_drawn(self, family: Family, album: Album) -> None:
        wide = album.wanted(photo((96, 48)), 0.5, width=64, height=32)
        (drawn,) = draw(family, [wide], PARAMS, album)
        assert drawn.shape == (32, 64, 3)

    def test_what_is_transparent_is_white(self, family: Family, album: Album) -> None:
        clear = photo().convert("RGBA")
        clear.putalpha(left_half())
        white = Image.composite(photo(), Image.new("RGB", SIZE, "white"), left_half())
        params = samplers(family)[0]
        ours, theirs = draw(family, [album.wanted(clear, 0.5), album.wanted(white, 0.5)], params, album)
        assert np.array_equal(ours, theirs)


class TestWithAMask:
    def test_black_stays_to_the_last_bit_and_white_is_drawn(self, family: Family, album: Album) -> None:
        before = np.asarray(photo()).astype(int)
        for params in samplers(family):
            for drawn in draw(family, [album.wanted(photo(), each, left_half()) for each in (0.5, 1.0)], params, album):
                assert np.array_equal(drawn[:, 16:], before[:, 16:]), params.sampler
                assert np.abs(drawn[:, :12] - before[:, :12]).max() > 20, params.sampler

    def test_the_drawn_part_knows_the_rest(self, family: Family, album: Album) -> None:
        """Its latents are replaced before each step, so what the denoiser sees beside the mask is the original."""
        (drawn,) = draw(family, [album.wanted(photo(), 1.0, left_half())], PARAMS, album)
        (other,) = draw(family, [album.wanted(photo(seed=30).rotate(180), 1.0, left_half())], PARAMS, album)
        assert not np.array_equal(drawn[:, :12], other[:, :12])

    def test_the_picture_keeps_its_own_size(self, family: Family, album: Album) -> None:
        large = photo((75, 130))
        (drawn,) = draw(family, [album.wanted(large, 0.7, left_half((75, 130)))], PARAMS, album)
        assert drawn.shape == (130, 75, 3)
        assert np.array_equal(drawn[:, 37:], np.asarray(large)[:, 37:])

    def test_a_thin_line_is_drawn_too(self, family: Family, album: Album) -> None:
        line = Image.new("L", SIZE)
        line.paste(255, (7, 0, 8, SIZE[1]))
        before = np.asarray(photo()).astype(int)
        (drawn,) = draw(family, [album.wanted(photo(), 1.0, line)], PARAMS, album)
        assert np.array_equal(np.delete(drawn, 7, axis=1), np.delete(before, 7, axis=1))
        assert np.abs(drawn[:, 7] - before[:, 7]).max() > 5


def test_a_picture_is_a_function_of_its_seed_and_not_of_its_batch(family: Family, album: Album) -> None:
    wanted = [
        album.wanted(photo(), 0.5, seed=3),
        PLAIN,
        album.wanted(photo(seed=9), 0.5, left_half(), seed=4),
        album.wanted(photo(), 0.5, seed=5),
        album.wanted(photo((48, 48)), 0.5, width=32, height=32),
    ]
    for params in samplers(family):
        together = draw(family, wanted, params, album)
        for number, picture in enumerate(wanted):
            (alone,) = draw(family, [picture], replace(params, batch_size=1), album)
            assert np.abs(together[number] - alone).max() <= 1, (params.sampler, number)  # rounding of other sums
        assert np.abs(together[0] - together[3]).max() > 5, "another seed is another picture"


def test_only_the_steps_that_are_taken_are_counted(family: Family, album: Album) -> None:
    seen: list[tuple[int, int]] = []
    wanted = [album.wanted(photo(), 0.5), album.wanted(photo(), 0.01), PLAIN]
    draw(family, wanted, PARAMS, album, on_step=lambda *step: seen.append(step))
    assert seen == [(n, 7) for n in range(1, 8)]  # 2 of 4, 1, and 4


def test_loras_change_what_is_drawn_and_nothing_else(family: Family, album: Album, tmp_path: Any) -> None:
    training = TrainParams(
        rank=2, alpha=2.0, lora_modules="all", learning_rate=0.05, train_steps=2, batch_size=1, precision="fp32"
    )
    lora = train_lora(family, [Example(tiny.make_image(0), ["1girl"])], training)
    paths = {form: tmp_path / f"{form}.safetensors" for form in ("kohya", "peft")}
    files.save(lora, family, About("her", "eiei21girl"), **paths)
    wanted = [album.wanted(photo(), 0.8, left_half())]
    (plain,) = draw(family, wanted, PARAMS, album)
    (changed,) = draw(family, wanted, PARAMS, album, loras=[(paths["kohya"], 1.0)])
    assert np.abs(changed[:, :12] - plain[:, :12]).max() > 2
    assert np.array_equal(changed[:, 16:], plain[:, 16:])


def test_an_original_that_nobody_can_open_is_refused(family: Family, album: Album) -> None:
    with pytest.raises(ValueError, match="open_picture"):
        list(generate(family, [album.wanted(photo(), 0.5)], PARAMS))


class TestFeather:
    def test_what_is_black_stays_black_and_the_inside_is_white(self) -> None:
        mask = Image.new("L", (256, 256))
        mask.paste(255, (64, 64, 192, 192))
        soft = np.asarray(originals.feathered(mask))
        assert not soft[np.asarray(mask) == 0].any()
        assert (soft[72:184, 72:184] == 255).all()
        assert 96 < soft[64, 128] < 192
        assert (np.diff(soft[64:80, 128].astype(int)) >= 0).all()

    def test_a_line_and_a_dot_keep_their_white(self) -> None:
        mask = Image.new("L", (256, 256))
        mask.paste(255, (20, 0, 21, 256))
        mask.putpixel((200, 200), 255)
        soft = np.asarray(originals.feathered(mask))
        assert (soft[:, 20] == 255).all()
        assert soft[200, 200] == 255

    def test_the_edge_of_a_large_mask_is_soft_too(self) -> None:
        """A filter whose work for a pixel grows with the square of the edge's width would take many minutes."""
        mask = Image.new("L", (4096, 4096))
        mask.paste(255, (0, 0, 2048, 4096))
        assert np.asarray(originals.feathered(mask))[2048].tolist().count(255) > 1900

    def test_grey_is_at_most_what_it_was(self) -> None:
        mask = Image.new("L", (64, 64), 100)
        assert (np.asarray(originals.feathered(mask)) == 100).all()
