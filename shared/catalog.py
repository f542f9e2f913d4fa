"""The tables of every name that a client may choose. Stdlib only: the API knows them all without torch.

Code is named by dotted path as text, so that nothing here imports the workers. To add a row is to
add the thing; a test resolves every path.
"""

from __future__ import annotations

import importlib
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from shared.tokens import CLIP, TextLimit

# What a picture shows of her, and the tag that says so (danbooru's words, which the base models were trained on).
VIEWS = {
    "front": "looking at viewer",
    "three-quarter": "three-quarter view",
    "side": "from side",
    "behind": "from behind",
    "above": "from above",
    "below": "from below",
}
FRAMINGS = {"full_body": "full body", "upper_body": "upper body", "portrait": "portrait"}

# Words of a feature tag that a view or a framing can't show. Naming them there would teach a lie.
HIDDEN_BY_VIEW: dict[str, tuple[str, ...]] = {
    "behind": ("eyes", "smile", "mouth", "glasses", "blush", "freckles"),
    "above": ("shoes", "boots"),
}
HIDDEN_BY_FRAMING: dict[str, tuple[str, ...]] = {
    "portrait": ("tail", "pants", "skirt", "shorts", "shoes", "boots", "socks", "thighhighs", "legs", "belt", "gloves"),
    "upper_body": ("shoes", "boots", "socks", "thighhighs", "legs"),
}

CAPTION_POLICIES = ("full", "prune", "mixed")
LR_SCHEDULERS = ("constant", "linear", "cosine")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
LORA_MODULES = ("attention", "attention_ff", "all")  # "all": attention, feed-forward, projections and convolutions

# Samplers by the noise that a family was trained on (workers/diffusion/noise/); each family's row says which it offers.
DISCRETE_SAMPLERS = ("ddim", "euler", "euler_a", "dpmpp_2m", "dpmpp_2m_karras", "unipc")
FLOW_SAMPLERS = ("euler", "dpmpp_2m", "unipc")
SAMPLERS = tuple(dict.fromkeys(DISCRETE_SAMPLERS + FLOW_SAMPLERS))

# What draws the views that a round's dataset does not show yet.
VIEWS_FROM = ("style_lora",)

CROP_MODES = ("quadrants", "boxes", "auto")

# What a generator must not be asked for, whatever the client's rights (found as whole words in any tag or prompt).
DENIED_TAGS = frozenset({"loli", "shota", "lolicon", "shotacon", "nsfw", "nude", "naked", "sex", "child porn"})


@dataclass(frozen=True)
class Family:
    """An architecture: where its code is, and what suits it. Defaults fill the `None`s of a plan."""

    code: str  # dotted path of the class in workers.diffusion.families
    train: dict[str, Any] = field(default_factory=dict)
    character_train: dict[str, Any] = field(default_factory=dict)  # what the character round does otherwise
    generate: dict[str, Any] = field(default_factory=dict)
    score: dict[str, Any] = field(default_factory=dict)
    gather: dict[str, Any] = field(default_factory=dict)  # how a style round draws its candidates
    samplers: tuple[str, ...] = DISCRETE_SAMPLERS  # which of SAMPLERS can draw with it
    text_limit: TextLimit | None = None  # how much of a prompt its text encoder reads; None: all of it
    quality_tags: tuple[str, ...] = ()  # appended to every prompt that the service itself writes


