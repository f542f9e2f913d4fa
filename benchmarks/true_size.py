"""SD 1.5 and SDXL at their true size with random weights, on a CPU: `make true-size`, `ONLY=sd15` for one of them.

Each model is written as a single file, found, loaded, trained for a few steps, exported and drawn with by the
service's own code. The run ends with an error if a check fails. Each step is a process of its own and prints one row:
its peak memory, and the CPU seconds of our step and of a bare torch loop on the same modules in the same process.
"""

from __future__ import annotations

import hashlib
import math
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from benchmarks.memory import peak_bytes
from shared import catalog
from shared.catalog import BaseModel
from shared.catalog.families import TEXT_ENCODER, TEXT_ENCODER_2, UNET, VAE
from shared.catalog.params import GenerateParams, TrainParams, WantedPicture
from shared.checkpoints.header import read_header
from shared.checkpoints.scan import Scan
from shared.settings import Settings
from workers.diffusion import families
from workers.diffusion.conditioning import Placement
from workers.diffusion.dataset import Example
from workers.diffusion.families.base import Family
from workers.diffusion.families.components import CONFIGS, empty
from workers.diffusion.generate import generate
from workers.diffusion.lora import files
from workers.diffusion.lora.about import About
from workers.diffusion.lora.weights import Changes, LoraWeights
from workers.diffusion.train import train_lora

SIDE = 256  # pixels of the pictures
STEPS = 3  # of training and of drawing; the first includes loading and encoding, so it is not timed
RANK, ALPHA = 16, 8.0
MOST_BYTES = 20e9  # of memory, in any process
CAPTION = "eiei21girl, 1girl, solo, looking at viewer, full body, white background"


@dataclass(frozen=True)
class Published:
    """The keys of a LoRA file that sd-scripts makes at rank 16 with its text encoders."""

    unet: int  # modules
    text_encoders: int
    sha256: str  # of its sorted lines "key [shape]"


# From `create_network` of networks/lora.py on sd-scripts' own modules (github.com/kohya-ss/sd-scripts, commit 48d368f),
# with conv_dim 16 for `all`. For SDXL without `lora_te1_text_model_encoder_layers_11_*`: the UNet is not told of what
# that layer makes, so sd-scripts trains it in vain, and we don't.
PUBLISHED = {
    ("sd15", "attention_ff"): Published(192, 72, "ab5b4e494b1d3261ae6a5a987dab23cfe5a9d03173b1fad15cb5e550927c7237"),
    ("sd15", "all"): Published(278, 72, "1cc22bd0d2e7b923a14f70f7eebc2ae473337c7d985cecc8b6476c4e289a0f69"),
    ("sdxl", "attention_ff"): Published(722, 258, "2f54b1a8695434b9656a93ee06b2bcc66ea4bc2ebc653ccb1025f6726a87ec7e"),
    ("sdxl", "all"): Published(788, 258, "1fa8e7c0f495b06ffad8d6e5ae046c12afe2f3df85153b427aefe150a65753de"),
}
TRAINED = {"sd15": ("attention_ff", "all"), "sdxl": ("attention_ff",)}  # with the text encoders
RECOGNISED = {"sd15": ("sd15", "epsilon", 512), "sdxl": ("sdxl", "epsilon", 1024)}
# While a LoRA is merged, the weights that it changes are in memory twice: for SDXL 9 GB beside 14 GB, in fp32.
DRAWN_WITHOUT_LORA = {"sdxl"}

KINDS = {
    UNET: UNet2DConditionModel,
    VAE: AutoencoderKL,
    TEXT_ENCODER: CLIPTextModel,
    TEXT_ENCODER_2: CLIPTextModelWithProjection,
}


class CheckFailed(Exception):
    """A check of `make true-size` has failed."""


