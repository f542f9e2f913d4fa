"""What a LoRA file tells its reader besides the weights."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from workers.diffusion.families.base import Family
from workers.diffusion.families.parts import Role
from workers.diffusion.lora.weights import TrainedLora

# How ss_base_model_version begins: A1111's word for it. A1111 hides a LoRA from checkpoints of another version.
SD_VERSIONS = {"sd_v1": "SD1", "sd_v2": "SD2", "sdxl_": "SDXL"}


@dataclass(frozen=True)
class About:
    """What only the caller knows."""

    title: str
    trigger_word: str = ""
    subject_tags: Sequence[str] = ()  # that go with the trigger in every prompt
    description: str = ""
    author: str = ""
    license: str = ""  # of the base model, as a rule
    session_id: str = ""  # an id of the caller for whatever made the LoRA


def ss_metadata(lora: TrainedLora, base: Family, about: About) -> dict[str, str]:
    """What sd-scripts writes, and A1111 and LoRA managers show."""
    params = lora.params
    finished = lora.finished_at.timestamp()
    size = f"{params.resolution or base.row.resolution}"
    args = {"conv_dim": str(params.rank), "conv_alpha": str(params.alpha)} if params.lora_modules == "all" else {}
    precision = base.precision(params.precision)
    text_encoder_rates = [part.rate(params) for part in base.parts if part.role is Role.TEXT_ENCODER]
    facts: dict[str, Any] = {
        "ss_base_model_version": base.kohya_version,
        "ss_v2": base.kohya_version.startswith("sd_v2"),
        "ss_sd_model_name": base.row.name,
        "ss_new_sd_model_hash": base.row.sha256 or None,
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
        "ss_text_encoder_lr": max(text_encoder_rates, default=0.0) or None,
        "ss_lr_scheduler": params.lr_scheduler,
        "ss_lr_warmup_steps": params.warmup_steps,
        "ss_optimizer": "torch.optim.AdamW",
        "ss_total_batch_size": params.batch_size * params.gradient_accumulation,
        "ss_gradient_accumulation_steps": params.gradient_accumulation,
        "ss_gradient_checkpointing": params.gradient_checkpointing,
        "ss_max_grad_norm": params.max_grad_norm,
        "ss_mixed_precision": "no" if precision == "fp32" else precision,
        "ss_seed": params.seed,
        "ss_resolution": f"({size}, {size})",
        "ss_min_snr_gamma": params.min_snr_gamma if base.noise.prediction_type == "epsilon" else None,
        "ss_noise_offset": params.noise_offset or None,
        "ss_caption_dropout_rate": params.caption_dropout,
        "ss_shuffle_caption": params.caption_variants > 1,
        "ss_keep_tokens": 1,
        "ss_clip_skip": params.clip_skip + base.kohya_clip_skip,
        "ss_zero_terminal_snr": base.noise.zero_terminal_snr,
        "ss_dataset_dirs": json.dumps({about.title: {"n_repeats": 1, "img_count": lora.images}}),
        "ss_tag_frequency": json.dumps({about.title: lora.tag_counts}),
    }
    return {key: str(value) for key, value in facts.items()}


def sidecar(base: Family, about: About) -> str:
    """The JSON that A1111 and Forge read beside a LoRA file: what their LoRA card shows and adds to a prompt."""
    version = next((name for start, name in SD_VERSIONS.items() if base.kohya_version.startswith(start)), "Unknown")
    license_ = about.license or base.row.license
    facts = {
        "description": about.description,
        "sd version": version,
        "activation text": ", ".join(filter(None, [about.trigger_word, *about.subject_tags])),
        "preferred weight": 1.0,
        "negative text": "",
        "notes": f"base model: {base.row.name}" + (f"; license: {license_}" if license_ else ""),
    }
    return json.dumps(facts, indent=1, ensure_ascii=False)


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
        "prediction_type": {"v_prediction": "v"}.get(base.noise.prediction_type, base.noise.prediction_type),
    }
    inherited = {"commercial_use": base.row.commercial_use, "hosting": base.row.hosting}
    return {f"modelspec.{key}": value for key, value in facts.items() if value} | {
        f"bootlora.{key}": value for key, value in inherited.items()
    }
