"""Drawing pictures: prompts, noise, denoising, decoding."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor

from shared import catalog
from shared.params import GenerateParams, Picture
from workers.diffusion import adapter, lora_file, samplers
from workers.diffusion.families.base import Conditioning, Family

T = TypeVar("T")
OnStep = Callable[[int, int], None]  # (denoising steps done, of how many, over all batches); may raise to stop

TEXTS_AT_ONCE = 16  # in one call of the text encoder


@dataclass(frozen=True, kw_only=True)
class Settings:
    """GenerateParams with nothing left open."""

    width: int
    height: int
    inference_steps: int
    guidance_scale: float
    sampler: str
    negative_prompt: str
    clip_skip: int
    batch_size: int
    precision: str

    @property
    def guided(self) -> bool:
        """Whether the negative prompt plays a part at all."""
        return self.guidance_scale > 1


def generate(
    base: Family,
    pictures: Sequence[Picture],
    params: GenerateParams,
    *,
    loras: Sequence[tuple[Path, float]] = (),
    on_step: OnStep | None = None,
) -> Iterator[tuple[int, Image.Image]]:
    """Draw each picture from its own seed; yields its index and the image, batch by batch."""
    settings = settle(params, base)
    weights = [(lora_file.read(path, base), strength) for path, strength in loras]
    with torch.no_grad(), adapter.merged(base, weights):
        prompts = encode(base, pictures, settings)
    batches = batched(range(len(pictures)), settings.batch_size)
    counter = itertools.count(1)

    def tick() -> None:
        done = next(counter)
        if on_step:
            on_step(done, len(batches) * settings.inference_steps)

    for indices in batches:
        # The base is itself again at every yield: whoever asked for the pictures may use it, or never come back.
        with torch.no_grad(), adapter.merged(base, weights):
            images = draw(base, [pictures[i] for i in indices], prompts, settings, tick)
        yield from zip(indices, images, strict=True)


def settle(params: GenerateParams, base: Family) -> Settings:
    """With the family's defaults where the params say nothing."""
    chosen: dict[str, Any] = {"width": base.row.resolution, "height": base.row.resolution, "negative_prompt": ""}
    chosen |= catalog.FAMILIES[base.row.family].generate
    chosen |= {name: value for name, value in asdict(params).items() if value is not None}
    return Settings(**{field.name: chosen[field.name] for field in fields(Settings)})


def encode(base: Family, pictures: Sequence[Picture], settings: Settings) -> dict[str, Conditioning]:
    """What the denoiser is told for each text; each distinct one is encoded once."""
    prompts = [picture.prompt for picture in pictures]
    texts = dict.fromkeys([*prompts, settings.negative_prompt] if settings.guided else prompts)
    encoded: dict[str, Conditioning] = {}
    for some in batched(list(texts), TEXTS_AT_ONCE):
        with base.autocast(settings.precision):
            found = base.encode_prompts(some, settings.clip_skip)
        encoded |= {text: {name: rows[n] for name, rows in found.items()} for n, text in enumerate(some)}
    return encoded


def draw(
    base: Family,
    pictures: Sequence[Picture],
    prompts: Mapping[str, Conditioning],
    settings: Settings,
    tick: Callable[[], None],
) -> list[Image.Image]:
    """One batch, from noise to pictures."""
    texts = [picture.prompt for picture in pictures]
    if settings.guided:
        texts = [settings.negative_prompt] * len(pictures) + texts  # in diffusers' order
    conditioning = {name: torch.stack([prompts[text][name] for text in texts]) for name in prompts[texts[0]]}
    # Noise is drawn on the CPU, picture by picture: neither the card nor its batch changes a picture.
    generators = [torch.Generator("cpu").manual_seed(picture.seed) for picture in pictures]
    shape = base.latent_shape(settings.width, settings.height)
    noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators]).to(base.device)
    with base.autocast(settings.precision):
        return base.decode(denoise(base, noise, generators, conditioning, settings, tick))


def denoise(
    base: Family,
    noise: Tensor,
    generators: list[torch.Generator],
    conditioning: Conditioning,
    settings: Settings,
    tick: Callable[[], None],
) -> Tensor:
    """Latents (batch, channels, h/f, w/f) from noise, by classifier-free guidance."""
    scheduler = samplers.make(settings.sampler, base)
    scheduler.set_timesteps(settings.inference_steps, device=base.device)
    draws_noise = "generator" in inspect.signature(scheduler.step).parameters
    extra = {"generator": generators} if draws_noise else {}
    latents = noise * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        doubled = torch.cat([latents, latents]) if settings.guided else latents
        answer = base.predict(scheduler.scale_model_input(doubled, t), t, conditioning)
        if settings.guided:
            without, with_prompt = answer.chunk(2)
            answer = without + settings.guidance_scale * (with_prompt - without)
        latents = scheduler.step(answer, t, latents, **extra, return_dict=False)[0]
        tick()
    return latents


def batched(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """In order, `size` at a time."""
    return [items[start : start + size] for start in range(0, len(items), size)]