FAMILIES = {
    "chibi": Family(
        code="workers.diffusion.families.chibi:Chibi",
        train={
            "rank": 8,
            "alpha": 8.0,
            # On four crops the smallest adapter keeps most of what the base knows of the views that they don't show.
            "lora_modules": "attention",
            "learning_rate": 2e-3,
            "train_steps": 160,
            "batch_size": 8,
            "min_snr_gamma": 0.0,
        },
        # Attention alone is too little to hold her; without pictures of others she comes uncalled as well.
        character_train={"lora_modules": "all", "train_steps": 240, "prior_images": 24},
        generate={
            "inference_steps": 12,
            "guidance_scale": 3.0,
            "sampler": "dpmpp_2m",
            "negative_prompt": "",
            "batch_size": 16,
        },
        # True pictures from all sides score 0.42 and more in nine of ten cases, near doubles 0.17 in half of them.
        score={"scorer": "reader", "min_score": 0.3, "min_view_score": 0.35},
        gather={"candidates_per_pick": 4.0, "lora_weight": 0.5},
        text_limit=CLIP,
        quality_tags=("cel shading", "white background"),
    ),
    "sd15": Family(
        code="workers.diffusion.families.sd15:StableDiffusion15",
        train={
            "rank": 16,
            "alpha": 8.0,
            "lora_modules": "attention_ff",
            "learning_rate": 3e-4,
            "train_steps": 800,
            "batch_size": 2,
            "min_snr_gamma": 5.0,
        },
        # No `prior_images`: what they bring was measured with chibi alone, and they double the work of a step.
        character_train={"learning_rate": 5e-4, "train_steps": 1600},
        generate={
            "inference_steps": 28,
            "guidance_scale": 7.0,
            "sampler": "dpmpp_2m_karras",
            "negative_prompt": "lowres, bad anatomy, bad hands, worst quality, low quality, watermark",
            "batch_size": 4,
        },
        score={"scorer": "plain"},
        text_limit=CLIP,
        quality_tags=("masterpiece", "best quality", "white background"),
    ),
}


@dataclass(frozen=True)
class BaseModel:
    """A checkpoint of a family. `path` is a local folder or single file; the settings may add more."""

    name: str
    family: str
    path: str
    resolution: int
    prediction_type: str = "epsilon"
    config: str = ""  # for a single file: a diffusers folder with its configs and tokenizer
    license: str = ""
    description: str = ""


BASE_MODELS = {
    "chibi": BaseModel(
        name="chibi",
        family="chibi",
        path="models/chibi/base",
        resolution=128,
        prediction_type="v_prediction",
        license="Apache-2.0",
        description="A tiny base model of our own that draws chibi figures; runs on a CPU.",
    )
}


def base_models(models_file: Path | None = None) -> dict[str, BaseModel]:
    """The base models of this installation: those that ship, and those of its own TOML file.

    A row of the file is a table `[name]` with the fields of `BaseModel`; a relative `path` or `config` is taken
    from the file's folder.
    """
    models = {
        name: replace(row, path=str(Path(__file__).resolve().parent.parent / row.path))
        for name, row in BASE_MODELS.items()
    }
    if models_file is not None:
        for name, row in tomllib.loads(models_file.read_text()).items():
            places = {key: str((models_file.parent / row[key]).resolve()) for key in ("path", "config") if row.get(key)}
            models[name] = BaseModel(name=name, **(row | places))
            if models[name].family not in FAMILIES:
                raise ValueError(f"{models_file}: base model {name!r} is of the unknown family {models[name].family!r}")
    return models


@dataclass(frozen=True)
class Queue:
    """What is special about the jobs of a queue."""

    capped: bool = False  # while they wait, they count towards `max_queued_jobs`
    metered: bool = False  # their seconds are added to the user's and the project's `gpu_seconds`
    uses_device: bool = False  # they run on BOOTLORA_DEVICE, so their worker does not start without it


QUEUES = {
    "gpu": Queue(capped=True, metered=True, uses_device=True),
    "cpu": Queue(),
}
FORMER_QUEUES = {"io": "cpu"}  # what they are called in rows that an older version has written, and today

# Which code judges candidates.
SCORERS = {
    "plain": "workers.scorers.plain:PlainScorer",  # colours and where they lie: for pictures of any kind
    "reader": "workers.scorers.reader:ReaderScorer",  # attributes and views of the chibi world
}


def resolve(code: str) -> Any:
    """The object that a dotted path `package.module:name` names; imported only now."""
    module, _, name = code.partition(":")
    return getattr(importlib.import_module(module), name)
