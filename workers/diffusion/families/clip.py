"""CLIP's tokenizer, built from the vocabulary that ships with the project."""

from __future__ import annotations

import gzip
from functools import cache
from pathlib import Path

from transformers import CLIPTokenizer

VOCABULARY = Path(__file__).resolve().parents[3] / "models/clip/bpe_simple_vocab_16e6.txt.gz"
SIZE = 49_408  # tokens: 256 bytes, inside a word and at its end, what the merges make, and two marks
LENGTH = 77  # tokens that a text encoder reads at once
MARKS = ("<|startoftext|>", "<|endoftext|>")


def tokenizer(pad: str = MARKS[1]) -> CLIPTokenizer:
    """The tokenizer of every Stable Diffusion model. OpenCLIP's text encoders were trained with `!` as padding."""
    vocabulary, merges = _vocabulary()
    return CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token=pad, model_max_length=LENGTH)


@cache
def _vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Tokens with their ids, and the merges in their order (arXiv 1508.07909, over bytes)."""
    letters = list(_letters_of_bytes().values())
    count = SIZE - 2 * len(letters) - len(MARKS)
    lines = gzip.decompress(VOCABULARY.read_bytes()).decode().split("\n")
    merges = [(left, right) for left, right in (line.split() for line in lines[1 : 1 + count])]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges), *MARKS]
    return {token: number for number, token in enumerate(tokens)}, merges


def _letters_of_bytes() -> dict[int, str]:
    """A letter that can be seen for each byte, in the vocabulary's order: those that have one, then the others."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    unseen = [byte for byte in range(256) if byte not in seen]
    return {byte: chr(byte) for byte in seen} | {byte: chr(256 + n) for n, byte in enumerate(unseen)}
