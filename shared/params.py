"""What a training and a generation can be told: written once, used by the API, the rows and the torch code."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TrainParams:
    """One LoRA training run. `None` means: the default of the base model's family."""

    # the adapter
    rank: int = 16  # detail of the adapter; its file grows with it
    alpha: float = 16.0  # the adapter is applied at alpha / rank
    lora_modules: str | None = None  # which modules carry it: a name from catalog.LORA_MODULES

    # the optimizer
    learning_rate: float = 3e-4
    text_encoder_learning_rate: float = 0.0  # 0: the text encoder is left alone
    lr_scheduler: str = "cosine"  # a name from catalog.LR_SCHEDULERS
    warmup_steps: int = 10
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    train_steps: int = 400
    batch_size: int = 4
    gradient_accumulation: int = 1  # batches summed before each optimizer step

    # what is learned from
    resolution: int | None = None  # pixels of the shorter side
    caption_variants: int = 4  # shuffled captions cached for each image
    caption_dropout: float = 0.05  # share of draws with an empty caption, for classifier-free guidance
    prior_images: int = 0  # pictures of others, drawn by the base model, that keep the class as it was
    prior_weight: float = 1.0  # weight of their loss

    # the loss
    min_snr_gamma: float = 5.0  # epsilon models only; 0 turns it off
    noise_offset: float = 0.0

    # the run
    precision: str = "auto"  # a name from catalog.PRECISIONS; auto: bf16 where the hardware is faster with it
    gradient_checkpointing: bool = False
    checkpoint_every_steps: int = 50
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class GenerateParams:
    """How pictures are drawn. `None` means: the default of the base model's family."""

    width: int | None = None  # pixels
    height: int | None = None
    inference_steps: int | None = None
    guidance_scale: float | None = None
    sampler: str | None = None  # a name from catalog.SAMPLERS
    negative_prompt: str | None = None
    clip_skip: int = 0
    batch_size: int | None = None
    precision: str = "auto"  # a name from catalog.PRECISIONS


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture to be drawn. The same seed draws the same noise on any machine."""

    prompt: str
    seed: int
    view: str | None = None  # a name from catalog.VIEWS: what was asked for, kept with the image
    framing: str | None = None  # a name from catalog.FRAMINGS


@dataclass(frozen=True, kw_only=True)
class ScoreParams:
    """How candidates are chosen when nobody looks."""

    scorer: str | None = None  # a name from catalog.SCORERS
    min_score: float = 0.0  # a candidate below this is never taken
    min_view_score: float = 0.0  # a view whose best candidates are below this on average is left out as a whole
    near_duplicate_bits: int = 4  # of 64: a candidate this near to a taken one is left out
