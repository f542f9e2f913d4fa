"""Plans that run the whole method in seconds. Their pictures are poor."""

from __future__ import annotations

from typing import Any

QUICK_TRAINING = {"train_steps": 4, "batch_size": 2, "rank": 2, "caption_variants": 1, "checkpoint_every_steps": 2}
QUICK_DRAWING = {"inference_steps": 2, "batch_size": 8}


def small(*, target: int = 6, train_steps: int = 4, checkpoint_every_steps: int = 2) -> dict[str, Any]:
    """One style round, trained as said, and the character round. `auto` is content with the four references."""
    training = QUICK_TRAINING | {"train_steps": train_steps, "checkpoint_every_steps": checkpoint_every_steps}
    style = {"kind": "style", "target": target, "candidates_per_pick": 3, "max_generations": 1, "enough": 4}
    character = {"kind": "character", "train": QUICK_TRAINING | {"prior_images": 2}}
    return {"rounds": [{**each, "generate": QUICK_DRAWING} for each in (style | {"train": training}, character)]}
