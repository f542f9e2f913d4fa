"""Lineages: finetunes of a family that were trained on quality tags of their own. Stdlib only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Lineage:
    """Base models that descend from one finetune, with the quality tags and the negative prompt of that finetune."""

    words: tuple[str, ...]  # in lower case; a model whose name has one of them is of the lineage
    quality_tags: tuple[str, ...]
    negative_prompt: str


# As their model cards say. The first whose word is found counts, so a descendant comes before its ancestor.
SDXL_LINEAGES = {
    "animagine": Lineage(
        words=("animagine", "anim4gine"),
        quality_tags=("masterpiece", "high score", "great score", "absurdres"),
        negative_prompt=(
            "lowres, bad anatomy, bad hands, text, error, missing finger, extra digits, fewer digits, cropped, "
            "worst quality, low quality, low score, bad score, average score, signature, watermark, username, blurry"
        ),
    ),
    "noobai": Lineage(
        words=("noob", "naixl"),
        quality_tags=("masterpiece", "best quality", "newest", "absurdres", "highres"),
        negative_prompt="worst quality, old, early, low quality, lowres, signature, username, logo, bad hands",
    ),
    "illustrious": Lineage(
        words=("illustrious", "illust"),
        quality_tags=("masterpiece", "best quality", "newest", "absurdres", "highres"),
        negative_prompt="worst quality, low quality, lowres, old, early, bad anatomy, bad hands, watermark",
    ),
    "pony": Lineage(
        words=("pony", "pdxl"),
        # with underscores, as Pony was trained on them
        quality_tags=("score_9", "score_8_up", "score_7_up", "source_anime", "rating_safe"),
        negative_prompt="score_4, score_5",
    ),
}
