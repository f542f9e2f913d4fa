"""The text encoder, trained on text alone: from its states one must be able to read every tag of the caption.

Trained jointly with the UNet it collapses, and colours are never obeyed; so it learns first, and is then frozen.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .captions import LETTERS, caption_tags
from .config import TextConfig
from .data import Record
from .loop import Loop, learning_rate
from .muon import Muon
from .tokenizer import MAX_LENGTH, TagEncoder
from .world import all_tags, sample_character, sample_shot
from .world.tags import feature_parts

TAGS = {tag: i for i, tag in enumerate(all_tags())}


def make_text_encoder(config: TextConfig, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.width,
            intermediate_size=config.width * 8 // 3,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            max_position_embeddings=MAX_LENGTH,
            projection_dim=config.width,
            hidden_act="quick_gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def sample_record(rng: np.random.Generator) -> Record:
    """A record without its picture: any part may happen to be seen."""
    character = sample_character(rng)
    parts = {part for _, part in feature_parts(character)}
    return Record(character, sample_shot(rng), frozenset(p for p in sorted(parts) if rng.random() < 0.85))


def targets(tags: list[str]) -> np.ndarray:
    """Which tags are said, and which letters a name has: a LoRA can only bind to a name that differs from others."""
    y = np.zeros(len(TAGS) + len(LETTERS), np.float32)
    for tag in tags:
        if tag in TAGS:
            y[TAGS[tag]] = 1
        else:
            y[[len(TAGS) + LETTERS.index(c) for c in tag if c in LETTERS]] = 1
    return y


def text_batch(encode: TagEncoder, size: int, seed: tuple[int, int]) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    captions = [caption_tags(sample_record(rng), rng) for _ in range(size)]
    return torch.tensor([encode(c) for c in captions]), torch.from_numpy(np.stack([targets(c) for c in captions]))


def train_text(config: TextConfig, tokenizer: CLIPTokenizer, folder: Path, seed: int) -> CLIPTextModel:
    torch.manual_seed(seed)
    encode = TagEncoder(tokenizer)
    model = make_text_encoder(config, tokenizer)
    head = nn.Linear(config.width, len(TAGS) + len(LETTERS))
    both = nn.ModuleDict({"model": model, "head": head})
    optimizer = Muon(both)

    def step_fn(step: int) -> dict[str, float]:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config.steps, config.learning_rate, warmup=100, decay=0.8)
        ids, y = text_batch(encode, config.batch, (seed, step))
        logits = head(model(ids).last_hidden_state.mean(1))
        loss = binary_cross_entropy_with_logits(logits, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(both.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return {"loss": loss.item(), **recall(logits, y)}

    Loop(folder, "text", {"both": both, "optimizer": optimizer}, step_fn).run(config.steps)
    return model.eval().requires_grad_(False)


def recall(logits: Tensor, y: Tensor) -> dict[str, float]:
    """The share of what was said that can be read: of tags, and of the letters of names."""
    found, said = (logits > 0) & (y > 0), y > 0
    n = len(TAGS)
    return {
        "tags": (found[:, :n].sum() / said[:, :n].sum()).item(),
        "letters": (found[:, n:].sum() / said[:, n:].sum().clamp(min=1)).item(),
    }
