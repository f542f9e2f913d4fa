"""The state of a training as one safetensors file, so that an interrupted run goes on as if nothing had happened."""

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

from shared.params import TrainParams
from workers.diffusion.dataset import Example
from workers.diffusion.families.base import Family

log = logging.getLogger(__name__)

FORMAT = "bootlora-checkpoint-2"


class Checkpoints(Protocol):
    """Where checkpoints are kept."""

    def latest(self) -> Path | None:
        """The newest one, as a file that can be read."""

    def wanted(self) -> bool:
        """Whether one should be saved now, before it is due: the process is about to end."""

    def save(self, path: Path, step: int) -> None:
        """Keep the file at `path`, which is gone after this call."""


def fingerprint(base: Family, params: TrainParams, examples: Sequence[Example], prior: Sequence[Example] = ()) -> str:
    """Tells one run from another: a checkpoint goes on only in the run that it comes from.

    It goes by what was given, not by what this machine made of it: another card rounds latents otherwise, and draws
    the prior pictures, which follow from their prompts and the settings, with other last bits.

    How fast it learns is left out: a run that has diverged goes on from its checkpoint at a lower rate. So is how a
    step's batch is cut up: one that ran out of memory goes on with smaller pieces.
    """
    left_out = dict.fromkeys(("learning_rate", "gradient_accumulation", "gradient_checkpointing"))
    settings = {
        **asdict(params),
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
    """Write one file, complete before anybody sees it, and hand it over."""
    metadata = {"format": FORMAT, "state": json.dumps(state)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"step-{step}.safetensors"
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path, metadata)
        checkpoints.save(path, step)


def load(checkpoints: Checkpoints | None, run: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest state of this run; a broken file or another run's means starting over, not failing."""
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
