"""The world: the same from a seed, with true tags, left always left, and never a kept-back character in training."""

import ast
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import chibi_lab
from chibi_lab.data import PictureSet, Record, render_held_out, render_set, sample
from chibi_lab.heroine import HEROINE
from chibi_lab.labels import SIDED, UNKNOWN, WORDLESS, label
from chibi_lab.tokenizer import words_of_the_world
from chibi_lab.world import (
    STYLES,
    VIEW_TAGS,
    VIEWS,
    Character,
    Look,
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
    reserved_characters,
    sample_any,
    sample_character,
    sample_shot,
    shot_tags,
)
from chibi_lab.world.beast import EARS, TAILS
from chibi_lab.world.camera import Camera
from chibi_lab.world.folds import KEPT_BACK, fold, pair_fold
from chibi_lab.world.hair import HAIR_STYLES
from chibi_lab.world.headwear import HEADWEAR
from chibi_lab.world.held import HELD
from chibi_lab.world.reserved import RESERVED_STYLES
from chibi_lab.world.solid import box, rotate_y

PLAIN = Character()


def test_the_same_seed_draws_the_same_picture():
    first, second = (sample(np.random.default_rng(5), 64) for _ in range(2))
    assert (first[0] == second[0]).all()
    assert first[1] == second[1]


def test_training_never_meets_a_kept_back_character():
    rng = np.random.default_rng(0)
    assert all(is_for_training(sample_character(rng)) for _ in range(200))
    for kept_back in (held_out_characters, practice_characters, reserved_characters):
        assert not any(is_for_training(c) for c in kept_back(10))
    assert all(is_held_out(c) for c in held_out_characters(10))


def test_a_kept_back_pair_of_outfit_and_headwear_is_never_seen_in_training():
    rng = np.random.default_rng(1)
    trained = {(c.outfit, c.headwear) for c in (sample_character(rng) for _ in range(600)) if c.headwear != "none"}
    held_out = {(c.outfit, c.headwear) for c in held_out_characters(60) if c.headwear != "none"}
    assert held_out
    assert not trained & held_out


def test_the_folds_are_disjoint_and_about_an_eighth_each():
    rng = np.random.default_rng(1)
    people = [sample_any(rng) for _ in range(2000)]
    assert np.bincount([fold(c) for c in people], minlength=8).min() > 150
    for c in practice_characters(5) + reserved_characters(5):
        assert fold(c) in KEPT_BACK
        assert pair_fold(c) in (None, fold(c))
        assert not is_held_out(c)


def test_hats_are_as_frequent_among_the_kept_back_as_in_the_world():
    rng = np.random.default_rng(2)
    share = np.mean([sample_any(rng).headwear != "none" for _ in range(600)])
    for some in (held_out_characters(150), [sample_character(rng) for _ in range(300)]):
        assert abs(np.mean([c.headwear != "none" for c in some]) - share) < 0.12


def test_held_out_characters_are_always_the_same():
    assert held_out_characters(3) == held_out_characters(5)[:3]


def test_the_heroine_is_held_out():
    assert is_held_out(HEROINE)


def test_nobody_has_animal_ears_or_a_tail_by_default():
    assert not {*EARS, *TAILS} & set(feature_tags(PLAIN))
    rng = np.random.default_rng(3)
    people = [sample_any(rng) for _ in range(1000)]
    assert np.mean([c.ears not in EARS and c.tail == "none" for c in people]) > 0.7
    assert "ears" not in draw(PLAIN, Shot()).seen


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_is_a_picture_of_its_own(view):
    others = [render(HEROINE, Shot(view=v), 64).astype(int) for v in VIEWS if v != view]
    picture = render(HEROINE, Shot(view=view), 64).astype(int)
    assert all(np.abs(picture - other).mean() > 3 for other in others)


@pytest.mark.parametrize("style", STYLES)
def test_every_style_is_a_picture_of_its_own(style):
    picture = render(HEROINE, Shot(style=style), 64).astype(int)
    others = [render(HEROINE, Shot(style=s), 64).astype(int) for s in STYLES if s != style]
    assert all(np.abs(picture - other).mean() > 0.5 for other in others)


def test_tags_come_from_the_vocabulary_and_fit_the_text_encoder():
    rng, known = np.random.default_rng(2), set(all_tags())
    for _ in range(60):
        _, record = sample(rng, 64)
        tags = picture_tags(record.character, record.shot, record.seen)
        assert tags[1] == "solo"
        assert set(tags) <= known
        assert len(tags) == len(set(tags))
    assert len(all_tags()) == len(known)


@pytest.mark.slow
def test_all_that_a_tag_says_can_be_seen():
    """Of each feature tag of a character a picture from some side shows it."""
    rng = np.random.default_rng(6)
    for _ in range(12):
        character = sample_any(rng)
        shown = set()
        for view in ("front", "three-quarter", "behind", "side"):
            for framing in ("full body", "portrait"):
                for mirrored in (False, True):
                    shot = Shot(view=view, framing=framing, mirrored=mirrored)
                    shown |= set(picture_tags(character, shot, draw(character, shot).seen))
        missed = set(feature_tags(character)) - shown
        hidden = {
            character.hair_style,
            "belt",
            "sash",
            "belt pouch",
            f"{character.hair} hair",
            f"{character.eyes} eyes",
        }
        assert missed <= hidden, (missed, character)


def test_view_tags_are_those_of_the_method():
    assert list(VIEW_TAGS.values()) == [
        "looking at viewer", "three-quarter view", "from side", "from behind", "from above", "from below",
    ]  # fmt: skip
    assert shot_tags(Shot(view="behind", framing="portrait"))[:2] == ["from behind", "portrait"]


