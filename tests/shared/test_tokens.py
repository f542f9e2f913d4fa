"""The least number of tokens of a prompt, computed without a tokenizer."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from shared.catalog import base_models
from shared.catalog.tokens import CLIP, least_clip_tokens


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(base_models()["chibi"].path, subfolder="tokenizer")


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=60).filter(lambda text: "<|" not in text))
@example(text="girl's, e\u0301tude, ___, 1girl, ½, 3rd, ears!?")
@pytest.mark.slow
def test_no_text_is_called_longer_than_it_is(tokenizer: CLIPTokenizer, text: str) -> None:
    assert least_clip_tokens(text) <= len(tokenizer(text, add_special_tokens=False).input_ids)


def test_words_that_the_base_model_knows_are_a_token_each(tokenizer: CLIPTokenizer) -> None:
    text = "1girl, solo, fox ears, blonde hair, three-quarter view, full body, cel shading"
    assert least_clip_tokens(text) == len(tokenizer(text, add_special_tokens=False).input_ids)


def test_a_limit_is_what_the_tokenizer_reads_at_once(tokenizer: CLIPTokenizer) -> None:
    assert CLIP.max_tokens == tokenizer.model_max_length - 2
