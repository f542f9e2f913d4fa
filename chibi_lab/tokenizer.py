"""A CLIP tokenizer made by hand: each word of the world is one token, all else falls to letters and bytes."""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

from transformers import CLIPTokenizer

from .world import all_tags

MAX_LENGTH = 77
END_OF_WORD = "</w>"
EXTRA_WORDS = "a the of with and no in on simple background style standing solo girl boy person character"
SPECIAL = ("<|startoftext|>", "<|endoftext|>")
Word = tuple[str, ...]


def byte_alphabet() -> list[str]:
    """The 256 printable characters by which byte-level BPE spells bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(others))]


def words_of_the_world() -> list[str]:
    """The tokenizer's own pattern splits at hyphens and digits, so only runs of letters can be words."""
    text = " ".join([*all_tags(), EXTRA_WORDS]).replace("-", " ")
    return sorted({"".join(c for c in w if c.isalpha()) for w in text.split()} - {""})


def merge(word: Word, pair: tuple[str, str]) -> Word:
    merged: list[str] = []
    for piece in word:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return tuple(merged)


def learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """Byte pair encoding until every word is one piece."""
    spelled = {w: (*w[:-1], w[-1] + END_OF_WORD) for w in words}
    merges: list[tuple[str, str]] = []
    while True:
        counts = Counter(pair for s in spelled.values() for pair in pairwise(s))
        if not counts:
            return merges
        best = max(counts, key=lambda pair: (counts[pair], pair))
        merges.append(best)
        spelled = {w: merge(s, best) for w, s in spelled.items()}


def make_tokenizer(folder: Path) -> CLIPTokenizer:
    folder.mkdir(parents=True, exist_ok=True)
    alphabet, merges = byte_alphabet(), learn_merges(words_of_the_world())
    pieces = [*alphabet, *(a + END_OF_WORD for a in alphabet), *(a + b for a, b in merges), *SPECIAL]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(m) for m in merges) + "\n")
    start, end = SPECIAL
    settings = {
        "tokenizer_class": "CLIPTokenizer", "model_max_length": MAX_LENGTH,
        "bos_token": start, "eos_token": end, "unk_token": end, "pad_token": end,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))
    CLIPTokenizer.from_pretrained(folder).save_pretrained(folder)
    return CLIPTokenizer.from_pretrained(folder)


class TagEncoder:
    """Token ids of tag lists, with each tag looked up once: the tokenizer itself is too slow for a training loop."""

    def __init__(self, tokenizer: CLIPTokenizer):
        self.tokenizer = tokenizer
        self.known: dict[str, list[int]] = {}
        self.comma = self.ids_of(",")
        # asked of the tokenizer each time, these three cost more than all the rest
        self.start, self.end, self.pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id

    def ids_of(self, tag: str) -> list[int]:
        if tag not in self.known:
            ids = self.tokenizer(tag, add_special_tokens=False).input_ids
            if len(self.known) > 2000:  # invented names would fill it up
                return ids
            self.known[tag] = ids
        return self.known[tag]

    def __call__(self, tags: list[str]) -> list[int]:
        return self.with_ends(tags)[0]

    def with_ends(self, tags: list[str]) -> tuple[list[int], list[int]]:
        """The token ids, and where the last token of each tag stands, as far as the ids reach."""
        ids, ends = [self.start], []
        for i, tag in enumerate(tags):
            ids += (self.comma if i else []) + self.ids_of(tag)
            ends.append(len(ids) - 1)
        ids = [*ids[: MAX_LENGTH - 1], self.end]
        padding = [self.pad] * (MAX_LENGTH - len(ids))
        return ids + padding, [end for end in ends if end < MAX_LENGTH - 1]