def test_what_cannot_be_seen_is_not_tagged():
    behind, front, portrait = (draw(HEROINE, shot) for shot in (Shot(view="behind"), Shot(), Shot(framing="portrait")))
    assert "eyes" in front.seen
    assert "eyes" not in behind.seen
    assert {"tail", "ears", "outfit", "hair"} <= behind.seen
    assert "footwear" in front.seen
    assert "footwear" not in portrait.seen
    assert "yellow eyes" in picture_tags(HEROINE, Shot(), front.seen)
    assert "yellow eyes" not in picture_tags(HEROINE, Shot(view="behind"), behind.seen)


def test_a_face_that_cannot_make_an_expression_is_not_tagged_with_it():
    masked = replace(PLAIN, face="mask")
    assert "smile" in shot_tags(Shot(expression="smile"), PLAIN)
    assert "smile" not in shot_tags(Shot(expression="smile"), masked)
    assert "closed eyes" in shot_tags(Shot(expression="closed eyes"), masked)


def test_a_sketch_says_nothing_of_backgrounds_but_is_monochrome():
    assert shot_tags(Shot(style="sketch", background="outdoors"))[-2:] == ["sketch", "monochrome"]


def middle_of(picture: np.ndarray, color: tuple[int, int, int]) -> float:
    """The mean column, 0..1, of the pixels of a colour."""
    found = np.abs(picture.astype(int) - color).max(-1) < 40
    assert found.sum() > 8
    return float(np.nonzero(found)[1].mean() / picture.shape[1])


ON_HER_LEFT = {
    "shield": replace(PLAIN, held_left="shield", look=Look(accent="green")),
    "stripe": replace(PLAIN, look=Look(stripe="left", stripe_color="green")),
    "bow": replace(PLAIN, head_extra="hair bow", look=Look(accent="green")),
}


@pytest.mark.parametrize("thing", ON_HER_LEFT)
def test_what_is_on_her_left_stays_there_from_behind(thing):
    green = (51, 143, 82)
    front = render(ON_HER_LEFT[thing], Shot(style="flat color"))
    behind = render(ON_HER_LEFT[thing], Shot(style="flat color", view="behind"))
    assert middle_of(front, green) > 0.55
    assert middle_of(behind, green) < 0.45


@pytest.mark.parametrize("head", SIDED)
def test_both_sides_are_asked_for(head):
    rng, found = np.random.default_rng(8), set()
    for _ in range(400):
        character = sample_any(rng)
        parts = frozenset(
            {"held", "held left", "held right", "pauldron", "stripe", "eyepatch", "scar", "pouch", "bag", "strap"}
            | {"hair bow", "hair flower", "earring", "tresses"}
        )
        found.add(label(Record(character, Shot(), parts), head))
    assert {0, 1} <= found


def test_what_no_tag_says_differs_between_characters_with_the_same_tags():
    other = replace(
        HEROINE, look=replace(HEROINE.look, head_shape="tall", fringe="parted", trim="none", stripe="right")
    )
    assert feature_tags(other) == feature_tags(HEROINE)
    shot = Shot()
    records = [Record(c, shot, draw(c, shot).seen) for c in (HEROINE, other)]
    told = [head for head in WORDLESS if UNKNOWN != label(records[0], head) != label(records[1], head)]
    assert {"head_shape", "fringe", "stripe_side"} <= set(told)


def test_colours_are_where_the_tags_say():
    blue = replace(PLAIN, outfit="robe", outfit_color="blue", bottom="none")
    r, g, b = render(blue, Shot(style="flat color"))[100, 64].astype(int)
    assert b > r + 40
    assert b > g + 40
    assert "blue robe" in feature_tags(blue)


def test_each_thing_to_wear_or_hold_changes_the_picture():
    bare = render(PLAIN, Shot(), 64).astype(int)
    changed = [replace(PLAIN, headwear=name) for name in HEADWEAR]
    changed += [replace(PLAIN, held_right=name) for name in HELD]
    changed += [
        replace(PLAIN, hair_style=name) for name in HAIR_STYLES if name not in (PLAIN.hair_style, "braid", "ponytail")
    ]
    for character in changed:
        assert np.abs(render(character, Shot(), 64).astype(int) - bare).mean() > 0.2, character


def test_reserved_styles_are_drawn_but_known_to_nothing_that_trains():
    words = {"".join(c for c in word if c.isalpha()) for name in RESERVED_STYLES for word in name.split()}
    assert len(RESERVED_STYLES) == 6
    assert not words & set(words_of_the_world())
    assert not set(RESERVED_STYLES) & set(STYLES)
    for name in RESERVED_STYLES:
        assert draw(HEROINE, Shot(style=name), 64, RESERVED_STYLES).pixels.std() > 20
    for path in Path(chibi_lab.__path__[0]).rglob("*.py"):
        tree = ast.parse(path.read_text())
        imported = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        assert not any(module.endswith("reserved") for module in imported), path


def test_a_ray_meets_the_near_side_of_a_box():
    camera = Camera(rotate_y(30), (0.0, 0.0), 1.0)
    surface = camera.see([box("box", (0, 0, 0), (0.3, 0.3, 0.3), (1, 0, 0))], 64)
    assert surface.covered[32, 32]
    assert surface.normal[32, 32, 2] > 0
    assert not surface.covered[2, 2]


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
    for _ in range(40):
        drawing = draw(sample_any(rng), sample_shot(rng), 64)
        assert drawing.pixels.shape == (64, 64, 3)
        assert "skin" in drawing.seen or "headwear" in drawing.seen