def main(only: Sequence[str]) -> None:
    if unknown := set(only) - set(TRAINED):
        sys.exit(f"there is no model {', '.join(sorted(unknown))}; there are {', '.join(TRAINED)}")
    print("| model | step | peak memory | our step | bare step | ratio | what |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="true-size-") as scratch:
        for family in only or TRAINED:
            path = Path(scratch) / f"{family}.safetensors"
            show(family, "write", alone(write, family, CONFIGS / family, path))
            row = found(path)
            expect((row.family, row.prediction_type, row.resolution) == RECOGNISED[family], f"recognised as {row}")
            for modules in TRAINED[family]:
                kohya, peft = (Path(scratch) / "loras" / f"{form}.safetensors" for form in ("kohya", "peft"))
                name = f"{family}, {modules} + text"
                show(name, "train", alone(train, row, modules, SIDE, kohya, peft))
                check_keys(kohya, PUBLISHED[family, modules])
                drawn_with = None if family in DRAWN_WITHOUT_LORA else kohya
                show(name, "draw", alone(draw, row, SIDE, drawn_with))
            path.unlink()


# steps


@dataclass
class Step:
    """What one process measured."""

    what: str
    ours: Sequence[float] = ()  # CPU seconds of each timed step
    bare: Sequence[float] = ()
    peak: int = field(default_factory=peak_bytes)  # bytes, with torch and the mapped file


def write(family: str, configs: Path, path: Path) -> Step:
    """Write a base model of random fp16 weights in the original layout."""
    tensors: dict[str, Tensor] = {}
    for name, layout in catalog.resolve(catalog.FAMILIES[family].code).layouts.items():
        tensors |= layout.tensors(randomised(empty(KINDS[name], configs / name / "config.json")))
    save_file(tensors, path)
    return Step(f"{len(tensors)} tensors, {path.stat().st_size / 1e9:.2f} GB")


def train(row: BaseModel, modules: str, side: int, kohya: Path, peft: Path) -> Step:
    """Train a LoRA on the UNet and the text encoders, write both files and read them back."""
    base = families.load(row, "cpu")
    settings = {
        "rank": RANK, "alpha": ALPHA, "lora_modules": modules, "text_encoder_learning_rate": 1e-4,
        "resolution": side, "batch_size": 1, "train_steps": STEPS,
    }  # fmt: skip
    params = TrainParams(**{**catalog.FAMILIES[row.family].train, **settings})
    pace = Pace(bare_training(base, params, side))
    lora = train_lora(base, examples(side), params, on_step=pace)
    idle = [path for changes in lora.weights.values() for path, change in changes.items() if not change.up.any()]
    expect(not idle, f"{len(idle)} modules learned nothing, such as {idle[:1]}")
    kohya.parent.mkdir(exist_ok=True)
    files.save(lora, base, About(title="true size"), kohya=kohya, peft=peft)
    for path in (kohya, peft):
        expect(are_same(files.read(path, base), lora.weights), f"{path.name} reads back as another LoRA")
    counts = " + ".join(str(len(changes)) for changes in lora.weights.values())
    sizes = " and ".join(f"{path.stat().st_size / 1e6:.1f}" for path in (kohya, peft))
    return Step(f"{counts} modules, files of {sizes} MB", pace.ours[1:], pace.bare[1:])


def draw(row: BaseModel, side: int, lora: Path | None) -> Step:
    """Draw one picture."""
    base = families.load(row, "cpu")
    params = GenerateParams(width=side, height=side, batch_size=1, inference_steps=STEPS)
    pace = Pace(bare_drawing(base, side))
    loras = [(lora, 1.0)] if lora else []
    ((_, image),) = generate(base, [WantedPicture(prompt=CAPTION, seed=0)], params, loras=loras, on_step=pace)
    expect(image.size == (side, side), f"the picture has the size {image.size}")
    expect(np.asarray(image).std() > 0, "the picture is of one colour")
    return Step(f"with{'' if lora else 'out'} the LoRA", pace.ours[1:], pace.bare[1:])


# weights


def randomised(model: nn.Module) -> nn.Module:
    """Give an empty module random fp16 weights. Each layer keeps the variance of its input, norms change nothing."""
    generator = torch.Generator().manual_seed(0)
    state = {name: drawn(name, parameter.shape, generator) for name, parameter in model.named_parameters()}
    model.load_state_dict(state, assign=True)
    return model


def drawn(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    if len(shape) == 1:
        return (torch.ones if name.endswith("weight") else torch.zeros)(shape, dtype=torch.float16)
    fan_in = math.prod(shape[1:])
    return torch.randn(shape, generator=generator, dtype=torch.float16).mul_(fan_in**-0.5)


def examples(side: int) -> list[Example]:
    noise = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    return [Example(Image.fromarray(pixels), [CAPTION]) for pixels in noise]


# the floor


class Pace:
    """Takes a step of the bare loop after each of ours, and the CPU seconds of both. Both work on the same modules."""

    def __init__(self, bare_steps: Iterator[None]):
        self.ours: list[float] = []
        self.bare: list[float] = []
        self._bare_steps = bare_steps
        self._began = time.process_time()

    def __call__(self, *_: Any) -> None:
        ended = time.process_time()
        self.ours.append(ended - self._began)
        next(self._bare_steps)
        self._began = time.process_time()
        self.bare.append(self._began - ended)


def bare_training(base: Family, params: TrainParams, side: int) -> Iterator[None]:
    """The shortest training step of the adapter that is attached. At a rate of 0, its work changes no weight."""
    parameters = [each for part in base.parts for each in part.module.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.0, fused=True)
    noisy = torch.randn(1, *base.latent_shape(side, side))
    while True:
        with base.autocast(params.precision):
            answer = base.predict(noisy, torch.tensor([500]), texts(base, [CAPTION], side))
        nn.functional.mse_loss(answer.float(), noisy).backward()
        optimizer.step()
        optimizer.zero_grad()
        yield


def bare_drawing(base: Family, side: int) -> Iterator[None]:
    """One call of the UNet with guidance, on texts that are encoded already."""
    conditioning = texts(base, ["", CAPTION], side)
    noisy = torch.randn(2, *base.latent_shape(side, side))
    while True:
        base.predict(noisy, torch.tensor(500), conditioning)
        yield


def texts(base: Family, prompts: Sequence[str], side: int) -> Any:
    placement = Placement((side, side), (0, 0), (side, side))
    return base.place(base.encode_prompts(prompts), [placement] * len(prompts))


# checks


def found(path: Path) -> BaseModel:
    """The base model in a folder, as a worker finds it there."""
    row = Scan(path.parent, None).look()[path.stem]
    expect(not row.problem, f"{path.name}: {row.problem}")
    return row


def check_keys(kohya: Path, published: Published) -> None:
    """Compare the file's keys and shapes with those that sd-scripts makes."""
    shapes = {key: each.shape for key, each in read_header(kohya).tensors.items()}
    names = {key.partition(".")[0] for key in shapes}
    unet = sum(name.startswith("lora_unet_") for name in names)
    counts, wanted = (unet, len(names) - unet), (published.unet, published.text_encoders)
    expect(counts == wanted, f"the file holds {counts} modules of UNet and text encoders, sd-scripts' {wanted}")
    expect(digest(shapes) == published.sha256, "the file has other keys or shapes than sd-scripts'")


def digest(shapes: Mapping[str, Sequence[int]]) -> str:
    """The hash of a file's keys and shapes."""
    return hashlib.sha256("\n".join(sorted(f"{key} {[*shape]}" for key, shape in shapes.items())).encode()).hexdigest()


def are_same(read: Changes, trained: LoraWeights) -> bool:
    """Whether a file holds the trained weights at their strength; kohya's form rounds them to fp16."""
    one, other = factors(read), factors(trained)
    return one.keys() == other.keys() and all(torch.allclose(one[key], other[key], 2e-3, 1e-6) for key in one)


def factors(changes: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, str, str], Tensor]:
    """The matrices of all modules; `up` with the strength."""
    found = {}
    for part, of_part in changes.items():
        for path, change in of_part.items():
            found[part, path, "down"] = change.down.float().flatten()
            found[part, path, "up"] = change.up.float().flatten() * (change.alpha / change.rank)
    return found


def expect(true: bool, otherwise: str) -> None:
    if not true:
        raise CheckFailed(otherwise)


# running and printing


def alone(step: Callable[..., Step], *given: Any) -> Step:
    """Run a step in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        measured = pool.submit(step, *given).result()
    expect(measured.peak <= MOST_BYTES, f"{step.__name__} took {measured.peak / 1e9:.1f} GB")
    return measured


def show(name: str, step: str, measured: Step) -> None:
    """Print a row of the table."""
    limit = Settings.max_worker_bytes
    beyond = f" (a worker may have {limit / 1e9:g})" if measured.peak > limit else ""
    columns = [name, step, f"{measured.peak / 1e9:.1f} GB{beyond}", "", "", "", measured.what]
    if measured.ours:
        ours, bare = statistics.median(measured.ours), statistics.median(measured.bare)
        columns[3:6] = [f"{ours:.2f} s", f"{bare:.2f} s", f"{ours / bare:.2f}"]
    print(f"| {' | '.join(columns)} |", flush=True)


if __name__ == "__main__":
    main([name for word in sys.argv[1:] for name in word.removeprefix("ONLY=").split(",") if name])
