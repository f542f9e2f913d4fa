"""LoRA files: written for other tools at the right strength, and read whoever wrote them.

There are two forms of the same weights: kohya's and peft's. diffusers' own converter between them writes alpha = rank
whatever the alpha was, so we write both ourselves.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors import torch as safetensors
from torch import Tensor

from workers.diffusion.families.base import Family
from workers.diffusion.lora import kohya, peft
from workers.diffusion.lora.about import About, modelspec_metadata, sidecar, ss_metadata
from workers.diffusion.lora.weights import LoraWeights, LowRank, TrainedLora

MAX_HEADER_BYTES = 16 * 2**20
MAX_TENSORS = 20_000


class BadLora(ValueError):
    """A file that is no LoRA, or none for this base model."""


# writing


def save(lora: TrainedLora, base: Family, about: About, *, kohya: Path, peft: Path) -> None:
    """Write both forms, each complete before it has its name."""
    save_kohya(lora, base, about, kohya)
    save_peft(lora, base, about, peft)


def save_kohya(lora: TrainedLora, base: Family, about: About, path: Path) -> None:
    """For ComfyUI, A1111, Forge, sd-scripts and everything that reads their files."""
    tensors = kohya.tensors(lora.weights, base)
    ss = ss_metadata(lora, base, about)
    # The hashes that A1111 goes by are taken over a file with nothing but ss_* in its header.
    plain = safetensors.save(tensors, ss)
    digest = hashlib.sha256(plain[8 + int.from_bytes(plain[:8], "little") :]).hexdigest()
    hashes = {
        "sshs_model_hash": digest,
        "sshs_legacy_hash": hashlib.sha256(plain[0x100000:0x110000]).hexdigest()[:8],
        "modelspec.hash_sha256": f"0x{digest}",
    }
    _write(path, safetensors.save(tensors, ss | modelspec_metadata(lora, base, about) | hashes))


def save_peft(lora: TrainedLora, base: Family, about: About, path: Path) -> None:
    """For diffusers and peft: full precision, with the adapter's config in the metadata."""
    metadata = peft.metadata(lora, base) | modelspec_metadata(lora, base, about)
    _write(path, safetensors.save(peft.tensors(lora.weights, base), metadata))


def save_sidecar(base: Family, about: About, path: Path) -> None:
    """For A1111 and Forge, which look for it beside the file of kohya's form."""
    _write(path, sidecar(base, about).encode())


def _write(path: Path, data: bytes) -> None:
    """Under another name first: a reader never sees half a file."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        partial = Path(file.name)
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            partial.chmod(0o644)
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


# reading


def read_metadata(path: Path) -> dict[str, str]:
    """The header's metadata, without loading a tensor or trusting the sizes that the file claims."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if not 2 <= size <= MAX_HEADER_BYTES:
            raise BadLora(f"{path.name} is no safetensors file, or its header is over {MAX_HEADER_BYTES} bytes")
        try:
            header = json.loads(file.read(size))
        except ValueError as error:
            raise BadLora(f"{path.name} is no safetensors file: its header can't be read") from error
    metadata = header.pop("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise BadLora(f"{path.name}: metadata must be text")
    if len(header) > MAX_TENSORS:
        raise BadLora(f"{path.name} has {len(header)} tensors, over the limit of {MAX_TENSORS}")
    return metadata


def read(path: Path, base: Family) -> LoraWeights:
    """The changes that a file of either form makes to this base model.

    Raises:
        BadLora: the file is no plain LoRA, or was made for another base model.
    """
    metadata = read_metadata(path)
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    form: Any = kohya if any(kohya.split(key)[1] for key in tensors) else peft
    weights: dict[str, dict[str, LowRank]] = defaultdict(dict)
    for (part, module), sides in _by_module(path, tensors, base, form).items():
        try:
            down, up = sides["down"], sides["up"]
            rank = down.shape[0]
            alpha = peft.alpha(metadata, part, rank) if form is peft else float(sides.get("alpha", rank))
            change = LowRank(down, up, alpha)
            fits = change.fits(base.part(part).module.get_parameter(f"{module}.weight"))
        except (KeyError, IndexError, ValueError, TypeError, AttributeError, RuntimeError):
            fits = False
        if not fits:
            raise BadLora(f"{path.name}: {part}.{module} doesn't fit; it was made for another base model")
        weights[part][module] = change
    return weights


def _by_module(
    path: Path, tensors: Mapping[str, Tensor], base: Family, form: Any
) -> dict[tuple[str, str], dict[str, Tensor]]:
    """(part, module) -> the sides of its change."""
    modules = {
        name: (part.name, module)
        for part in base.parts
        for module in part.could_carry()
        for name in form.names(part, module)
    }
    found: dict[tuple[str, str], dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in tensors.items():
        name, side = form.split(key)
        if name not in modules or side is None:
            raise BadLora(f"{path.name}: {key} is no part of a plain LoRA for {base.row.name}")
        found[modules[name]][side] = tensor
    return found
