"""The state of a training as one safetensors file, so that an interrupted one goes on as if nothing had happened."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from shared.catalog.params import TrainParams
from workers.diffusion.dataset import Example
from workers.diffusion.families.base import Family

log = logging.getLogger(__name__)

FORMAT = "bootlora-checkpoint-2"

# Parameters that a checkpoint of this format knows of. One that is added later belongs to the fingerprint only where it
# differs from its default, so that trainings begun before the upgrade find their checkpoints after it.
PARAMETERS = (
    "rank", "alpha", "lora_modules", "learning_rate", "text_encoder_learning_rate", "lr_scheduler", "warmup_steps",
    "weight_decay", "max_grad_norm", "train_steps", "batch_size", "gradient_accumulation", "resolution",
    "caption_variants", "caption_dropout", "prior_images", "prior_weight", "min_snr_gamma", "noise_offset", "precision",
    "gradient_checkpointing", "checkpoint_every_steps", "seed",
)  # fmt: skip


class Checkpoints(Protocol):
    """Where checkpoints are kept."""

    def latest(self) -> Path | None:
        """The newest one, as a file that can be read."""

    def wanted(self) -> bool:
        """Whether one should be saved now, before it is due, since the process is about to end."""

    def save(self, path: Path, step: int) -> None:
        """Keep a copy of the file at `path`, which the caller deletes afterwards."""


def fingerprint(base: Family, params: TrainParams, examples: Sequence[Example], prior: Sequence[Example] = ()) -> str:
    """Tells one training from another: a checkpoint is used only by the training that it comes from.

    It depends on what was given, not on what this machine made of it: another card rounds latents differently, and
    draws the prior pictures, which follow from their prompts and the parameters, with other last bits.

    The learning rate is left out, so that a training that has diverged can go on from its checkpoint at a lower rate.
    How a step's batch is split is left out too, so that one that ran out of memory can go on in smaller pieces.
    """
    left_out = dict.fromkeys(("learning_rate", "gradient_accumulation", "gradient_checkpointing"))
    defaults = asdict(type(params)())
    settings = {
        **{name: value for name, value in asdict(params).items() if name in PARAMETERS or value != defaults[name]},
        **left_out,
        "text_encoder_learning_rate": params.text_encoder_learning_rate > 0,
        "batch_size": params.batch_size * params.gradient_accumulation,
    }
    digest = hashlib.sha256(json.dumps([FORMAT, base.row.name, settings], sort_keys=True).encode())
    for example in [*examples, *prior]:
        digest.update(json.dumps([example.captions, example.weight]).encode())
    for example in examples:
        digest.update(f"{example.image.mode} {example.image.size}".encode() + example.image.tobytes())
    return digest.hexdigest()


def save(checkpoints: Checkpoints, tensors: Mapping[str, Tensor], state: Mapping[str, Any], step: int) -> None:
    """Write one file and hand it over when it is complete."""
    metadata = {"format": FORMAT, "state": json.dumps(state)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"step-{step}.safetensors"
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path, metadata)
        checkpoints.save(path, step)


def load(checkpoints: Checkpoints | None, run: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest state of this training; None if there is no file, or it is broken or of another training."""
    path = checkpoints.latest() if checkpoints else None
    if path is None:
        return None
    try:
        with safe_open(path, framework="pt") as file:
            state = json.loads((file.metadata() or {}).get("state", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        log.warning("checkpoint_unreadable", extra={"path": str(path), "error": str(error)})
        return None
    if state.get("run") != run:
        log.warning("checkpoint_of_another_run", extra={"path": str(path)})
        return None
    return tensors, state
