"""How far prompts are obeyed: new combinations are asked for, drawn, and read by the judge."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

from models.chibi.reader import Reader

from . import machine
from .captions import full_prompt
from .data import Record
from .labels import HERS, SHOT, UNKNOWN, labels
from .sheet import save_sheet
from .world import VIEWS, draw, held_out_characters, sample_shot

GATE = ("hair", "outfit_color", "headwear", "facial_hair", "skin", "view", "framing")
SAMPLING = {"num_inference_steps": 20, "guidance_scale": 4.0}


@dataclass(frozen=True)
class Question:
    """A prompt, and the true drawing that it asks for."""

    record: Record
    truth: np.ndarray

    @property
    def prompt(self) -> str:
        return full_prompt(self.record)


def questions(n: int, size: int, seed: int = 21) -> list[Question]:
    """Held-out characters in every view by turns; all else by chance."""
    rng = np.random.default_rng(seed)
    asked = []
    for i, character in enumerate(held_out_characters(n)):
        shot = sample_shot(rng, view=VIEWS[i % len(VIEWS)])
        drawing = draw(character, shot, size)
        asked.append(Question(Record(character, shot, drawing.seen), drawing.pixels))
    return asked


def load_pipeline(folder: Path) -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generate(pipeline: StableDiffusionPipeline, prompts: list[str], seed: int = 50, batch: int = 16) -> np.ndarray:
    """uint8 (n, size, size, 3); each picture has its own seed, so that batches do not matter."""
    pictures = []
    pipeline.to(machine.device())
    with machine.autocast():
        for start in range(0, len(prompts), batch):
            some = prompts[start : start + batch]
            generators = [torch.Generator().manual_seed(seed + start + i) for i in range(len(some))]
            out = pipeline(some, generator=generators, output_type="np", **SAMPLING)
            pictures.append((out.images * 255).round().astype(np.uint8))
    return np.concatenate(pictures)


def obeyed(judge: Reader, pictures: np.ndarray, records: list[Record]) -> dict[str, float]:
    """By head: the share of pictures that show what was asked, where a true drawing would show it."""
    read, wanted = judge.read(pictures), labels(records)
    shares = {}
    for head in (*HERS, *SHOT):
        asked = wanted[head] != UNKNOWN
        shares[head] = round(float((read[head].argmax(1) == wanted[head])[asked].float().mean()), 3)
    return shares


def by_view(judge: Reader, pictures: np.ndarray, records: list[Record]) -> dict[str, float]:
    """The mean over all heads, for each view."""
    shares = {}
    for view in VIEWS:
        rows = [i for i, r in enumerate(records) if r.shot.view == view]
        found = obeyed(judge, pictures[rows], [records[i] for i in rows])
        shares[view] = round(float(np.nanmean(list(found.values()))), 3)
    return shares


def measure(pipeline: StableDiffusionPipeline, judge: Reader, out: Path, n: int = 96) -> dict:
    """Measure, and leave figures and a sheet (truth above, drawing below) in `out`."""
    asked = questions(n, pipeline.unet.config.sample_size * 8)
    records, truth = [q.record for q in asked], np.stack([q.truth for q in asked])
    pictures = generate(pipeline, [q.prompt for q in asked])
    figures: dict = {
        "obeyed": obeyed(judge, pictures, records),
        "on_true_drawings": obeyed(judge, truth, records),
        "by_view": by_view(judge, pictures, records),
    }
    figures["mean"] = round(float(np.nanmean(list(figures["obeyed"].values()))), 3)
    figures["gate"] = {head: figures["obeyed"][head] for head in GATE}
    out.mkdir(parents=True, exist_ok=True)
    (out / "following.json").write_text(json.dumps(figures, indent=2) + "\n")
    rows = [row for i in range(0, min(48, n), 12) for row in (*truth[i : i + 12], *pictures[i : i + 12])]
    save_sheet(out / "following.png", rows, 12)
    return figures
