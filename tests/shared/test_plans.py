import re
from collections import Counter
from dataclasses import asdict
from typing import Any

import pytest

from shared import plans
from shared.catalog import BASE_MODELS, FAMILIES, VIEWS, BaseModel, base_models
from shared.errors import Invalid

CHIBI = base_models()["chibi"]


def pictures(**over: Any) -> list[Any]:
    given: dict[str, Any] = {
        "trigger_word": "eiei21girl", "subject_tags": ["1girl"], "feature_tags": ["red eyes", "fox tail"],
        "views": list(VIEWS), "framings": {"full_body": 1}, "prompt_tags": ["cel shading"], "count": 12, "seed": 100,
        "name_features": True,
    }  # fmt: skip
    return plans.pictures(**{**given, **over})


def test_a_client_that_says_nothing_gets_the_method_four_sixteen_forty() -> None:
    rounds = plans.resolve(None, CHIBI).rounds
    assert [(each.kind, each.target) for each in rounds] == [("style", 16), ("style", 40), ("character", 40)]
    assert [each.caption_policy for each in rounds] == ["full", "full", "prune"]


def test_nothing_is_left_open_in_a_stored_plan() -> None:
    for each in plans.resolve(None, CHIBI).rounds:
        assert None not in asdict(each.train).values()
        assert None not in asdict(each.generate).values()
        assert None not in asdict(each.score).values()


def test_what_the_client_says_wins_over_the_family() -> None:
    plan = plans.resolve({"rounds": [{"kind": "character", "train": {"rank": 4, "alpha": None}}]}, CHIBI)
    assert plan.rounds[0].train.rank == 4
    assert plan.rounds[0].train.alpha is not None


@pytest.mark.parametrize(
    "rounds",
    [
        [{"kind": "style", "target": 16}],
        [{"kind": "character"}, {"kind": "style", "target": 16}],
        [{"kind": "style", "target": 16}, {"kind": "style", "target": 16}, {"kind": "character"}],
        [{"kind": "style"}, {"kind": "character"}],
    ],
    ids=["no character round", "character round not last", "targets that do not grow", "no target"],
)
def test_a_plan_that_makes_no_sense_is_refused(rounds: list[dict[str, Any]]) -> None:
    with pytest.raises(Invalid):
        plans.resolve({"rounds": rounds}, CHIBI)


def test_every_view_gets_its_share_and_every_picture_its_own_seed() -> None:
    drawn = pictures(count=13)
    assert max(Counter(each.view for each in drawn).values()) == 3
    assert Counter(each.view for each in drawn)["front"] == 3
    assert len({each.seed for each in drawn}) == 13


def test_what_a_view_can_not_show_is_not_asked_for() -> None:
    behind = next(each for each in pictures() if each.view == "behind")
    assert behind.prompt == "eiei21girl, 1girl, fox tail, from behind, full body, cel shading"
    front = next(each for each in pictures(framings={"portrait": 1}) if each.view == "front")
    assert "fox tail" not in front.prompt
    assert "red eyes" in front.prompt


def test_the_rarest_views_come_first_until_all_are_even() -> None:
    assert plans.quota(["front", "side", "behind"], Counter(front=4), 6) == {"side": 3, "behind": 3}
    assert plans.quota(["front", "side", "behind"], Counter(front=4), 11) == {"front": 1, "side": 5, "behind": 5}
    assert plans.quota(["front", "side"], Counter({None: 3}), 3) == {"front": 2, "side": 1}
    assert plans.quota(["front"], Counter(front=4), 0) == {}


def test_no_prompt_tags_is_not_the_same_as_saying_nothing() -> None:
    said = plans.resolve({"rounds": [{"kind": "character", "prompt_tags": []}]}, CHIBI)
    unsaid = plans.resolve(None, CHIBI)
    assert said.rounds[0].prompt_tags == []
    assert unsaid.rounds[0].prompt_tags == ["cel shading", "white background"]


def test_framings_are_spread_by_weight() -> None:
    assert Counter(plans.spread({"full_body": 3, "portrait": 1}, 8)) == {"full_body": 6, "portrait": 2}


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        ({"width": 100}, "size_not_offered", "sides are multiples of 8 pixels; a width of 100: use 96 or 104"),
        ({"height": 33}, "size_not_offered", "a height of 33: use 32 or 40"),
        ({"width": 2047}, "size_not_offered", "a width of 2047: use 2040 or 2048"),
        ({"width": 100, "height": 33}, "size_not_offered", "a width of 100: use 96 or 104; a height of 33: use 32"),
        ({"width": 2048, "height": 2048}, "size_too_large", "the largest of this shape is 512x512"),
        ({"width": 2048, "height": 1024}, "size_too_large", "the largest of this shape is 720x360"),
        ({"width": 512, "height": 512, "batch_size": 5}, "batch_too_large", "the largest batch of this size is 4"),
    ],
)  # fmt: skip
def test_a_drawing_that_is_too_large_is_refused_with_the_largest_that_is_not(given, code, words):
    with pytest.raises(Invalid, match=re.escape(words)) as refused:
        plans.generate_params(BASE_MODELS["chibi"], given)
    assert refused.value.code == code


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_refusal_names_is_accepted(family):
    base = BaseModel(name="x", family=family, path="", resolution=128 if family == "chibi" else 512)
    for width, height in ((2048, 2048), (2048, 1024), (32, 2048), (1000, 2048)):
        try:
            plans.generate_params(base, {"width": width, "height": height})
        except Invalid as error:
            width, height = map(int, error.message.rsplit(" ", 1)[1].split("x"))
            plans.generate_params(base, {"width": width, "height": height})


def test_a_batch_that_nobody_chose_fits_the_size():
    sizes = {128: 16, 256: 16, 512: 4}
    for side, batch in sizes.items():
        assert plans.generate_params(BASE_MODELS["chibi"], {"width": side, "height": side}).batch_size == batch


@pytest.mark.parametrize("family", FAMILIES)
def test_the_defaults_of_a_family_can_be_drawn(family):
    for resolution in (64, 100, 128, 512, 768, 1024):
        base = BaseModel(name="x", family=family, path="", resolution=resolution)
        params = plans.generate_params(base, None)
        assert params.batch_size == FAMILIES[family].generate["batch_size"]
        plans.generate_params(base, {"width": params.width, "height": params.height, "batch_size": params.batch_size})
