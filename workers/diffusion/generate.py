"""Drawing pictures: prompts, noise, denoising, decoding."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from shared import catalog
from shared.params import GenerateParams, Picture
from workers.diffusion import adapter, lora_file, samplers
from workers.diffusion.adapter import LoraWeights
from workers.diffusion.families.base import Conditioning, Family

OnStep = Callable[[int, int], None]  # (denoising steps done, of how many, over all batches); may raise to stop


def generate(
    base: Family,
    pictures: Sequence[Picture],
    params: GenerateParams,
    *,
    loras: Sequence[tuple[Path, float]] = (),
    on_step: OnStep | None = None,
) -> Iterator[tuple[int, Image.Image]]:
    """Draw each picture from its own seed; yields its index and the image, batch by batch."""
    params = filled(params, base)
    weights = [(lora_file.read(path, base), strength) for path, strength in loras]
    prompts = encode(base, pictures, params, weights)
    steps = Progress(len(pictures), params, on_step)
    for start in range(0, len(pictures), params.batch_size):
        indices = range(start, min(start + params.batch_size, len(pictures)))
        # The base is itself again at every yield: whoever asked for the pictures may use it, or never come back.
        with torch.no_grad(), adapter.merged(base, weights):
            images = draw(base, [pictures[i].seed for i in indices], prompts.rows(indices), params, steps)
        yield from zip(indices, images, strict=True)


def filled(params: GenerateParams, base: Family) -> GenerateParams:
    """With the family's defaults where the params say nothing."""
    defaults = {"width": base.row.resolution, "height": base.row.resolution, "negative_prompt": ""}
    defaults |= catalog.FAMILIES[base.row.family].generate
    return replace(params, **{name: value for name, value in defaults.items() if getattr(params, name) is None})


class Prompts:
    """The conditioning of each picture, and of what it should not be; each distinct text is encoded once."""

    def __init__(self, table: Conditioning, texts: list[str], prompts: list[str], negative: str | None):
        self.table, self.negative = table, texts.index(negative) if negative is not None else None
        row = {text: number for number, text in enumerate(texts)}
        self.positive = [row[prompt] for prompt in prompts]

    def rows(self, indices: Sequence[int]) -> Conditioning:
        """For these pictures; with guidance the negative prompts come first, as diffusers has it."""
        rows = [self.positive[i] for i in indices]
        if self.negative is not None:
            rows = [self.negative] * len(rows) + rows
        return {name: tensor[rows] for name, tensor in self.table.items()}


def encode(
    base: Family, pictures: Sequence[Picture], params: GenerateParams, weights: Sequence[tuple[LoraWeights, float]]
) -> Prompts:
    prompts = [picture.prompt for picture in pictures]
    negative = params.negative_prompt if guided(params) else None
    texts = list(dict.fromkeys(prompts if negative is None else [*prompts, negative]))
    with torch.no_grad(), adapter.merged(base, weights), base.autocast(params.precision):
        parts = [base.encode_prompts(texts[start : start + 16], params.clip_skip) for start in range(0, len(texts), 16)]
    return Prompts(
        {name: torch.cat([p[name] for p in parts]) for name in parts[0]} if parts else {}, texts, prompts, negative
    )


def draw(
    base: Family, seeds: Sequence[int], conditioning: Conditioning, params: GenerateParams, steps: Progress
) -> list[Image.Image]:
    """One batch, from noise to pictures."""
    shape = base.latent_shape(params.width, params.height)
    # Noise is drawn on the CPU, picture by picture: neither the card nor its batch changes a picture.
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
    with base.autocast(params.precision):
        latents = denoise(base, noise.to(base.device), generators, conditioning, params, steps)
        return base.decode(latents)


def denoise(
    base: Family,
    noise: Tensor,
    generators: list[torch.Generator],
    conditioning: Conditioning,
    params: GenerateParams,
    steps: Progress,
) -> Tensor:
    """Latents (batch, channels, h/f, w/f) from noise, by classifier-free guidance."""
    scheduler = samplers.make(params.sampler, base)
    scheduler.set_timesteps(params.inference_steps, device=base.device)
    takes_generator = "generator" in inspect.signature(scheduler.step).parameters
    extra = {"generator": generators} if takes_generator else {}
    latents = noise * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        doubled = torch.cat([latents, latents]) if guided(params) else latents
        answer = base.predict(scheduler.scale_model_input(doubled, t), t, conditioning)
        if guided(params):
            without, with_prompt = answer.chunk(2)
            answer = without + params.guidance_scale * (with_prompt - without)
        latents = scheduler.step(answer, t, latents, **extra, return_dict=False)[0]
        steps.done()
    return latents


def guided(params: GenerateParams) -> bool:
    """Whether the negative prompt plays a part at all."""
    return params.guidance_scale > 1


class Progress:
    """Counts denoising steps over all batches."""

    def __init__(self, pictures: int, params: GenerateParams, on_step: OnStep | None):
        self.count, self.total = 0, -(-pictures // params.batch_size) * params.inference_steps
        self.on_step = on_step

    def done(self) -> None:
        self.count += 1
        if self.on_step:
            self.on_step(self.count, self.total)
