"""Drawing pictures: prompts, noise, denoising, decoding."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor

from shared.catalog.defaults import generate_defaults
from shared.catalog.params import GenerateParams, WantedPicture
from workers.diffusion import originals
from workers.diffusion.conditioning import Conditioning, Placement
from workers.diffusion.families.base import Family
from workers.diffusion.lora import files
from workers.diffusion.lora.weights import merged
from workers.diffusion.originals import Kept, OpenPicture

T = TypeVar("T")
OnStep = Callable[[int, int], None]  # (denoising steps done, of how many, over all batches); may raise to stop

TEXTS_AT_ONCE = 16  # in one call of the text encoder


@dataclass(frozen=True, kw_only=True)
class ResolvedParams:
    """GenerateParams with every value set."""

    width: int
    height: int
    inference_steps: int
    guidance_scale: float
    sampler: str
    negative_prompt: str
    clip_skip: int
    prompt_syntax: str
    batch_size: int
    precision: str

    @property
    def guided(self) -> bool:
        """Whether the negative prompt has an effect (classifier-free guidance, arXiv 2207.12598)."""
        return self.guidance_scale > 1


@dataclass(frozen=True)
class Prompts:
    """The distinct texts of some pictures, encoded."""

    conditioning: Conditioning
    rows: dict[str, int]  # text -> its row

    def of(self, texts: Sequence[str]) -> Conditioning:
        """The rows of these texts, in their order."""
        return self.conditioning.take([self.rows[text] for text in texts])


@dataclass(frozen=True)
class DrawingBatch:
    """Pictures that are drawn at once."""

    indices: Sequence[int]
    size: tuple[int, int]  # width and height
    strength: float | None = None  # None: from noise alone

    def first_step(self, inference_steps: int) -> int:
        """The step that it begins with; at least the last one is taken."""
        if self.strength is None:
            return 0
        return inference_steps - max(1, round(inference_steps * self.strength))


def generate(
    base: Family,
    pictures: Sequence[WantedPicture],
    params: GenerateParams,
    *,
    loras: Sequence[tuple[Path, float]] = (),
    open_picture: OpenPicture | None = None,
    on_step: OnStep | None = None,
) -> Iterator[tuple[int, Image.Image]]:
    """Draw each picture from its own seed. Yields its index and the image, batch by batch.

    `open_picture` reads the pictures that others are drawn from.

    Raises:
        ValueError: a picture is to be drawn from another, and there is no `open_picture`.
    """
    resolved = resolve(params, base)
    if not pictures:
        return
    if open_picture is None and any(picture.original for picture in pictures):
        raise ValueError("a picture is to be drawn from another: give `open_picture`, which reads it")
    weights = [(files.read(path, base), strength) for path, strength in loras]
    with torch.no_grad(), merged(base, weights):
        prompts = encode(base, pictures, resolved)
    batches = alike(pictures, resolved)
    steps = sum(resolved.inference_steps - batch.first_step(resolved.inference_steps) for batch in batches)
    counter = itertools.count(1)

    def tick() -> None:
        done = next(counter)
        if on_step:
            on_step(done, steps)

    for batch in batches:
        # The LoRAs are merged only between yields, because the caller may use the base model, or not continue.
        with torch.no_grad(), merged(base, weights):
            images = draw(base, [pictures[i] for i in batch.indices], batch, prompts, resolved, tick, open_picture)
        yield from zip(batch.indices, images, strict=True)


def alike(pictures: Sequence[WantedPicture], params: ResolvedParams) -> list[DrawingBatch]:
    """Batches of pictures that have one size and take the same steps."""
    groups: dict[tuple[tuple[int, int], float | None], list[int]] = defaultdict(list)
    for index, picture in enumerate(pictures):
        original = picture.original
        if original is None:
            groups[(params.width, params.height), None].append(index)
        else:
            groups[(original.width, original.height), original.strength].append(index)
    return [
        DrawingBatch(indices, size, strength)
        for (size, strength), group in groups.items()
        for indices in batched(group, params.batch_size)
    ]


def resolve(params: GenerateParams, base: Family) -> ResolvedParams:
    """Fill in the family's defaults."""
    chosen: dict[str, Any] = {"width": base.row.resolution, "height": base.row.resolution}
    chosen |= {"negative_prompt": "", "clip_skip": 0}
    chosen |= generate_defaults(base.row)
    chosen |= {name: value for name, value in asdict(params).items() if value is not None}
    return ResolvedParams(**{field.name: chosen[field.name] for field in fields(ResolvedParams)})


