"""Plans: as much as a client says, and the whole of it as it was resolved."""

from __future__ import annotations

from marshmallow import fields
from marshmallow.validate import Length

from api.schemas.choices import (
    CaptionPolicy,
    Framing,
    LoraModules,
    LrScheduler,
    Precision,
    RoundKind,
    Sampler,
    Scorer,
    View,
    Views,
)
from api.schemas.fields import Answer, Flag, Real, Schema, Tags, Text, Whole
from shared.catalog import FRAMINGS
from shared.plans import MAX_CANDIDATES

MAX_SIDE = 2048
MAX_SEED = 2**31 - 1


class TrainParamsSchema(Schema):
    """One LoRA training run. What is left out or null is the default of the base model's family."""

    rank = Whole(1, 256, allow_none=True, metadata={"description": "Detail of the adapter; its file grows with it."})
    alpha = Real(0.01, 1024, allow_none=True, metadata={"description": "The adapter is applied at alpha / rank."})
    lora_modules = LoraModules(allow_none=True, metadata={"description": "Which modules carry the adapter."})
    learning_rate = Real(1e-7, 1, allow_none=True)
    text_encoder_learning_rate = Real(0, 1, allow_none=True, metadata={"description": "0: it is left alone."})
    lr_scheduler = LrScheduler(allow_none=True)
    warmup_steps = Whole(0, 10_000, allow_none=True)
    weight_decay = Real(0, 1, allow_none=True)
    max_grad_norm = Real(0, 1000, allow_none=True)
    train_steps = Whole(1, 20_000, allow_none=True)
    batch_size = Whole(1, 64, allow_none=True)
    gradient_accumulation = Whole(1, 64, allow_none=True)
    resolution = Whole(32, MAX_SIDE, allow_none=True, metadata={"description": "Pixels of the shorter side."})
    caption_variants = Whole(1, 64, allow_none=True)
    caption_dropout = Real(0, 1, allow_none=True)
    prior_images = Whole(0, 1000, allow_none=True)
    prior_weight = Real(0, 100, allow_none=True)
    min_snr_gamma = Real(0, 100, allow_none=True)
    noise_offset = Real(0, 1, allow_none=True)
    precision = Precision(allow_none=True)
    gradient_checkpointing = Flag(allow_none=True)
    checkpoint_every_steps = Whole(1, 20_000, allow_none=True)
    seed = Whole(0, 2**20, allow_none=True)


class GenerateParamsSchema(Schema):
    """How pictures are drawn. What is left out or null is the default of the base model's family."""

    width = Whole(32, MAX_SIDE, allow_none=True)
    height = Whole(32, MAX_SIDE, allow_none=True)
    inference_steps = Whole(1, 150, allow_none=True)
    guidance_scale = Real(0, 50, allow_none=True)
    sampler = Sampler(allow_none=True)
    negative_prompt = Text(2_000, min_length=0, allow_none=True)
    clip_skip = Whole(0, 4, allow_none=True)
    batch_size = Whole(1, 64, allow_none=True)
    precision = Precision(allow_none=True)


class ScoreParamsSchema(Schema):
    """How candidates are chosen when nobody looks."""

    scorer = Scorer(allow_none=True)
    min_score = Real(-1, 1, allow_none=True)
    min_view_score = Real(-1, 1, allow_none=True)
    near_duplicate_bits = Whole(0, 64, allow_none=True)


class RoundPlanSchema(Schema):
    """One round. What is left out is the default of the base model's family."""

    kind = RoundKind(required=True, metadata={"description": "A plan ends with its one character round."})
    target = Whole(
        1,
        1_000,
        metadata={"description": "Pictures in the dataset when the round ends. A style round needs it."},
    )
    caption_policy = CaptionPolicy()
    views = Views()
    framings = fields.Dict(
        keys=Framing(),
        values=Whole(1, 100),
        validate=Length(1, len(FRAMINGS)),
        metadata={"description": "How often each framing is drawn, relative to the others."},
    )
    prompt_tags = Tags(30, metadata={"description": "Appended to every prompt."})
    candidates_per_pick = Real(
        1,
        10,
        metadata={"description": f"How many are drawn for each one that is missing; {MAX_CANDIDATES} at once at most."},
    )
    max_generations = Whole(1, 20, metadata={"description": "How often `auto` may draw before it asks a person."})
    lora_weight = Real(
        0.05,
        2,
        metadata={"description": "How strongly the style LoRA speaks in candidates; less leaves the base its views."},
    )
    enough = Whole(1, 1_000, metadata={"description": "With so many `auto` goes on, when more can't be had."})
    train = fields.Nested(TrainParamsSchema)
    generate = fields.Nested(GenerateParamsSchema)
    score = fields.Nested(ScoreParamsSchema)


class PlanSchema(Schema):
    """How many rounds, of which kind, to which size. Left out: 16, 40, then the character LoRA."""

    rounds = fields.List(fields.Nested(RoundPlanSchema), required=True, validate=Length(1, 8))


class ResolvedRoundSchema(Answer):
    """One round with nothing left open."""

    kind = RoundKind(required=True)
    target = fields.Integer(required=True)
    caption_policy = CaptionPolicy(required=True)
    views = fields.List(View(), required=True)
    framings = fields.Dict(keys=fields.String(), values=fields.Integer(), required=True)
    prompt_tags = fields.List(fields.String(), required=True)
    candidates_per_pick = fields.Float(required=True)
    max_generations = fields.Integer(required=True)
    lora_weight = fields.Float(required=True)
    enough = fields.Integer(required=True)
    train = fields.Nested(TrainParamsSchema, required=True)
    generate = fields.Nested(GenerateParamsSchema, required=True)
    score = fields.Nested(ScoreParamsSchema, required=True)


class ResolvedPlanSchema(Answer):
    rounds = fields.List(fields.Nested(ResolvedRoundSchema), required=True)
