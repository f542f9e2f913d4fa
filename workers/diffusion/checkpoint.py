"""The state of a training as one safetensors file. A resumed training gives the same result as an uninterrupted one."""

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

# The parameters in the fingerprints of this format. A parameter that is added later is part of a fingerprint only if it
# differs from its default, so that trainings find their checkpoints after an upgrade.
PARAMETERS = (
    "rank", "alpha", "lora_modules", "learning_rate", "text_encoder_learning_rate", "lr_scheduler", "warmup_steps",
    "weight_decay", "max_grad_norm", "train_steps", "batch_size", "gradient_accumulation", "resolution",
    "caption_variants", "caption_dropout", "prior_images", "prior_weight", "min_snr_gamma", "noise_offset", "precision",
    "gradient_checkpointing", "checkpoint_every_steps", "seed",
)  # fmt: skip


class Checkpoints(Protocol):
    """Stores checkpoints."""

    def latest(self) -> Path | None:
        """The newest readable checkpoint, as a file."""

    def wanted(self) -> bool:
        """Whether to save now, before a checkpoint is due, because the process is about to end."""

    def save(self, path: Path, step: int) -> None:
        """Store a copy of the file at `path`, which the caller deletes afterwards."""


def fingerprint(base: Family, params: TrainParams, examples: Sequence[Example], prior: Sequence[Example] = ()) -> str:
    """A hash that identifies a training, so that a checkpoint is used only by the training that it comes from.

    It covers the inputs, not the latents and prior pictures that are computed from them, because another GPU computes
    these with different rounding.

    It leaves out the learning rate, so that a diverged training can resume at a lower rate, and the split of a step's
    batch, so that a training that ran out of memory can resume with smaller batches.
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
    """Write the file, and store it when it is complete."""
    metadata = {"format": FORMAT, "state": json.dumps(state)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"step-{step}.safetensors"
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path, metadata)
        checkpoints.save(path, step)


def load(checkpoints: Checkpoints | None, run: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest state of this training. None if there is no file, or if it is damaged or of another training."""
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
