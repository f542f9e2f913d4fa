"""Base-model families: where the code of each is, what it offers, and the parameters that suit it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from shared.catalog.tokens import CLIP, TextLimit
from shared.catalog.vocabulary import DISCRETE_SAMPLERS


@dataclass(frozen=True)
class FamilyRow:
    """An architecture. Its values override the neutral defaults of `params.py`; a client overrides both."""

    code: str  # dotted path of the class in workers.diffusion.families
    train: dict[str, Any] = field(default_factory=dict)
    character_train: dict[str, Any] = field(default_factory=dict)  # what the character round does otherwise
    generate: dict[str, Any] = field(default_factory=dict)
    score: dict[str, Any] = field(default_factory=dict)
    gather: dict[str, Any] = field(default_factory=dict)  # how a style round draws its candidates
    samplers: tuple[str, ...] = DISCRETE_SAMPLERS  # which of SAMPLERS can draw with it
    text_limit: TextLimit | None = None  # how much of a prompt its text encoder reads; None: all of it
    # What a drawing may take: memory grows with the pixels that are drawn at once.
    side_unit: int = 8  # pixels: sides are multiples of it, for a latent covers so many
    max_squares: int = 4  # area of one picture, in squares of the base model's resolution
    max_batch_squares: int = 32  # area of all pictures of one batch, likewise
    quality_tags: tuple[str, ...] = ()  # appended to every prompt that the service itself writes


FAMILIES = {
    "chibi": FamilyRow(
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
        # Its squares are small: 64 of them are one picture of 1024x1024, which takes about 1 GB.
        max_squares=16,
        max_batch_squares=64,
        quality_tags=("cel shading", "white background"),
    ),
    "sd15": FamilyRow(
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
