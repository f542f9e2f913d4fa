"""How CLIP reads texts: its tokenizer, texts of any length in chunks, and attention weights.

Both are done as in AUTOMATIC1111's web UI, with one difference. Weights change the mean of the states. The web UI then
restores the mean over all texts of a batch. We restore that of each chunk, so that a text has the same states in every
batch.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import CLIPTokenizer

from shared import prompts
from shared.prompts import Piece

VOCABULARY = Path(__file__).resolve().parents[3] / "models/clip/bpe_simple_vocab_16e6.txt.gz"
SIZE = 49_408  # tokens: 256 bytes, inside a word and at its end, what the merges make, and two marks
LENGTH = 77  # tokens that a text encoder reads at once
MARKS = ("<|startoftext|>", "<|endoftext|>")
BACKTRACK = 20  # tokens: a chunk ends at its last comma, if that is so near to its end
CHUNKS_AT_ONCE = 16  # in one call of a text encoder
LEAST_MEAN = 1e-4  # beside the standard deviation: a smaller mean is rounding, and is not restored


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
    """A printable letter for each byte, in the vocabulary's order: first the bytes that are printable in Latin-1."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    unseen = [byte for byte in range(256) if byte not in seen]
    return {byte: chr(byte) for byte in seen} | {byte: chr(256 + n) for n, byte in enumerate(unseen)}


# chunks


@dataclass
class Chunk:
    """What the text encoder reads at once: tokens without the two marks, and the weight of each."""

    ids: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)


def chunks(tokenizer: CLIPTokenizer, text: str, syntax: str = "plain") -> list[Chunk]:
    """A text in as many chunks as it needs, one at least. `syntax` is a name of PROMPT_SYNTAXES."""
    size = tokenizer.model_max_length - 2
    comma = tokenizer.convert_tokens_to_ids(",</w>")
    found = [Chunk()]
    for piece in prompts.parse(text) if syntax == "weighted" else [Piece(text)]:
        if piece.breaks and found[-1].ids:
            found.append(Chunk())
        for number in tokenizer(piece.text, add_special_tokens=False, verbose=False).input_ids:
            if len(found[-1].ids) == size:
                found.append(Chunk() if number == comma else _rest_after_comma(found[-1], comma))
            found[-1].ids.append(number)
            found[-1].weights.append(piece.weight)
    return found


def _rest_after_comma(chunk: Chunk, comma: int) -> Chunk:
    """Move what follows the last comma of a full chunk to the next one, so that no tag is torn apart."""
    tail = chunk.ids[-BACKTRACK:]
    end = len(chunk.ids) - (tail[::-1].index(comma) if comma in tail else 0)
    rest = Chunk(chunk.ids[end:], chunk.weights[end:])
    del chunk.ids[end:], chunk.weights[end:]
    return rest


# states

# Token ids (chunks, length) -> states (chunks, length, channels), and the text as a whole (chunks, channels) or None
Encoder = Callable[[Tensor], tuple[Tensor, Tensor | None]]


def encode(
    encoder: Encoder, tokenizer: CLIPTokenizer, texts: Sequence[list[Chunk]], device: torch.device
) -> tuple[list[Tensor], list[Tensor]]:
    """The states of each text, (tokens, channels), and the whole of its first chunk, (channels,), if there is one."""
    flat = [chunk for text in texts for chunk in text]
    ids = torch.tensor([_marked(chunk, tokenizer) for chunk in flat], device=device)
    answers = [encoder(some) for some in ids.split(CHUNKS_AT_ONCE)]
    states = torch.cat([states for states, _ in answers])
    if any(weight != 1 for chunk in flat for weight in chunk.weights):
        length = tokenizer.model_max_length
        weights = [[1.0, *chunk.weights, *[1.0] * (length - 1 - len(chunk.weights))] for chunk in flat]
        states = weigh(states, torch.tensor(weights, device=device))
    sizes = [len(text) for text in texts]
    wholes = [whole for _, whole in answers if whole is not None]
    firsts = [whole[0] for whole in torch.cat(wholes).split(sizes)] if wholes else []
    return [part.flatten(0, 1) for part in states.split(sizes)], firsts


def weigh(states: Tensor, weights: Tensor) -> Tensor:
    """States (chunks, length, channels) times the weight of each token, with the mean of each chunk as it was."""
    weighed = states * weights[:, :, None].to(states.dtype)
    dims = (1, 2)
    before, after = (each.float().mean(dims, keepdim=True) for each in (states, weighed))
    spread = states.float().std(dims, keepdim=True)
    restores = (before * after > 0) & (torch.minimum(before.abs(), after.abs()) > LEAST_MEAN * spread)
    return weighed * torch.where(restores, before / after, torch.ones_like(before)).to(states.dtype)


def stack(states: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Texts (tokens, channels) as one tensor (batch, tokens, channels), and which of its places are real.

    The second is None where all texts are equally long: then every place is.
    """
    lengths = [len(text) for text in states]
    if len(set(lengths)) == 1:
        return torch.stack(list(states)), None
    padded = pad_sequence(list(states), batch_first=True)
    places = torch.arange(padded.shape[1], device=padded.device)
    return padded, places < torch.tensor(lengths, device=padded.device)[:, None]


def _marked(chunk: Chunk, tokenizer: Any) -> list[int]:
    """A chunk's ids between the two marks, filled up to the length of the text encoder."""
    ids = [tokenizer.bos_token_id, *chunk.ids, tokenizer.eos_token_id]
    return ids + [tokenizer.pad_token_id] * (tokenizer.model_max_length - len(ids))
