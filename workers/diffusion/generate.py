"""Drawing pictures: prompts, noise, denoising, decoding."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor

from shared.catalog.defaults import generate_defaults
from shared.catalog.params import GenerateParams, WantedPicture
from workers.diffusion.conditioning import Conditioning, Placement
from workers.diffusion.families.base import Family
from workers.diffusion.lora import files
from workers.diffusion.lora.weights import merged

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


def generate(
    base: Family,
    pictures: Sequence[WantedPicture],
    params: GenerateParams,
    *,
    loras: Sequence[tuple[Path, float]] = (),
    on_step: OnStep | None = None,
) -> Iterator[tuple[int, Image.Image]]:
    """Draw each picture from its own seed. Yields its index and the image, batch by batch."""
    resolved = resolve(params, base)
    if not pictures:
        return
    weights = [(files.read(path, base), strength) for path, strength in loras]
    with torch.no_grad(), merged(base, weights):
        prompts = encode(base, pictures, resolved)
    batches = batched(range(len(pictures)), resolved.batch_size)
    counter = itertools.count(1)

    def tick() -> None:
        done = next(counter)
        if on_step:
            on_step(done, len(batches) * resolved.inference_steps)

    for indices in batches:
        # The LoRAs are merged only between yields, because the caller may use the base model, or not continue.
        with torch.no_grad(), merged(base, weights):
            images = draw(base, [pictures[i] for i in indices], prompts, resolved, tick)
        yield from zip(indices, images, strict=True)


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
    prompts: Prompts,
    params: ResolvedParams,
    tick: Callable[[], None],
) -> list[Image.Image]:
    """Draw one batch."""
    texts = [picture.prompt for picture in pictures]
    if params.guided:
        texts = [params.negative_prompt] * len(pictures) + texts  # in diffusers' order
    size = (params.width, params.height)
    conditioning = base.place(prompts.of(texts), [Placement(size, (0, 0), size)] * len(texts))
    # The CPU draws the noise for each picture, so that neither the GPU nor the batch changes a picture.
    generators = [torch.Generator("cpu").manual_seed(picture.seed) for picture in pictures]
    shape = base.latent_shape(*size)
    noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators]).to(base.device)
    with base.autocast(params.precision):
        return base.decode(denoise(base, noise, generators, conditioning, params, tick))


def denoise(
    base: Family,
    noise: Tensor,
    generators: list[torch.Generator],
    conditioning: Conditioning,
    params: ResolvedParams,
    tick: Callable[[], None],
) -> Tensor:
    """Latents (batch, channels, ...) from noise. With guidance, the conditioning has twice the rows, negative first."""
    sampler = base.noise.sampler(params.sampler, params.inference_steps, base.device)
    latents = sampler.start(noise)
    for step, t in enumerate(sampler.times):
        doubled = torch.cat([latents, latents]) if params.guided else latents
        answer = base.predict(sampler.scale(doubled, step), t, conditioning)
        if params.guided:
            without, with_prompt = answer.chunk(2)
            answer = without + params.guidance_scale * (with_prompt - without)
        latents = sampler.step(answer, step, latents, generators)
        tick()
    return latents


def batched(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """Split items into batches of `size`, in order."""
    return [items[start : start + size] for start in range(0, len(items), size)]