def encode(base: Family, pictures: Sequence[WantedPicture], params: ResolvedParams) -> Prompts:
    """Encode the prompts and the negative prompt. Each distinct text is encoded once."""
    prompts = [picture.prompt for picture in pictures]
    texts = list(dict.fromkeys([*prompts, params.negative_prompt] if params.guided else prompts))
    parts = []
    for some in batched(texts, TEXTS_AT_ONCE):
        with base.autocast(params.precision):
            parts.append(base.encode_prompts(some, params.clip_skip, params.prompt_syntax))
    return Prompts(type(parts[0]).join(parts), {text: row for row, text in enumerate(texts)})


def draw(
    base: Family,
    pictures: Sequence[WantedPicture],
    batch: DrawingBatch,
    prompts: Prompts,
    params: ResolvedParams,
    tick: Callable[[], None],
    open_picture: OpenPicture | None = None,
) -> list[Image.Image]:
    """Draw one batch, from noise or from other pictures."""
    texts = [picture.prompt for picture in pictures]
    if params.guided:
        texts = [params.negative_prompt] * len(pictures) + texts  # in diffusers' order
    conditioning = base.place(prompts.of(texts), [Placement(batch.size, (0, 0), batch.size)] * len(texts))
    # The CPU draws the noise for each picture, so that neither the GPU nor the batch changes a picture.
    generators = [torch.Generator("cpu").manual_seed(picture.seed) for picture in pictures]
    shape = base.latent_shape(*batch.size)
    noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators]).to(base.device)
    canvases = [originals.read(each.original, open_picture) for each in pictures if each.original and open_picture]
    kept = originals.encode(base, canvases, batch.size) if canvases else None
    with base.autocast(params.precision):
        images = base.decode(denoise(base, noise, generators, conditioning, params, tick, batch, kept))
    return [canvas.finished(image) for canvas, image in zip(canvases, images, strict=True)] if canvases else images


def denoise(
    base: Family,
    noise: Tensor,
    generators: list[torch.Generator],
    conditioning: Conditioning,
    params: ResolvedParams,
    tick: Callable[[], None],
    batch: DrawingBatch,
    kept: Kept | None,
) -> Tensor:
    """Latents (batch, channels, ...) from noise. With guidance, the conditioning has twice the rows, negative first."""
    sampler = base.noise.sampler(params.sampler, params.inference_steps, base.device)
    latents = sampler.start(noise)
    first = batch.first_step(params.inference_steps)
    if kept is not None:
        sampler.begin(first)
        if batch.strength != 1:  # 1 draws all of it anew, so the first noise must hold nothing of the original
            latents = sampler.noised(kept.latents, noise, first)
    for step in range(first, len(sampler.times)):
        if kept is not None:
            latents = kept.restored(latents, sampler.noised(kept.latents, noise, step))
        doubled = torch.cat([latents, latents]) if params.guided else latents
        answer = base.predict(sampler.scale(doubled, step), sampler.times[step], conditioning)
        if params.guided:
            without, with_prompt = answer.chunk(2)
            answer = without + params.guidance_scale * (with_prompt - without)
        latents = sampler.step(answer, step, latents, generators)
        tick()
    return latents if kept is None else kept.restored(latents, kept.latents)


def batched(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """Split items into batches of `size`, in order."""
    return [items[start : start + size] for start in range(0, len(items), size)]
