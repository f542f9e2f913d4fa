"""Base-model families: the code of each, what it offers, and its default parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shared.catalog.lineages import SDXL_LINEAGES, Lineage
from shared.catalog.tokens import TextLimit
from shared.catalog.vocabulary import DISCRETE_SAMPLERS, PROMPT_SYNTAXES

# diffusers' words for the parts of a base model: its folders have them, and so do keys of LoRA files.
UNET, VAE, TEXT_ENCODER, TEXT_ENCODER_2 = "unet", "vae", "text_encoder", "text_encoder_2"


@dataclass(frozen=True)
class FamilyRow:
    """An architecture.

    Its values override the neutral defaults of `params.py`; a client overrides both. It must give what is None there:
    `lora_modules`, `inference_steps`, `guidance_scale`, `sampler`, `negative_prompt`, `batch_size` and `scorer`.
    """

    code: str  # dotted path of the class in workers.diffusion.families
    title: str = ""  # for messages
    # How metadata of base models and LoRAs names it. Both words are written by the family's class.
    architectures: tuple[str, ...] = ()  # modelspec.architecture; a LoRA's has "/lora" behind it
    kohya_versions: tuple[str, ...] = ()  # how ss_base_model_version begins
    train: dict[str, Any] = field(default_factory=dict)
    character_train: dict[str, Any] = field(default_factory=dict)  # differences of the character round
    v_train: dict[str, Any] = field(default_factory=dict)  # differences of base models that predict v, in every round
    generate: dict[str, Any] = field(default_factory=dict)
    v_generate: dict[str, Any] = field(default_factory=dict)
    score: dict[str, Any] = field(default_factory=dict)
    gather: dict[str, Any] = field(default_factory=dict)  # how a style round draws its candidates
    samplers: tuple[str, ...] = DISCRETE_SAMPLERS  # those of SAMPLERS that it can use
    text_limit: TextLimit | None = None  # how much of a prompt its text encoder reads; None: all of it
    prompt_syntaxes: tuple[str, ...] = ("plain",)  # those of PROMPT_SYNTAXES that it reads
    max_clip_skip: int = 0  # a layer of the text encoder must be left
    # Limits of drawings, whose memory grows with the pixels of a batch.
    side_unit: int = 8  # pixels of one latent; sides are multiples of it
    max_squares: int = 4  # area of one picture, in squares of the base model's resolution
    max_batch_squares: int = 32  # area of all pictures of one batch, likewise
    # Tags that are appended to every prompt that the service itself writes.
    scene_tags: tuple[str, ...] = ()  # they describe the picture
    quality_tags: tuple[str, ...] = ()  # they only improve it, and no training caption holds them
    lineages: Mapping[str, Lineage] = field(default_factory=dict)  # finetunes that were trained on other quality tags


NEGATIVE = "lowres, bad anatomy, bad hands, worst quality, low quality, watermark"

# Of Stable Diffusion 1.x and 2.x, which have nearly the same UNet. OneTrainer's presets have the same rate for both.
SD_TRAIN = {
    "rank": 16,
    "alpha": 8.0,
    "lora_modules": "attention_ff",
    "learning_rate": 3e-4,
    "train_steps": 800,
    "batch_size": 2,
    "min_snr_gamma": 5.0,
}
SD_GENERATE = {
    "inference_steps": 28,
    "guidance_scale": 7.0,
    "sampler": "dpmpp_2m_karras",
    "negative_prompt": NEGATIVE,
    "batch_size": 4,
}
# With zero terminal SNR, Karras' times spend half of the steps on almost pure noise.
SD_V_GENERATE = {"sampler": "dpmpp_2m"}
# The loss of v is larger, above all at much noise. Half the rate is the usual practice.
V_TRAIN = {"learning_rate": 1.5e-4, "min_snr_gamma": 0.0, "noise_offset": 0.0}

FAMILIES = {
    "chibi": FamilyRow(
        code="workers.diffusion.families.chibi:Chibi",
        title="chibi",
        architectures=("bootlora-chibi",),
        kohya_versions=("bootlora_chibi",),
        train={
            "rank": 8,
            "alpha": 8.0,
            # On four crops, the smallest adapter keeps most of the base model's knowledge of the other views.
            "lora_modules": "attention",
            "learning_rate": 2e-3,
            "train_steps": 160,
            "batch_size": 8,
            "min_snr_gamma": 0.0,
        },
        # Attention alone is too small for the character. Without prior pictures she also appears without the trigger.
        character_train={"lora_modules": "all", "train_steps": 240, "prior_images": 24},
        generate={
            "inference_steps": 12,
            "guidance_scale": 3.0,
            "sampler": "dpmpp_2m",
            "negative_prompt": "",
            "batch_size": 16,
        },
        # Nine of ten true pictures from all sides score 0.42 or more, half of the near doubles 0.17 or more.
        score={"scorer": "reader", "min_score": 0.3, "min_view_score": 0.35},
        gather={"candidates_per_pick": 4.0, "lora_weight": 0.5},
        prompt_syntaxes=PROMPT_SYNTAXES,
        max_clip_skip=1,  # of 2 layers
        # Its resolution is small: 64 squares are 4 pictures of 512x512, which take 1.3 GB (benchmarks/drawing.py).
        max_squares=16,
        max_batch_squares=64,
        scene_tags=("cel shading", "white background"),
    ),
    "sd15": FamilyRow(
        code="workers.diffusion.families.sd15:StableDiffusion15",
        title="SD 1.x",
        architectures=("stable-diffusion-v1",),
        kohya_versions=("sd_v1",),
        train=SD_TRAIN,
        # No `prior_images`: they double the work of a step, and their gain was measured with chibi only.
        character_train={"learning_rate": 5e-4, "train_steps": 1600},
        v_train=V_TRAIN,
        generate=SD_GENERATE,
        v_generate=SD_V_GENERATE,
        score={"scorer": "plain"},
        prompt_syntaxes=PROMPT_SYNTAXES,
        max_clip_skip=11,  # of 12 layers
        scene_tags=("white background",),
        quality_tags=("masterpiece", "best quality"),
    ),
    "sd2": FamilyRow(
        code="workers.diffusion.families.sd2:StableDiffusion2",
        title="SD 2.x",
        architectures=("stable-diffusion-v2-512", "stable-diffusion-v2-768-v"),
        kohya_versions=("sd_v2",),
        train=SD_TRAIN,
        character_train={"train_steps": 1600},
        v_train=V_TRAIN,
        generate=SD_GENERATE,
        v_generate=SD_V_GENERATE,
        score={"scorer": "plain"},
        prompt_syntaxes=PROMPT_SYNTAXES,
        max_clip_skip=11,  # as with SD 1.x, though it has 23 layers
        max_squares=2,  # of 768: as much as four of 512
        max_batch_squares=16,
        scene_tags=("white background",),
        quality_tags=("masterpiece", "best quality"),
    ),
    "sdxl": FamilyRow(
        code="workers.diffusion.families.sdxl:StableDiffusionXL",
        title="SDXL",
        architectures=("stable-diffusion-xl-v1-base",),
        kohya_versions=("sdxl_",),
        # Rank 8, alpha 4 and 3e-4 are those of hollowstrawberry's Lora_Trainer_XL for Illustrious, NoobAI, Animagine
        # and Pony. OneTrainer's preset for SDXL has the same rate, and doesn't train the text encoders either.
        train={
            "rank": 8,
            "alpha": 4.0,
            "lora_modules": "attention_ff",
            "learning_rate": 3e-4,
            "train_steps": 600,
            "batch_size": 2,
            "min_snr_gamma": 5.0,
            "gradient_checkpointing": True,  # with it, two pictures of 1024x1024 fit 16 GB (huggingface/diffusers#4470)
        },
        character_train={"rank": 16, "alpha": 8.0, "train_steps": 1500},
        v_train=V_TRAIN,
        # What the cards of Animagine 4, Illustrious and Pony name: Euler a, 25 to 28 steps, guidance of 5 to 7.
        generate={
            "inference_steps": 28,
            "guidance_scale": 6.0,
            "sampler": "euler_a",
            "negative_prompt": NEGATIVE,
            "batch_size": 2,
        },
        v_generate={"sampler": "euler", "guidance_scale": 5.0},  # NoobAI's card: Euler alone, guidance of 4 to 5
        score={"scorer": "plain"},
        prompt_syntaxes=PROMPT_SYNTAXES,
        max_clip_skip=10,  # of 12 layers, the last of which is never used
        max_squares=2,  # SDXL has learned pictures of one square; more than two repeat themselves
        max_batch_squares=8,
        scene_tags=("white background",),
        quality_tags=("masterpiece", "best quality"),
        lineages=SDXL_LINEAGES,
    ),
}


def lineage_named_in(family: str, text: str) -> str:
    """The lineage that a text about a model names, such as its file's name; empty if it names none."""
    lower = text.lower()
    lineages = FAMILIES[family].lineages
    return next((name for name, row in lineages.items() if any(word in lower for word in row.words)), "")


QUALITY_TAGS = frozenset(
    tag
    for row in FAMILIES.values()
    for tags in (row.quality_tags, *(each.quality_tags for each in row.lineages.values()))
    for tag in tags
)
