"""LoRA files: written for other tools at the right strength, and read whoever wrote them.

Two forms of the same weights. kohya's, which ComfyUI, A1111 and sd-scripts read, names each module with
underscores and keeps an alpha beside it. The peft form, which diffusers reads, has its alpha in the metadata.
diffusers' own converter writes alpha = rank whatever it was, so neither is left to it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors import torch as safetensors
from torch import Tensor, nn

from workers.diffusion import adapter
from workers.diffusion.adapter import LoraWeights, LowRank
from workers.diffusion.families.base import Family
from workers.diffusion.train import TrainedLora

MAX_HEADER_BYTES = 16 * 2**20
MAX_TENSORS = 20_000


class BadLora(ValueError):
    """A file that is no LoRA, or none for this base model."""


@dataclass(frozen=True)
class About:
    """What a file tells its reader."""

    title: str
    trigger_word: str = ""
    description: str = ""
    author: str = ""
    license: str = ""  # of the base model, as a rule
    session_id: str = ""  # whatever made it: an id of the caller


# writing


def save(lora: TrainedLora, base: Family, about: About, *, kohya: Path, peft: Path) -> None:
    """Write both forms, each complete before it has its name."""
    save_kohya(lora, base, about, kohya)
    save_peft(lora, base, about, peft)


def save_kohya(lora: TrainedLora, base: Family, about: About, path: Path) -> None:
    """For ComfyUI, A1111, Forge, sd-scripts and everything that reads their files."""
    tensors: dict[str, Tensor] = {}
    for component, changes in lora.weights.items():
        for module, change in changes.items():
            name = kohya_name(base, component, module)
            tensors[f"{name}.lora_down.weight"] = change.down.half().contiguous()
            tensors[f"{name}.lora_up.weight"] = change.up.half().contiguous()
            tensors[f"{name}.alpha"] = torch.tensor(float(change.alpha))
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
    tensors: dict[str, Tensor] = {}
    configs: dict[str, Any] = {}
    for component, changes in lora.weights.items():
        for module, change in changes.items():
            name = peft_name(component, module)
            tensors[f"{name}.lora_A.weight"] = change.down.contiguous()
            tensors[f"{name}.lora_B.weight"] = change.up.contiguous()
        config = adapter.lora_config(base, component, lora.params).to_dict()
        configs |= {f"{component}.{key}": _plain(value) for key, value in config.items()}
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(configs, sort_keys=True)}
    _write(path, safetensors.save(tensors, metadata | modelspec_metadata(lora, base, about)))


def peft_name(component: str, module: str) -> str:
    """`text_encoder`, `encoder.layers.0.mlp.fc1` -> `text_encoder.text_model.encoder.layers.0.mlp.fc1`."""
    # transformers 4 has everything under text_model; 5, which has not, reads both
    if component == "text_encoder":
        module = f"text_model.{module.removeprefix('text_model.')}"
    return f"{component}.{module}"


def kohya_name(base: Family, component: str, module: str) -> str:
    """`unet`, `mid_block.attentions.0.proj_in` -> `lora_unet_mid_block_attentions_0_proj_in`."""
    # transformers 4 had everything under text_model, which is in kohya's prefix
    return base.kohya_prefixes[component] + module.removeprefix("text_model.").replace(".", "_")


def ss_metadata(lora: TrainedLora, base: Family, about: About) -> dict[str, str]:
    """What sd-scripts writes, and A1111 and LoRA managers show."""
    params = lora.params
    finished = lora.finished_at.timestamp()
    size = f"{params.resolution or base.row.resolution}"
    args = {"conv_dim": str(params.rank), "conv_alpha": str(params.alpha)} if params.lora_modules == "all" else {}
    facts: dict[str, Any] = {
        "ss_base_model_version": base.kohya_version,
        "ss_v2": False,
        "ss_sd_model_name": base.row.name,
        "ss_output_name": about.title,
        "ss_session_id": about.session_id or None,
        "ss_training_started_at": finished - lora.seconds,
        "ss_training_finished_at": finished,
        "ss_network_module": "networks.lora",
        "ss_network_dim": params.rank,
        "ss_network_alpha": params.alpha,
        "ss_network_args": json.dumps(args),
        "ss_steps": lora.steps,
        "ss_max_train_steps": params.train_steps,
        "ss_epoch": math.ceil(lora.steps * params.batch_size * params.gradient_accumulation / lora.images),
        "ss_num_train_images": lora.images,
        "ss_num_reg_images": params.prior_images,
        "ss_learning_rate": params.learning_rate,
        "ss_unet_lr": params.learning_rate,
        "ss_text_encoder_lr": params.text_encoder_learning_rate or None,
        "ss_lr_scheduler": params.lr_scheduler,
        "ss_lr_warmup_steps": params.warmup_steps,
        "ss_optimizer": "torch.optim.AdamW",
        "ss_total_batch_size": params.batch_size * params.gradient_accumulation,
        "ss_gradient_accumulation_steps": params.gradient_accumulation,
        "ss_gradient_checkpointing": params.gradient_checkpointing,
        "ss_max_grad_norm": params.max_grad_norm,
        "ss_mixed_precision": {"fp32": "no"}.get(base.precision(params.precision), base.precision(params.precision)),
        "ss_seed": params.seed,
        "ss_resolution": f"({size}, {size})",
        "ss_min_snr_gamma": params.min_snr_gamma if base.prediction_type == "epsilon" else None,
        "ss_noise_offset": params.noise_offset or None,
        "ss_caption_dropout_rate": params.caption_dropout,
        "ss_shuffle_caption": params.caption_variants > 1,
        "ss_keep_tokens": 1,
        "ss_zero_terminal_snr": bool(base.noise_config.get("rescale_betas_zero_snr", False)),
        "ss_dataset_dirs": json.dumps({about.title: {"n_repeats": 1, "img_count": lora.images}}),
        "ss_tag_frequency": json.dumps({about.title: lora.tag_counts}),
    }
    return {key: str(value) for key, value in facts.items()}


def modelspec_metadata(lora: TrainedLora, base: Family, about: About) -> dict[str, str]:
    """https://github.com/Stability-AI/ModelSpec, version 1.0.1; what is empty is left out."""
    size = lora.params.resolution or base.row.resolution
    facts = {
        "sai_model_spec": "1.0.1",
        "architecture": f"{base.architecture}/lora",
        "implementation": "diffusers",
        "title": about.title,
        "resolution": f"{size}x{size}",
        "description": about.description,
        "author": about.author,
        "date": lora.finished_at.isoformat(timespec="seconds"),
        "trigger_phrase": about.trigger_word,
        "license": about.license or base.row.license,
        "prediction_type": {"v_prediction": "v"}.get(base.prediction_type, base.prediction_type),
    }
    return {f"modelspec.{key}": value for key, value in facts.items() if value}


