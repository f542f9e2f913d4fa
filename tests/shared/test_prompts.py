"""Weighted prompts, as A1111's web UI reads them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared import prompts
from shared.prompts import BadPrompt, Piece, parse

# Cases of our own; those marked with * are in the documentation of A1111's parser.
GOLDEN = {
    "normal text": [("normal text", 1.0)],  # *
    "(long hair:1.2)": [("long hair", 1.2)],
    "an (important) word": [("an ", 1.0), ("important", 1.1), (" word", 1.0)],  # *
    "((x))": [("x", 1.21)],
    "(((x)))": [("x", 1.331)],
    "[x]": [("x", 1 / 1.1)],
    "[[x]]": [("x", 1 / 1.21)],
    "([x])": [("x", 1.0)],
    "(unbalanced": [("unbalanced", 1.1)],  # *
    "((x)y": [("x", 1.21), ("y", 1.1)],
    "unopened) x": [("unopened) x", 1.0)],
    "x] y": [("x] y", 1.0)],
    r"fox \(animal\)": [("fox (animal)", 1.0)],
    r"(fox \(animal\):1.3)": [("fox (animal)", 1.3)],
    r"\[x\]": [("[x]", 1.0)],
    r"a \\ b": [("a \\ b", 1.0)],
    r"a \b": [(r"a \b", 1.0)],
    "(a:1.5) (b: 0.5 )": [("a", 1.5), (" ", 1.0), ("b", 0.5)],
    "(a, (b:2), c:1.5)": [("a, ", 1.5), ("b", 3.0), (", c", 1.5)],
    "(a:+.5)": [("a", 0.5)],
    "(a:0)": [("a", 0.0)],
    "re:zero": [("re:zero", 1.0)],
    "(re:zero)": [("re:zero", 1.1)],
    "a:1.2)": [("a:1.2)", 1.0)],
    "[a:1.2]": [("a:1.2", 1 / 1.1)],
    "[a:1.2)": [("a:1.2)", 1 / 1.1)],
    "(a:1.2.3)": [("a:1.2.3", 1.1)],
    "(a [b) c]": [("a ", 1.1), ("b", 1.0), (" c", 1 / 1.1)],
    "()": [],
    "": [],
    ":)": [(":)", 1.0)],
    "a (b) (c) d": [("a ", 1.0), ("b", 1.1), (" ", 1.0), ("c", 1.1), (" d", 1.0)],
    "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).": [
        ("a ", 1.0), ("house", 1.573), (" ", 1.1), ("on", 1.0), (" a ", 1.1), ("hill", 0.55), (", sun, ", 1.1),
        ("sky", 1.4641), (".", 1.1),
    ],  # *
}  # fmt: skip


@pytest.mark.parametrize("prompt", GOLDEN)
def test_weights(prompt: str) -> None:
    pieces = parse(prompt)
    assert [piece.text for piece in pieces] == [text for text, _ in GOLDEN[prompt]]
    assert [piece.weight for piece in pieces] == pytest.approx([weight for _, weight in GOLDEN[prompt]])
    assert not any(piece.breaks for piece in pieces)


@pytest.mark.parametrize(
    ("prompt", "pieces"),
    [
        ("a BREAK b", [Piece("a"), Piece("b", breaks=True)]),
        ("a, BREAK, b", [Piece("a,"), Piece(", b", breaks=True)]),
        ("(a BREAK b:1.5) c", [Piece("a", 1.5), Piece("b", 1.5, breaks=True), Piece(" c")]),
        ("a (b) BREAK (c)", [Piece("a "), Piece("b", 1.1), Piece("c", 1.1, breaks=True)]),
        ("a BREAK BREAK b", [Piece("a"), Piece("b", breaks=True)]),
        ("BREAK a BREAK", [Piece("a", breaks=True)]),
        ("BREAKFAST, break", [Piece("BREAKFAST, break")]),
    ],
)
def test_break_begins_a_chunk(prompt: str, pieces: list[Piece]) -> None:
    assert parse(prompt) == pieces


@pytest.mark.parametrize(
    ("prompt", "why"),
    [
        ("(" * 17 + "x", "more than 16 brackets are open at once"),
        ("([" * 9, "more than 16 brackets"),
        ("(x:11)", "the weight 11 is not between 0 and 10"),
        ("(x:-1)", "the weight -1 is not between"),
        (f"(x:{'9' * 400})", "the weight 99999999999999999999 is not between"),
        ("x" * 10_001, "longer than 10000 letters"),
    ],
)
def test_what_can_t_be_read_says_why(prompt: str, why: str) -> None:
    with pytest.raises(BadPrompt, match=why):
        parse(prompt)


@settings(max_examples=300, deadline=None)
@given(text=st.text(alphabet="ab, ()[]\\:1.BREAK<>é\n", max_size=60).filter(lambda text: "BREAK" not in text))
def test_what_is_escaped_is_read_as_it_stands(text: str) -> None:
    assert "".join(piece.text for piece in parse(prompts.escape(text))) == text
    assert all(piece.weight == 1.0 for piece in parse(prompts.escape(text)))


@settings(max_examples=300, deadline=None)
@given(text=st.text(alphabet="ab ()[]\\:1.5BREAK", max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        pieces = parse(text)
    except BadPrompt:
        return
    assert all(piece.text for piece in pieces)
    assert all(0 <= piece.weight <= prompts.MAX_WEIGHT**prompts.MAX_DEPTH for piece in pieces)


def test_the_words_without_their_weights() -> None:
    assert prompts.unweighted(r"(long hair:1.2), fox \(animal\) BREAK [tail]") == "long hair, fox (animal), tail"


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ("1girl, <lora:her:0.8>, solo", "<lora:her:0.8>"),
        ("<LYCO:a>", "<LYCO:a>"),
        ("<lora:never closed", "<lora:never closed"),
        ("a < b, >_<, <3, lora: none", None),
    ],
)
def test_a_lora_in_a_prompt_is_seen(prompt: str, named: str | None) -> None:
    assert prompts.named_network(prompt) == named
