"""The parameters that suit a base model, by its family, its lineage and what it predicts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shared import captions, plans
from shared.catalog import FAMILIES, QUALITY_TAGS, BaseModel
from shared.catalog.params import RoundPlan

PLAIN = BaseModel(name="base", family="sdxl", path="", resolution=1024)


def rounds(base: BaseModel) -> list[RoundPlan]:
    return plans.resolve(None, base).rounds


@pytest.mark.parametrize(
    ("name", "first", "negative"),
    [
        ("animagine-xl-4.0-opt", "masterpiece", "low score"),
        ("waiIllustriousSDXL_v140", "masterpiece", "early"),
        ("noobaiXLNAIXL_vPred10Version", "masterpiece", "old"),
        ("ponyDiffusionV6XL_v6StartWithThisOne", "score_9", "score_4"),
    ],
)
def test_a_name_tells_the_lineage(name: str, first: str, negative: str) -> None:
    for each in rounds(replace(PLAIN, name=name)):
        assert each.prompt_tags[1] == first
        assert negative in str(each.generate.negative_prompt)


def test_a_row_s_lineage_goes_before_its_name() -> None:
    (first, *_) = rounds(replace(PLAIN, name="pony-merge", lineage="illustrious"))
    assert "newest" in first.prompt_tags
    assert "score_9" not in first.prompt_tags


def test_a_name_that_tells_nothing_gets_what_the_family_has() -> None:
    assert rounds(PLAIN)[0].prompt_tags == ["white background", "masterpiece", "best quality"]


def test_pony_s_tags_reach_the_prompt_as_it_was_taught_them() -> None:
    pony = rounds(replace(PLAIN, name="pony"))[0]
    (picture,) = plans.pictures(
        trigger_word="eiei21girl", subject_tags=["1girl"], feature_tags=[], views=["front"], framings={"portrait": 1},
        prompt_tags=pony.prompt_tags, count=1, seed=0, name_features=True,
    )  # fmt: skip
    assert "score_9, score_8_up, score_7_up, source_anime, rating_safe" in picture.prompt


@pytest.mark.parametrize("family", ["sd15", "sd2", "sdxl"])
def test_v_is_trained_at_a_lower_rate_without_what_is_made_for_epsilon(family: str) -> None:
    epsilon, v = (replace(PLAIN, family=family, prediction_type=kind) for kind in ("epsilon", "v_prediction"))
    for of_epsilon, of_v in zip(rounds(epsilon), rounds(v), strict=True):
        assert of_v.train.learning_rate <= of_epsilon.train.learning_rate / 2
        assert (of_v.train.min_snr_gamma, of_v.train.noise_offset) == (0.0, 0.0)
        assert of_epsilon.train.min_snr_gamma > 0


def test_quality_tags_never_go_into_captions() -> None:
    tags = {
        tag for row in FAMILIES.values() for lineage in (row, *row.lineages.values()) for tag in lineage.quality_tags
    }
    assert {"masterpiece", "score_9", "high score", "newest"} <= tags == QUALITY_TAGS
    prompt = captions.join(["eiei21girl", "1girl", "from side", "white background", *sorted(tags)])
    assert captions.without_quality(prompt) == "eiei21girl, 1girl, from side, white background"


def test_every_quality_tag_is_clean() -> None:
    assert captions.clean(sorted(QUALITY_TAGS)) == sorted(QUALITY_TAGS)
