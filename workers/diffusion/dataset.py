"""Pictures and captions, encoded once. Latents and caption embeddings stay on the device."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from shared.catalog.params import TrainParams
from workers import pictures
from workers.diffusion.conditioning import Conditioning, Placement
from workers.diffusion.families.base import Family
from workers.diffusion.families.parts import Role

ENCODED_AT_ONCE = 8  # pictures or texts in one call of an encoder


@dataclass(frozen=True)
class Example:
    """A picture and the captions that it may be trained with."""

    image: Image.Image
    captions: list[str]
    weight: float = 1.0  # of its loss
    original: tuple[int, int] | None = None  # width and height before it was resized; None: those of the image


@dataclass(frozen=True)
class Batch:
    """The input of one forward pass."""

    latents: Tensor  # (batch, channels, ...)
    conditioning: Conditioning
    weights: Tensor  # (batch,)


@dataclass(frozen=True)
class Dataset:
    """Encoded examples."""

    buckets: list[list[int]]  # examples of one size; a batch comes from one bucket
    means: list[Tensor]  # of each example's latents
    stds: list[Tensor]
    placements: list[Placement]
    weights: Tensor
    texts: list[str]  # every caption variant; the first is the empty caption
    variants: list[list[int]]  # the texts of each example
    clip_skip: int
    conditioning: Conditioning | None = field(repr=False, default=None)  # of all texts; None: encoded at each step

    def __len__(self) -> int:
        return len(self.means)

    def batch(self, base: Family, indices: Sequence[int], caption_dropout: float, generator: torch.Generator) -> Batch:
        """The examples with fresh latents and one of their captions each."""
        rows = [self._draw_caption(i, caption_dropout, generator) for i in indices]
        mean, std = (torch.stack([each[i] for i in indices]) for each in (self.means, self.stds))
        # The base model learned from samples of the VAE's distribution, not from its means. A sample is cheap.
        latents = mean + std * torch.randn(mean.shape, generator=generator).to(mean.device)
        if self.conditioning is None:
            conditioning = base.encode_prompts([self.texts[row] for row in rows], self.clip_skip)
        else:
            conditioning = self.conditioning.take(rows)
        placed = base.place(conditioning, [self.placements[i] for i in indices])
        return Batch(latents, placed, self.weights[list(indices)])

    def _draw_caption(self, example: int, caption_dropout: float, generator: torch.Generator) -> int:
        dropped, pick = torch.rand(2, generator=generator).tolist()
        variants = self.variants[example]
        return 0 if dropped < caption_dropout else variants[int(pick * len(variants))]


def prepare(base: Family, examples: Sequence[Example], params: TrainParams, weight: float = 1.0) -> Dataset:
    """Encode examples. Captions are encoded too, unless a text encoder is trained."""
    if not examples:
        raise ValueError("the dataset is empty; add at least one picture")
    sizes = [nearest(base.sizes(params.resolution), example.image.size) for example in examples]
    means, stds = _encode_images(
        base, [pictures.fit(e.image, size) for e, size in zip(examples, sizes, strict=True)], sizes
    )
    texts = {"": 0}
    variants = []
    for number, example in enumerate(examples):
        rng = random.Random(f"{params.seed}:{number}")
        shuffled = [text for caption in example.captions for text in shuffle(caption, params.caption_variants, rng)]
        variants.append([texts.setdefault(text, len(texts)) for text in shuffled])
    texts_change = any(part.role is Role.TEXT_ENCODER for part in base.learning_parts(params))
    return Dataset(
        buckets=_group(sizes),
        means=means,
        stds=stds,
        placements=[
            Placement(e.original or e.image.size, (0, 0), size) for e, size in zip(examples, sizes, strict=True)
        ],
        weights=torch.tensor([example.weight * weight for example in examples], device=base.device),
        texts=list(texts),
        variants=variants,
        clip_skip=params.clip_skip,
        conditioning=None if texts_change else _encode_texts(base, list(texts), params.clip_skip),
    )


def plan(dataset: Dataset, batches: int, batch_size: int, seed: int) -> list[list[int]]:
    """The examples of each batch, computed in advance, so that a resumed training continues with the same ones.

    Each bucket deals its examples in shuffled rounds, so that all are used equally often.
    """
    rng = random.Random(seed)
    decks: list[list[int]] = [[] for _ in dataset.buckets]
    shares = [len(bucket) for bucket in dataset.buckets]

    def deal(bucket: int) -> int:
        if not decks[bucket]:
            decks[bucket] = rng.sample(dataset.buckets[bucket], k=shares[bucket])
        return decks[bucket].pop()

    chosen = rng.choices(range(len(decks)), weights=shares, k=batches)
    return [[deal(bucket) for _ in range(batch_size)] for bucket in chosen]


def shuffle(caption: str, variants: int, rng: random.Random) -> list[str]:
    """The caption, and its tags in other orders. The first tag, the trigger word, stays first."""
    first, *rest = (tag.strip() for tag in caption.split(","))
    orders = [rest] + [rng.sample(rest, k=len(rest)) for _ in range(variants - 1)]
    return list(dict.fromkeys(", ".join([first, *order]) for order in orders))


def nearest(sizes: Sequence[tuple[int, int]], size: tuple[int, int]) -> tuple[int, int]:
    """The size with the aspect ratio closest to the picture's."""
    aspect = np.log(size[0] / size[1])
    return min(sizes, key=lambda each: abs(np.log(each[0] / each[1]) - aspect))


def _group(sizes: Sequence[tuple[int, int]]) -> list[list[int]]:
    groups = defaultdict(list)
    for index, size in enumerate(sizes):
        groups[size].append(index)
    return list(groups.values())


def _encode_images(
    base: Family, images: Sequence[Image.Image], sizes: Sequence[tuple[int, int]]
) -> tuple[list[Tensor], list[Tensor]]:
    means: dict[int, Tensor] = {}
    stds: dict[int, Tensor] = {}
    for bucket in _group(sizes):
        for start in range(0, len(bucket), ENCODED_AT_ONCE):
            indices = bucket[start : start + ENCODED_AT_ONCE]
            mean, std = base.encode_images([images[i] for i in indices])
            means |= dict(zip(indices, mean, strict=True))
            stds |= dict(zip(indices, std, strict=True))
    return [means[i] for i in range(len(images))], [stds[i] for i in range(len(images))]


@torch.no_grad()
def _encode_texts(base: Family, texts: Sequence[str], clip_skip: int) -> Conditioning:
    parts = [
        base.encode_prompts(texts[start : start + ENCODED_AT_ONCE], clip_skip)
        for start in range(0, len(texts), ENCODED_AT_ONCE)
    ]
    return type(parts[0]).join(parts)
