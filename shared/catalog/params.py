"""The parameters of rounds, trainings, drawings and scorings. Each is declared once, here.

The defaults are neutral. The family of the base model may override them (`catalog.FAMILIES`); a client overrides both.
"""

from __future__ import annotations

from dataclasses import dataclass

from shared import catalog
from shared.lifecycle import RoundKind
from shared.records import field

MIN_SIDE = 32  # pixels
MAX_SIDE = 2048
MAX_BATCH = 64  # pictures drawn or trained at once
MAX_SEED = 2**31 - 1
MAX_CLIP_SKIP = 11  # a family may allow less
CLIP_SKIP = (
    "Last layers of the text encoder that are left out. 0 is the layer that the base model was trained on. "
    "With SD 1.x, other tools' clip skip is one more (theirs 2 is 1 here); with SDXL two more (theirs 2 is 0)."
)
MAX_CANDIDATES = 200  # in one job
MIN_STRENGTH = 0.01
DEFAULT_STRENGTH = 0.6  # of a drawing from another picture: keeps its layout
# Mostly full body, which shows all of her, and a few closer pictures for the face.
DEFAULT_FRAMINGS = {"full_body": 3, "upper_body": 1, "portrait": 1}


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainParams:
    """One LoRA training run. A value that is left out or null gets the default of the base model's family."""

    # the adapter
    rank: int = field(
        16, bounds=(1, 256), help="Rank of the adapter. A higher one can learn more detail, and makes a larger file."
    )
    alpha: float = field(16.0, bounds=(0.01, 1024), help="The adapter is applied at alpha / rank.")
    lora_modules: str | None = field(None, one_of=catalog.LORA_MODULES, help="Which modules carry the adapter.")

    # the optimizer
    learning_rate: float = field(3e-4, bounds=(1e-7, 1))
    text_encoder_learning_rate: float = field(0.0, bounds=(0, 1), help="0: the text encoder is not trained.")
    lr_scheduler: str = field("cosine", one_of=catalog.LR_SCHEDULERS)
    warmup_steps: int = field(10, bounds=(0, 10_000))
    weight_decay: float = field(0.01, bounds=(0, 1))
    max_grad_norm: float = field(1.0, bounds=(0, 1000), help="Gradients are clipped to this norm.")
    train_steps: int = field(400, bounds=(1, 20_000))
    batch_size: int = field(4, bounds=(1, 64))
    gradient_accumulation: int = field(1, bounds=(1, 64), help="Batches summed before each optimizer step.")

    # the pictures and captions
    resolution: int | None = field(
        None, bounds=(32, MAX_SIDE), help="Pictures are trained at about the area of a square of this side, in pixels."
    )
    clip_skip: int = field(0, bounds=(0, MAX_CLIP_SKIP), help=CLIP_SKIP)
    caption_variants: int = field(4, bounds=(1, 64), help="Shuffled captions cached for each image.")
    caption_dropout: float = field(
        0.05, bounds=(0, 1), help="Share of draws with an empty caption, for classifier-free guidance."
    )
    prior_images: int = field(
        0,
        bounds=(0, 1000),
        help="Pictures of other characters, drawn by the base model and trained too, so that it still draws these.",
    )
    prior_weight: float = field(1.0, bounds=(0, 100), help="Weight of the loss on those pictures.")

    # the loss
    min_snr_gamma: float = field(5.0, bounds=(0, 100), help="For epsilon models only. 0 turns it off.")
    noise_offset: float = field(0.0, bounds=(0, 1))

    # the run
    precision: str = field(
        "auto", one_of=catalog.PRECISIONS, help="`auto`: bf16 where the hardware is faster with it, else fp32."
    )
    gradient_checkpointing: bool = field(False, help="Less memory for more time.")
    checkpoint_every_steps: int = field(50, bounds=(1, 20_000))
    seed: int = field(0, bounds=(0, 2**20), help="The same seed trains the same LoRA.")


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerateParams:
    """How pictures are drawn. A value that is left out or null gets the default of the base model's family."""

    width: int | None = field(
        None, bounds=(MIN_SIDE, MAX_SIDE), help="Pixels: a multiple of 8. The base model's resolution bounds the area."
    )
    height: int | None = field(
        None, bounds=(MIN_SIDE, MAX_SIDE), help="Pixels: a multiple of 8. The base model's resolution bounds the area."
    )
    inference_steps: int | None = field(None, bounds=(1, 150))
    guidance_scale: float | None = field(None, bounds=(0, 50))
    sampler: str | None = field(None, one_of=catalog.SAMPLERS)
    negative_prompt: str | None = field(None, length=(0, 2_000))
    clip_skip: int | None = field(
        None, bounds=(0, MAX_CLIP_SKIP), help="As in the training, whose value is the default. 0: none is left out."
    )
    prompt_syntax: str = field(
        "plain",
        one_of=catalog.PROMPT_SYNTAXES,
        help="How prompts are read. `weighted`: `(x:1.2)`, `(x)` and `[x]` are weights, `BREAK` begins a new chunk.",
    )
    batch_size: int | None = field(
        None, bounds=(1, MAX_BATCH), help="Pictures drawn at once. Fewer large ones are allowed than small ones."
    )
    precision: str = field("auto", one_of=catalog.PRECISIONS)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreParams:
    """How candidates are chosen when `curation` is `auto`."""

    scorer: str | None = field(None, one_of=catalog.SCORERS)
    min_score: float = field(0.0, bounds=(-1, 1), help="A candidate that scores less is never accepted.")
    min_view_score: float = field(
        0.0, bounds=(-1, 1), help="If a view's best candidates score less than this on average, none is accepted."
    )
    near_duplicate_bits: int = field(
        4,
        bounds=(0, 64),
        help="A candidate that differs in at most this many of 64 bits from an accepted one is dropped.",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundPlan:
    """One round. A value that is left out or null gets the default of the base model's family."""

    kind: RoundKind = field(help="A plan ends with its one character round.")
    target: int = field(
        0, bounds=(1, 1_000), help="Pictures in the dataset when the round ends. A style round needs it."
    )
    views_from: str = field(
        "style_lora", one_of=catalog.VIEWS_FROM, help="What draws the views that the dataset lacks."
    )
    caption_policy: str = field("full", one_of=catalog.CAPTION_POLICIES)
    views: list[str] = field(factory=lambda: list(catalog.VIEWS), one_of=catalog.VIEWS, length=(1, len(catalog.VIEWS)))
    framings: dict[str, int] = field(
        factory=lambda: dict(DEFAULT_FRAMINGS),
        one_of=catalog.FRAMINGS,
        bounds=(1, 100),
        length=(1, len(catalog.FRAMINGS)),
        help="How often each framing is drawn, relative to the others.",
    )
    prompt_tags: list[str] = field(factory=list, length=(0, 30), help="Appended to every prompt.")
    candidates_per_pick: float = field(
        2.0,
        bounds=(1, 10),
        help=f"How many candidates are drawn for each missing picture; at most {MAX_CANDIDATES} at once.",
    )
    max_generations: int = field(3, bounds=(1, 20), help="How often `auto` may draw before it asks a person.")
    lora_weight: float = field(
        1.0,
        bounds=(0.05, 2),
        help="Weight of the style LoRA for candidates. With a low weight, they look more like the base model's.",
    )
    enough: int = field(
        0,
        bounds=(1, 1_000),
        help="`auto` continues with this many pictures if it can't get more. By default three quarters of the target.",
    )
    train: TrainParams = field(TrainParams())
    generate: GenerateParams = field(GenerateParams())
    score: ScoreParams = field(ScoreParams())


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The rounds of a project. By default style rounds to 16 and 40 pictures, then the character round."""

    rounds: list[RoundPlan] = field(length=(1, 8))


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredPicture:
    """A picture in the store, as a PNG that the service has written."""

    key: str
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Original:
    """The picture that another is drawn from."""

    image_id: str
    image: StoredPicture
    mask: StoredPicture | None = None  # grey, of the size of the image: white is drawn anew, black stays. None: no mask
    strength: float  # share of the steps that are drawn; with 1, nothing of the original is left where it may change
    width: int  # pixels: the size at which it is drawn
    height: int


@dataclass(frozen=True, kw_only=True, slots=True)
class WantedPicture:
    """One picture to draw. The same seed gives the same noise on any machine."""

    prompt: str
    seed: int
    view: str | None = None  # a name from catalog.VIEWS; the requested one, stored with the image
    framing: str | None = None  # a name from catalog.FRAMINGS
    original: Original | None = None  # None: drawn from noise alone
