"""Train the LoRA of a round."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import structlog
import torch

from shared import captions, plans, terms
from shared.catalog.kinds import DatasetEntry, StoredFile, TrainInputs, TrainMetrics, TrainResult
from shared.catalog.params import DEFAULT_FRAMINGS, GenerateParams, TrainParams, WantedPicture
from shared.errors import JobFailed
from shared.texts import slug
from workers.checkpoints import StoredCheckpoints
from workers.diffusion.dataset import Example
from workers.diffusion.families.base import Family
from workers.diffusion.generate import OnStep, generate, resolve
from workers.diffusion.lora import files
from workers.diffusion.lora.about import About
from workers.diffusion.lora.weights import TrainedLora
from workers.diffusion.train import NanLoss, train_lora
from workers.handlers import base
from workers.work import ENOUGH, Work

log = structlog.get_logger()

CURVE_POINTS = 200  # of the loss curve that is stored with the LoRA


def run(work: Work[TrainParams, TrainInputs]) -> TrainResult:
    """Train the LoRA. Returns its files by format, and the metrics of the training."""
    params, inputs = work.params, work.inputs
    family = base.load(work)
    most = ENOUGH * (params.resolution or work.base_model.resolution)
    examples = [
        Example(work.image(entry, most), entry.captions, weight, entry.original)
        for entry, weight in zip(inputs.dataset, weights(inputs.dataset), strict=True)
    ]
    base.report_cut_texts(work, family, (text for example in examples for text in example.captions))
    if params.prior_images:
        work.begin("drawing others")
    prior = prior_examples(family, inputs, params, on_step=lambda done, total: work.step("drawing others", done, total))
    lora = _train(work, family, examples, prior, params)
    title = inputs.name
    about = About(
        title=title,
        trigger_word=inputs.trigger_word,
        subject_tags=inputs.subject_tags,
        license=work.base_model.license,
        session_id=work.job.id,
    )
    name, folder = slug(title), work.folder
    kohya, diffusers, sidecar = folder / "kohya.safetensors", folder / "diffusers.safetensors", folder / "kohya.json"
    files.save(lora, family, about, kohya=kohya, peft=diffusers)
    files.save_sidecar(family, about, sidecar)
    base.check_unchanged(work)
    return TrainResult(
        train_steps=lora.steps,
        terms=terms.of(family.row),
        metrics=TrainMetrics(
            loss=round(_tail_mean(lora.losses), 6),
            curve=curve(lora.losses),
            seconds=lora.seconds,
            images=len(examples),
        ),
        files={
            "kohya": _store(work, kohya, f"{name}.safetensors"),
            "diffusers": _store(work, diffusers, f"{name}-diffusers.safetensors"),
            "sidecar": _store(work, sidecar, f"{name}.json"),
            "preview": _store(work, preview(work, family, kohya), f"{name}.preview.png"),
        },
    )


def preview(work: Work[TrainParams, TrainInputs], family: Family, lora: Path) -> Path:
    """The file of a picture of her, as her LoRA draws her. A1111 and Forge show it beside the LoRA's name."""
    params, inputs = work.params, work.inputs
    prompt = ", ".join([inputs.trigger_word, *inputs.subject_tags, *inputs.prompt_tags])
    drawing = GenerateParams(
        width=params.resolution, height=params.resolution, clip_skip=params.clip_skip, batch_size=1
    )
    work.begin("drawing the preview")

    def on_step(step: int, total: int) -> None:
        work.step("drawing the preview", step, total)

    try:
        wanted = [WantedPicture(prompt=prompt, seed=params.seed)]
        ((_, image),) = generate(family, wanted, drawing, loras=[(lora, 1.0)], on_step=on_step)
    except torch.OutOfMemoryError as error:
        raise too_small() from error
    path = work.folder / "kohya.preview.png"
    image.save(path, "PNG")
    return path


