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


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"fox \(animal\)", "fox (animal)"),
        ("fox (animal)", "fox (animal)"),
        ("(long hair:1.2)", "long hair"),
        (r"(fox \(animal\):1.1)", "fox (animal)"),
        ("((long_hair))", "long hair"),
        ("[long hair]", "long hair"),
        ("{{long hair}}", "long hair"),
        ("Long_Hair", "long hair"),
        ("^_^", "^_^"),
        ("o_o", "o_o"),
        (">_<", ">_<"),
        ("(o)_(o)", "(o)_(o)"),
        ("<|>_<|>", "<|>_<|>"),
        ("(^_^:1.2)", "^_^"),
        (":)", ":)"),
        (">:(", ">:("),
        ("re:zero", "re:zero"),
        ("cafe\u0301", "caf\u00e9"),
        ("()", ""),
    ],
)
def test_a_tag_is_the_same_however_tools_write_it(written: str, meant: str) -> None:
    assert clean([written]) == ([meant] if meant else [])
    assert clean(clean([written])) == clean([written])


@pytest.mark.parametrize("comma", [",", "\uff0c", "\u3001", "\uff64"])
def test_commas_of_all_scripts_part_tags(comma: str) -> None:
    assert clean([f"fox ears{comma} tail"]) == ["fox ears", "tail"]


def test_an_emphasis_over_several_tags_is_no_part_of_them() -> None:
    assert clean(["1girl, (long hair, fox ears:1.2), [tail, red_eyes]"]) == [
        "1girl", "long hair", "fox ears", "tail", "red eyes"
    ]  # fmt: skip


def test_many_brackets_cost_little_and_end() -> None:
    assert clean(["(" * 5_000 + "fox" + ")" * 5_000])
    assert clean(["(" * 10_000])


def test_features_are_found_in_captions_of_booru_tools() -> None:
    written = {
        "feature_tags": [r"fox \(animal\)", "long_hair"],
        "image_tags": ["(Long Hair:1.2)", "fox (animal)", "^_^"],
    }
    (pruned,) = captions(policy="prune", **FOX | written)
    assert pruned == "eiei21girl, 1girl, solo, ^_^"
