"""The text encoder, trained on text alone: from its states one must be able to read every tag of the caption.

Trained jointly with the UNet it collapses, and colours are never obeyed; so it learns first, and is then frozen. Each
tag must also be read from its own last token and from the comma after it, alone: from "dress" that it is red. So the
UNet, which looks at tokens, need not find out itself whose colour is whose.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from . import machine
from .captions import LETTERS, caption_tags
from .config import TextConfig
from .data import Record
from .loop import Loop, learning_rate
from .muon import Muon
from .tokenizer import MAX_LENGTH, TagEncoder
from .world import all_tags, sample_character, sample_shot
from .world.tags import feature_parts

TAGS = {tag: i for i, tag in enumerate(all_tags())}
NO_TAG = -100
CAPTIONS_EACH = 4  # of one character: to make one up takes longer than to tell of it in other words
EACH_WEIGHT = 0.05  # of the cross entropy of single tags beside that of whole captions


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


@dataclass(frozen=True)
class TextBatch:
    ids: Tensor  # (n, MAX_LENGTH)
    said: Tensor  # (n, tags and letters)
    tag_at: Tensor  # (n, MAX_LENGTH), the tag that ends, or has just ended, at a token; NO_TAG elsewhere

    def to(self, device: torch.device) -> "TextBatch":
        return TextBatch(self.ids.to(device), self.said.to(device), self.tag_at.to(device))


def text_batch(encode: TagEncoder, size: int, seed: tuple[int, int]) -> TextBatch:
    rng = np.random.default_rng(seed)
    records = [sample_record(rng) for _ in range(-(-size // CAPTIONS_EACH))]
    captions = [caption_tags(records[i // CAPTIONS_EACH], rng) for i in range(size)]
    ids, tag_at = np.zeros((size, MAX_LENGTH), int), np.full((size, MAX_LENGTH), NO_TAG)
    for row, caption in enumerate(captions):
        ids[row], ends = encode.with_ends(caption)
        for tag, end in zip(caption, ends, strict=False):
            tag_at[row, end : end + 2] = TAGS.get(tag, NO_TAG)
    said = np.stack([targets(caption) for caption in captions])
    return TextBatch(torch.from_numpy(ids), torch.from_numpy(said), torch.from_numpy(tag_at))


def train_text(config: TextConfig, tokenizer: CLIPTokenizer, folder: Path, seed: int) -> CLIPTextModel:
    torch.manual_seed(seed)
    encode = TagEncoder(tokenizer)
    model = make_text_encoder(config, tokenizer)
    heads = {"said": nn.Linear(config.width, len(TAGS) + len(LETTERS)), "tag_at": nn.Linear(config.width, len(TAGS))}
    everything = nn.ModuleDict({"model": model, **heads}).to(machine.device())
    optimizer = Muon(everything)

    def step_fn(step: int) -> dict[str, float]:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config.steps, config.learning_rate, warmup=100, decay=0.8)
        batch = text_batch(encode, config.batch, (seed, step)).to(machine.device())
        with machine.autocast():
            states = model(batch.ids).last_hidden_state.float()
        asked = batch.tag_at != NO_TAG
        said, tag_at, wanted = heads["said"](states.mean(1)), heads["tag_at"](states[asked]), batch.tag_at[asked]
        each = cross_entropy(tag_at, wanted)
        loss = binary_cross_entropy_with_logits(said, batch.said) + EACH_WEIGHT * each
        loss.backward()
        torch.nn.utils.clip_grad_norm_(everything.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        right = (tag_at.argmax(1) == wanted).float().mean().item()
        return {"loss": loss.item(), "each": right, **recall(said, batch.said)}

    Loop(folder, "text", {"everything": everything, "optimizer": optimizer}, step_fn).run(config.steps)
    return model.cpu().eval().requires_grad_(False)


def recall(logits: Tensor, y: Tensor) -> dict[str, float]:
    """The share of what was said that can be read: of tags, and of the letters of names."""
    found, said = (logits > 0) & (y > 0), y > 0
    n = len(TAGS)
    return {
        "tags": (found[:, :n].sum() / said[:, :n].sum()).item(),
        "letters": (found[:, n:].sum() / said[:, n:].sum().clamp(min=1)).item(),
    }