def _plain(value: Any) -> Any:
    """What JSON can hold of peft's config."""
    if isinstance(value, set | tuple):
        return sorted(value)
    return value


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
    """The changes that a file of either form makes to this base model."""
    metadata = read_metadata(path)
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    is_kohya = any(key.endswith(".lora_down.weight") for key in tensors)
    parts = _kohya_parts(path, tensors, base) if is_kohya else _peft_parts(path, tensors, metadata, base)
    weights: dict[str, dict[str, LowRank]] = defaultdict(dict)
    for (component, module), sides in parts.items():
        try:
            change = LowRank(sides["down"], sides["up"], float(sides.get("alpha", sides["down"].shape[0])))
            weight = base.components[component].get_parameter(f"{module}.weight")
            fits = change.delta().numel() == weight.numel()
        except (KeyError, RuntimeError):
            fits = False
        if not fits:
            raise BadLora(f"{path.name}: {component}.{module} doesn't fit; it was made for another base model")
        weights[component][module] = change
    return weights


Parts = dict[tuple[str, str], dict[str, Any]]  # (component, module) -> down, up, alpha


def _kohya_parts(path: Path, tensors: dict[str, Tensor], base: Family) -> Parts:
    modules = {kohya_name(base, component, module): (component, module) for component, module in _carriers(base)}
    sides = {"lora_down.weight": "down", "lora_up.weight": "up", "alpha": "alpha"}
    parts: Parts = defaultdict(dict)
    for key, tensor in tensors.items():
        name, side = key.split(".", 1)
        name = name.replace("lora_te1_", "lora_te_", 1)  # how some converters spell it for SD 1.x
        if name not in modules or side not in sides:
            raise BadLora(f"{path.name}: {key} is no part of a plain LoRA for {base.row.name}")
        parts[modules[name]][sides[side]] = tensor
    return parts


def _peft_parts(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str], base: Family) -> Parts:
    config = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    carriers = {f"{component}.{module}": (component, module) for component, module in _carriers(base)}
    carriers |= {name.replace("text_encoder.", "text_encoder.text_model.", 1): at for name, at in carriers.items()}
    sides = {"lora_A": "down", "lora_B": "up"}
    parts: Parts = defaultdict(dict)
    for key, tensor in tensors.items():
        name, _, side = key.removesuffix(".weight").rpartition(".")
        if name not in carriers or side not in sides:
            raise BadLora(f"{path.name}: {key} is no part of a plain LoRA for {base.row.name}")
        parts[carriers[name]][sides[side]] = tensor
    for (component, _), found in parts.items():
        if f"{component}.lora_alpha" in config:
            alpha = config[f"{component}.lora_alpha"]
            rank = found["down"].shape[0]
            found["alpha"] = alpha * math.sqrt(rank) if config.get(f"{component}.use_rslora") else alpha
    return parts


def _carriers(base: Family) -> list[tuple[str, str]]:
    """Everything in the base that a LoRA can change."""
    return [
        (component, path)
        for component, model in base.components.items()
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    ]
