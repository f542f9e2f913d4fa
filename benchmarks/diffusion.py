"""Compares our training and drawing with bare torch loops. Each run measures both sides alternately.

`python -m benchmarks.diffusion [figure ...]` prints one JSON line for each figure.
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.figure import figure
from benchmarks.memory import peak_bytes
from shared import catalog
from shared.catalog.params import GenerateParams, TrainParams, WantedPicture
from workers.diffusion import families
from workers.diffusion.dataset import Example, prepare
from workers.diffusion.families.base import Family
from workers.diffusion.generate import generate
from workers.diffusion.lora import adapter
from workers.diffusion.train import train_lora

PAIRS = 7
STEPS = 4  # of training, in one measurement
MEMORY_STEPS = 4
BATCH = 8
DRAWN, DRAWN_STEPS, GUIDANCE, SAMPLER = 16, 20, 3.0, "dpmpp_2m"
CAPTION = "eiei21girl, 1girl, solo, looking at viewer, full body, white background"


def train_step_vs_floor() -> dict[str, Any]:
    """Step time of `train_lora` / step time of a bare loop on a second copy of the same model."""
    base: Any = load()
    params = train_params(train_steps=STEPS * (PAIRS + 1))
    floor = bare_training(type(base)(base.row, base.device), params)
    ours: list[float] = []
    bare: list[float] = []
    started = 0.0

    def on_step(step: int, loss: float) -> None:
        nonlocal started
        if step % STEPS == 0:
            ours.append(time.perf_counter() - started)
            bare.append(seconds(lambda: [next(floor) for _ in range(STEPS)]))
            started = time.perf_counter()

    train_lora(base, examples(), params, on_step=on_step)
    ratios = [a / b for a, b in zip(ours[1:], bare[1:], strict=True)]  # the first pair warms up
    speed = STEPS / statistics.median(ours[1:])
    return line("train_step_vs_floor", ratios, 1.05, f"batch {BATCH}, LoRA on all modules; {speed:.2f} steps/s")


def train_memory_vs_floor() -> dict[str, Any]:
    """Peak memory beyond that of the loaded base model, `train_lora` / bare loop. Each side runs in fresh processes."""
    ratios = []
    for _ in range(3):
        ours, bare = (in_fresh_process(side) for side in (memory_of_ours, memory_of_floor))
        ratios.append(ours / bare)
    return line("train_memory_vs_floor", ratios, 1.10, f"peak over the loaded base; ours {ours / 2**20:.0f} MiB")


def generate_vs_floor() -> dict[str, Any]:
    """Seconds for each picture, `generate` / a bare denoising loop with the VAE."""
    base = load()
    pictures = [WantedPicture(prompt=CAPTION, seed=seed) for seed in range(DRAWN)]
    params = GenerateParams(batch_size=DRAWN, inference_steps=DRAWN_STEPS, guidance_scale=GUIDANCE, sampler=SAMPLER)
    ours, bare = [], []
    for _ in range(PAIRS + 1):
        ours.append(seconds(lambda: list(generate(base, pictures, params))))
        bare.append(seconds(lambda: bare_drawing(base)))
    ratios = [a / b for a, b in zip(ours[1:], bare[1:], strict=True)]
    speed = DRAWN / statistics.median(ours[1:])
    return line(
        "generate_vs_floor", ratios, 1.05, f"{DRAWN_STEPS} steps with guidance, batch {DRAWN}; {speed:.2f} pictures/s"
    )


FIGURES: dict[str, Callable[[], dict[str, Any]]] = {
    function.__name__: function for function in (train_step_vs_floor, train_memory_vs_floor, generate_vs_floor)
}


# the floor


def bare_training(base: Any, params: TrainParams) -> Iterator[float]:
    """The shortest loop that trains the same adapter on cached latents and embeddings. Yields once a step."""
    data = prepare(base, examples(), params)
    latents = torch.stack(data.means)
    assert data.conditioning
    texts = data.conditioning.take([1] * params.batch_size)
    (denoiser,) = base.learning_parts(params)
    denoiser.module.add_adapter(adapter.config(base, denoiser, params))
    parameters = [p for p in base.denoiser.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=params.learning_rate)
    while True:
        x0 = latents[torch.randint(len(latents), (params.batch_size,))]
        eps = torch.randn_like(x0)
        t = torch.randint(len(base.noise.alphas_cumprod), (params.batch_size,), device=base.device)
        with base.autocast(params.precision):
            answer = base.predict(base.noise.add(x0, eps, t), t, texts)
            loss = nn.functional.mse_loss(answer.float(), base.noise.target(x0, eps, t))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        yield loss.item()


@torch.no_grad()
def bare_drawing(base: Any) -> Tensor:
    """The same sampler, steps and guidance, with embeddings that are computed already."""
    conditioning = base.encode_prompts(["", CAPTION]).take([0] * DRAWN + [1] * DRAWN)
    scheduler = base.noise.sampler(SAMPLER, DRAWN_STEPS, base.device).scheduler
    shape = base.latent_shape(base.row.resolution, base.row.resolution)
    latents = torch.randn(DRAWN, *shape, device=base.device) * scheduler.init_noise_sigma
    with base.autocast():
        for t in scheduler.timesteps:
            noisy = scheduler.scale_model_input(torch.cat([latents, latents]), t)
            without, with_prompt = base.predict(noisy, t, conditioning).chunk(2)
            answer = without + GUIDANCE * (with_prompt - without)
            latents = scheduler.step(answer, t, latents, return_dict=False)[0]
        return base.vae.decode(latents / base.vae.config.scaling_factor, return_dict=False)[0]


# both sides


def load() -> Family:
    return families.load(catalog.base_models()["chibi"])


def train_params(train_steps: int) -> TrainParams:
    defaults = {**catalog.FAMILIES["chibi"].train, "lora_modules": "all", "batch_size": BATCH}
    return TrainParams(**{**defaults, "train_steps": train_steps, "checkpoint_every_steps": 10_000})


def examples() -> list[Example]:
    noise = np.random.default_rng(0).integers(0, 256, (BATCH, 64, 64, 3), dtype=np.uint8)
    return [Example(Image.fromarray(pixels), [CAPTION]) for pixels in noise]


def memory_of_ours(base: Family, params: TrainParams) -> None:
    train_lora(base, examples(), params)


def memory_of_floor(base: Family, params: TrainParams) -> None:
    floor = bare_training(base, params)
    for _ in range(params.train_steps):
        next(floor)


def in_fresh_process(side: Callable[[Family, TrainParams], None]) -> float:
    """Bytes that training adds to the peak memory of a process that has loaded the base model."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (side,))


def _measure(side: Callable[[Family, TrainParams], None]) -> float:
    base, params = load(), train_params(MEMORY_STEPS)
    if base.device.type == "cuda":
        before = torch.cuda.max_memory_allocated()
        side(base, params)
        return torch.cuda.max_memory_allocated() - before
    before = peak_bytes()
    side(base, params)
    return peak_bytes() - before


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def line(name: str, ratios: Sequence[float], goal: float, about: str) -> dict[str, Any]:
    return figure(name, statistics.median(ratios), goal=goal, better="lower", runs=ratios, about=about)


def main(names: Sequence[str]) -> None:
    for name in names or FIGURES:
        print(json.dumps(FIGURES[name]()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