def _train(
    work: Work[TrainParams, TrainInputs],
    family: Family,
    examples: list[Example],
    prior: list[Example],
    params: TrainParams,
) -> TrainedLora:
    """Train. When memory runs out, split the batch further, then use gradient checkpointing."""
    checkpoints = StoredCheckpoints(work)
    if checkpoints.rate_halved:
        params = at_half_rate(params)
    params = replace(params, **checkpoints.less_memory)
    work.begin("encoding")

    def on_step(step: int, loss: float) -> None:
        work.step("training", step, params.train_steps, loss=round(loss, 5))

    while True:
        try:
            return train_lora(family, examples, params, prior=prior, on_step=on_step, checkpoints=checkpoints)
        except NanLoss as error:
            if checkpoints.rate_halved:
                raise JobFailed("nan_loss", str(error), retryable=True) from error
            log.warning("train.rate_halved", step=error.step, learning_rate=params.learning_rate / 2)
            checkpoints.halve_rate()
            params = at_half_rate(params)
        except torch.OutOfMemoryError as error:
            less = less_memory(params)
            if less is None:
                raise too_small() from error
            log.warning("train.less_memory", **less)
            checkpoints.save_memory(less)
            params = replace(params, **less)


def weights(dataset: list[DatasetEntry]) -> list[float]:
    """The weight of each picture's loss: its repeats, divided by their mean, so that the mean weight stays 1."""
    total = sum(entry.repeats for entry in dataset)
    return [entry.repeats * len(dataset) / total for entry in dataset]


def too_small() -> JobFailed:
    return JobFailed("gpu_oom", "the GPU has too little memory; lower the resolution or the rank", retryable=True)


def at_half_rate(params: TrainParams) -> TrainParams:
    """The same parameters at half the learning rate; tried once if the loss becomes NaN."""
    return replace(
        params,
        learning_rate=params.learning_rate / 2,
        text_encoder_learning_rate=params.text_encoder_learning_rate / 2,
    )


def less_memory(params: TrainParams) -> dict[str, Any] | None:
    """Parameters that lower the training's memory use; None if there is nothing left to lower."""
    if params.batch_size > 1:
        smaller = max(size for size in range(1, params.batch_size) if params.batch_size % size == 0)
        more = params.gradient_accumulation * params.batch_size // smaller
        return {"batch_size": smaller, "gradient_accumulation": more}
    if not params.gradient_checkpointing:
        return {"batch_size": 1, "gradient_accumulation": params.gradient_accumulation, "gradient_checkpointing": True}
    return None


def prior_examples(
    family: Family, inputs: TrainInputs, params: TrainParams, on_step: OnStep | None = None
) -> list[Example]:
    """Pictures of other characters, drawn by the base model, for prior preservation (DreamBooth, arXiv 2208.12242)."""
    if not params.prior_images:
        return []
    pictures = plans.pictures(
        trigger_word="",
        subject_tags=inputs.subject_tags,
        feature_tags=[],
        views=inputs.views,
        framings=DEFAULT_FRAMINGS,
        prompt_tags=inputs.prompt_tags,
        count=params.prior_images,
        seed=params.seed + 500_000,
        name_features=False,
    )
    drawing = GenerateParams(width=params.resolution, height=params.resolution, clip_skip=params.clip_skip)
    while True:
        try:
            drawn = list(generate(family, pictures, drawing, on_step=on_step))
            return [Example(image, [captions.without_quality(pictures[i].prompt)]) for i, image in drawn]
        except torch.OutOfMemoryError as error:
            size = resolve(drawing, family).batch_size
            if size == 1:
                raise too_small() from error
            drawing = replace(drawing, batch_size=size // 2)


def curve(losses: list[float]) -> list[tuple[int, float]]:
    """The loss over the steps, averaged over at most `CURVE_POINTS` stretches: [[last step, loss], ...]."""
    width = max(1, -(-len(losses) // CURVE_POINTS))
    stretches = [losses[start : start + width] for start in range(0, len(losses), width)]
    return [(min((i + 1) * width, len(losses)), round(sum(each) / len(each), 6)) for i, each in enumerate(stretches)]


def _tail_mean(losses: list[float]) -> float:
    tail = losses[-max(1, len(losses) // 10) :]
    return sum(tail) / max(1, len(tail))


def _store(work: Work[TrainParams, TrainInputs], path: Path, filename: str) -> StoredFile:
    return StoredFile(**asdict(work.store(path.name, path)), filename=filename)
