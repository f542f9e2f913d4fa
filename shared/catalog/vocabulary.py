"""The words that a client may choose. Stdlib only."""

from __future__ import annotations

# Views and framings with their tags, which are danbooru's, because the base models were trained on these.
VIEWS = {
    "front": "looking at viewer",
    "three-quarter": "three-quarter view",
    "side": "from side",
    "behind": "from behind",
    "above": "from above",
    "below": "from below",
}
FRAMINGS = {"full_body": "full body", "upper_body": "upper body", "portrait": "portrait"}

# Words of feature tags that a view or a framing can't show. A caption that named them there would be wrong.
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

# How a prompt is read: as it stands, or with attention weights and BREAK (shared/prompts.py).
PROMPT_SYNTAXES = ("plain", "weighted")

# How a round gets pictures of views that its dataset lacks.
VIEWS_FROM = ("style_lora",)

CROP_MODES = ("quadrants", "boxes", "auto")

INTENDED_USES = ("commercial", "non_commercial")  # of a project

# The scorers of candidates, with their code.
SCORERS = {
    "plain": "workers.scorers.plain:score",  # colours and their positions, for pictures of any kind
    "reader": "workers.scorers.reader:score",  # attributes and views of the chibi world
}
