import pytest

from shared.captions import captions, clean
from shared.errors import Invalid

FOX = {
    "trigger_word": "eiei21girl",
    "subject_tags": ["1girl", "solo"],
    "feature_tags": ["fox ears", "blonde hair", "red eyes"],
    "image_tags": ["fox ears", "blonde hair", "from behind", "full body", "white background"],
}


def test_a_style_caption_names_every_feature_that_shows() -> None:
    assert captions(policy="full", **FOX) == [
        "eiei21girl, 1girl, solo, fox ears, blonde hair, from behind, full body, white background"
    ]


def test_a_character_caption_leaves_her_features_to_the_trigger_word() -> None:
    assert captions(policy="prune", **FOX) == ["eiei21girl, 1girl, solo, from behind, full body, white background"]


def test_a_mixed_policy_adds_a_caption_without_the_trigger_that_names_everything() -> None:
    pruned, described = captions(policy="mixed", **FOX)
    assert pruned == captions(policy="prune", **FOX)[0]
    assert described == "1girl, solo, fox ears, blonde hair, from behind, full body, white background"


def test_a_feature_that_the_picture_does_not_show_is_never_named() -> None:
    assert "red eyes" not in captions(policy="full", **FOX)[0]


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(Invalid, match="unknown caption policy"):
        captions(policy="guess", **FOX)


def test_tags_are_cleaned_the_way_base_models_were_taught() -> None:
    assert clean([" Fox_Ears ", "fox  ears", "", "Blonde hair"]) == ["fox ears", "blonde hair"]
