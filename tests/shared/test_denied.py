import pytest

from shared.denied import Denied
from shared.settings import Settings

DENIED = Denied(Settings.denied_words, Settings.denied_words_except)


@pytest.mark.parametrize(
    "written",
    [
        "nude",
        "Nudes",
        "she is nude.",
        "(NUDE:1.2)",
        "n\u200bude",
        "n\u00adu\u00add\u00ade",
        "n.u.d.e",
        "n u d e",
        "n_u_d_e",
        "nu-de",
        "nud\u0435",  # a Cyrillic letter
        "nud\u0435s",
        "\uff4e\uff55\uff44\uff45",
        "n\u0301ude",
        "\U0001d52b\U0001d532\U0001d521\U0001d522",  # mathematical letters
        "nud3",
        "l0l1",
        "1oli",
        "lolis",
        "s3x",
        "5ex",
        "child_porn",
        "child porn",
        "nude lipstick, nude",
    ],
)
def test_a_denied_word_is_found_however_it_is_written(written: str) -> None:
    assert DENIED.found([written])


@pytest.mark.parametrize(
    "written",
    [
        "nude lipstick",
        "naked eye",
        "unisex",
        "essex",
        "lolipop",
        "denude",
        "1girl",
        "1011",
        "100 101",
        "his exit",
        "child",
        "さくらsakura",
        "мир",
        "sextant",
    ],
)
def test_an_innocent_word_is_not(written: str) -> None:
    assert DENIED.found([written]) is None


@pytest.mark.parametrize("tags", [["child", "porn"], ["porn star", "a child"], ["1girl", "child", "fox ears", "porn"]])
def test_a_phrase_is_found_across_tags_for_captions_are_shuffled(tags: list[str]) -> None:
    assert DENIED.found(tags) == "child porn"


def test_an_installation_has_words_of_its_own() -> None:
    own = Denied(("kaiju", "мир"), ("kaiju egg",))
    assert own.found(["KAIJU"]) == "kaiju"
    assert own.found(["мира", "мир"]) == "мир"
    assert own.found(["kaiju egg, nude"]) is None
    assert Denied((), ()).found(["nude"]) is None


def test_a_long_text_is_read_at_once() -> None:
    assert DENIED.found(["n." * 5_000, "!|1l" * 2_500, "s " * 5_000]) is None
