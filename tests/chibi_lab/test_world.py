"""The world: the same from a seed, with true tags, and never a held-out character in training."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chibi_lab.data import PictureSet, render_held_out, render_set, sample
from chibi_lab.heroine import EXAMPLES, HEROINE, TRIGGER
from chibi_lab.world import (
    STYLES,
    VIEW_TAGS,
    VIEWS,
    Shot,
    all_tags,
    draw,
    feature_tags,
    held_out_characters,
    is_for_training,
    is_held_out,
    picture_tags,
    practice_characters,
    render,
    sample_character,
    sample_shot,
    shot_tags,
)
from chibi_lab.world.character import fold, sample_any


def test_the_same_seed_draws_the_same_picture():
    first, second = (sample(np.random.default_rng(5), 64) for _ in range(2))
    assert (first[0] == second[0]).all()
    assert first[1] == second[1]


def test_training_never_meets_held_out_or_practice_characters():
    rng = np.random.default_rng(0)
    assert all(is_for_training(sample_character(rng)) for _ in range(300))
    assert not any(is_for_training(c) for c in held_out_characters(12) + practice_characters(12))
    assert all(is_held_out(c) for c in held_out_characters(12))


def test_every_fold_is_about_an_eighth():
    rng = np.random.default_rng(1)
    folds = np.bincount([fold(sample_any(rng)) for _ in range(2000)], minlength=8)
    assert folds.min() > 150


def test_held_out_characters_are_always_the_same():
    assert held_out_characters(3) == held_out_characters(5)[:3]


def test_the_heroine_is_held_out_and_her_picture_is_as_the_code_draws_her():
    assert is_held_out(HEROINE)
    shown = np.asarray(Image.open(EXAMPLES / f"{TRIGGER}.png").convert("RGB")).astype(int)
    assert np.abs(shown - render(HEROINE, Shot(), 512)).mean() < 0.5


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_is_a_picture_of_its_own(view):
    others = [render(HEROINE, Shot(view=v), 64).astype(int) for v in VIEWS if v != view]
    picture = render(HEROINE, Shot(view=view), 64).astype(int)
    assert all(np.abs(picture - other).mean() > 3 for other in others)


@pytest.mark.parametrize("style", STYLES)
def test_every_style_is_a_picture_of_its_own(style):
    picture = render(HEROINE, Shot(style=style), 64).astype(int)
    others = [render(HEROINE, Shot(style=s), 64).astype(int) for s in STYLES if s != style]
    assert all(np.abs(picture - other).mean() > 1 for other in others)


def test_tags_come_from_the_vocabulary():
    rng, known = np.random.default_rng(2), set(all_tags())
    for _ in range(50):
        _, record = sample(rng, 64)
        tags = picture_tags(record.character, record.shot, record.seen)
        assert tags[:2] == ["1girl", "solo"]
        assert set(tags) <= known
        assert len(tags) == len(set(tags))


def test_view_tags_are_those_of_the_method():
    assert list(VIEW_TAGS.values()) == [
        "looking at viewer", "three-quarter view", "from side", "from behind", "from above", "from below",
    ]  # fmt: skip
    assert shot_tags(Shot(view="behind", framing="portrait"))[:2] == ["from behind", "portrait"]


def test_what_cannot_be_seen_is_not_tagged():
    behind = draw(HEROINE, Shot(view="behind"))
    front = draw(HEROINE, Shot())
    portrait = draw(HEROINE, Shot(framing="portrait"))
    assert "eyes" in front.seen
    assert "eyes" not in behind.seen
    assert {"tail", "ears", "outfit", "hair"} <= behind.seen
    assert "shoe" in front.seen
    assert "shoe" not in portrait.seen
    assert "yellow eyes" in picture_tags(HEROINE, Shot(), front.seen)
    assert "yellow eyes" not in picture_tags(HEROINE, Shot(view="behind"), behind.seen)


def test_a_sketch_says_nothing_of_backgrounds_but_is_monochrome():
    assert shot_tags(Shot(style="sketch", background="outdoors"))[-2:] == ["sketch", "monochrome"]


def test_colours_are_where_the_tags_say():
    picture = render(replace(HEROINE, outfit_color="blue"), Shot(style="flat color"))
    r, g, b = picture[95, 64].astype(int)  # on the robe, below the sash
    assert b > r + 40
    assert b > g + 40
    assert "blue kimono" in feature_tags(replace(HEROINE, outfit_color="blue"))


def test_shots_and_characters_survive_being_written_down(tmp_path: Path):
    render_set(tmp_path, shards=2, seed=3, size=64, workers=1, count=4)
    pictures = PictureSet(tmp_path)
    assert len(pictures) == 8
    record = pictures.records[5]
    assert (draw(record.character, record.shot, 64).pixels == pictures.pictures([5])[0]).all()


def test_rendering_goes_on_where_it_was_stopped(tmp_path: Path):
    render_set(tmp_path, shards=1, seed=3, size=64, workers=1, count=2)
    first = (tmp_path / "pictures-0000.npy").stat().st_mtime_ns
    render_set(tmp_path, shards=2, seed=3, size=64, workers=1, count=2)
    assert (tmp_path / "pictures-0000.npy").stat().st_mtime_ns == first
    assert len(PictureSet(tmp_path)) == 4


def test_the_set_to_measure_on_is_of_held_out_characters(tmp_path: Path):
    render_held_out(tmp_path, seed=3, size=64, count=6)
    assert all(is_held_out(r.character) for r in PictureSet(tmp_path).records)


def test_any_shot_of_any_character_can_be_drawn():
    rng = np.random.default_rng(9)
    for _ in range(30):
        drawing = draw(sample_any(rng), sample_shot(rng), 64)
        assert drawing.pixels.shape == (64, 64, 3)
        assert "hair" in drawing.seen
