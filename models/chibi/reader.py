"""The attribute reader: what does this picture show? One serves as tagger and scorer, another judges the bench."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy, interpolate

from .config import ReaderConfig
from .data import PictureSet, Record
from .loop import Loop, learning_rate
from .muon import Muon
from .vae import to_tensor
from .world import VIEWS, palette

SIZE = 128  # pixels; other pictures are scaled to it
BACKGROUNDS = (*palette.BACKDROP, *palette.SCENES)
HEADS: dict[str, tuple[str, ...]] = {
    "hair": tuple(palette.HAIR),
    "hair_style": palette.HAIR_STYLES,
    "eyes": tuple(palette.EYES),
    "skin": tuple(palette.SKIN),
    "ears": palette.EARS,
    "fur": tuple(palette.FUR),
    "tail": palette.TAILS,
    "outfit": palette.OUTFITS,
    "outfit_color": tuple(palette.CLOTH),
    "bottom": ("none", *palette.BOTTOMS),
    "bottom_color": tuple(palette.BOTTOM),
    "accessory": palette.ACCESSORIES,
    "accessory_color": tuple(palette.TRINKET),
    "view": VIEWS,
    "framing": palette.FRAMINGS,
    "style": palette.STYLES,
    "expression": palette.EXPRESSIONS,
    "arms": palette.ARMS,
    "background": BACKGROUNDS,
}
COLORS = ("hair", "eyes", "skin", "fur", "outfit_color", "bottom_color", "accessory_color", "background")
PART_OF = {
    "hair": "hair", "eyes": "eyes", "skin": "skin", "fur": "ears", "outfit": "outfit", "outfit_color": "outfit",
    "bottom": "outfit", "bottom_color": "bottom", "accessory_color": "accessory",
}  # fmt: skip
UNKNOWN = -100  # what a picture does not show is not asked


def label(record: Record, head: str) -> int:
    """The index of the true value, or UNKNOWN where the picture does not show it."""
    c, shot, seen = record.character, record.shot, record.seen
    if head in COLORS and shot.style == "sketch":
        return UNKNOWN
    if head in PART_OF and PART_OF[head] not in seen:
        return UNKNOWN
    if head == "bottom" and c.bottom != "none" and "bottom" not in seen:
        return UNKNOWN
    if head == "hair_style" and c.hair_style in ("long hair", "twintails", "ponytail") and "tresses" not in seen:
        return UNKNOWN
    if head == "expression" and (shot.view == "behind" or ("eyes" not in seen and shot.expression != "closed eyes")):
        return UNKNOWN
    if head in ("ears", "tail", "accessory"):
        value = getattr(c, head)
        if value != "none" and head not in seen:
            return UNKNOWN
        if head == "tail" and shot.framing != "full body":
            return UNKNOWN
        return HEADS[head].index(value)
    if head == "background":
        return HEADS[head].index(shot.background.split()[0])
    owner = c if hasattr(c, head) else shot
    return HEADS[head].index(getattr(owner, head))


def labels(records: list[Record]) -> dict[str, Tensor]:
    return {head: torch.tensor([label(r, head) for r in records]) for head in HEADS}


def conv(a: int, b: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(a, b, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(b), nn.ReLU(inplace=True)
    )


class Residual(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(conv(channels, channels), conv(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def reader_trunk() -> nn.Sequential:
    """Residual; keeps where things are: 4 x 4 positions, flattened."""
    layers = [conv(3, 32, 4, 5)]
    for a, b in ((32, 64), (64, 96), (96, 128)):
        layers += [conv(a, b, 2), Residual(b)]
    return nn.Sequential(
        *layers, conv(128, 48, 1, 1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(48 * 16, 384), nn.ReLU()
    )


def judge_trunk() -> nn.Sequential:
    """Plain, larger kernels, another way to the same 4 x 4 positions."""
    layers: list[nn.Module] = []
    for a, b in ((3, 16), (16, 40), (40, 80), (80, 112), (112, 128)):
        layers += [conv(a, b, 2, 5 if a < 80 else 3)]
    return nn.Sequential(*layers, conv(128, 128), nn.Flatten(), nn.Dropout(0.3), nn.Linear(128 * 16, 256), nn.GELU())


TRUNKS = {"reader": (reader_trunk, 384), "judge": (judge_trunk, 256)}


class Reader(nn.Module):
    """A trunk, and one linear head for each attribute."""

    def __init__(self, kind: str = "reader"):
        super().__init__()
        trunk, width = TRUNKS[kind]
        self.kind, self.trunk = kind, trunk()
        self.heads = nn.ModuleDict({head: nn.Linear(width, len(values)) for head, values in HEADS.items()})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        if x.shape[-1] != SIZE:
            x = interpolate(x, (SIZE, SIZE), mode="bilinear", antialias=True)
        features = self.trunk(x)
        return {head: layer(features).float() for head, layer in self.heads.items()}

    @torch.no_grad()
    def read(self, pictures: np.ndarray) -> dict[str, Tensor]:
        """Probabilities by head for uint8 pictures (n, h, w, 3)."""
        return {head: logits.softmax(1) for head, logits in self.eval()(to_tensor(np.asarray(pictures))).items()}

    def save(self, folder: Path, card: dict) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        halves = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in self.state_dict().items()}
        save_file(halves, folder / f"{self.kind}.safetensors")
        (folder / f"{self.kind}.json").write_text(json.dumps({"kind": self.kind, "heads": HEADS, **card}, indent=2))

    @staticmethod
    def load(folder: Path, kind: str = "reader") -> "Reader":
        reader = Reader(kind)
        weights = load_file(folder / f"{kind}.safetensors")
        reader.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in weights.items()})
        return reader.eval()


def soften(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Noise and blur, so that generated pictures, which are soft, are read as well as renders."""
    if rng.random() < 0.5:
        factor = int(rng.integers(2, 4))
        x = interpolate(avg_pool2d(x, factor), x.shape[-2:], mode="bilinear")
    return x + torch.randn_like(x) * float(rng.uniform(0, 0.12))


@dataclass
class Accuracy:
    right: int = 0
    asked: int = 0

    @property
    def share(self) -> float:
        return self.right / max(1, self.asked)


def accuracy(reader: Reader, pictures: PictureSet) -> dict[str, float]:
    """By head, over the pictures that show it."""
    truth, tallies = labels(pictures.records), {head: Accuracy() for head in HEADS}
    for start in range(0, len(pictures), 64):
        rows = range(start, min(start + 64, len(pictures)))
        for head, probabilities in reader.read(pictures.pictures(rows)).items():
            wanted = truth[head][rows.start : rows.stop]
            asked = wanted != UNKNOWN
            tallies[head].right += int((probabilities.argmax(1) == wanted)[asked].sum())
            tallies[head].asked += int(asked.sum())
    return {head: round(t.share, 3) for head, t in tallies.items()}


def train_reader(kind: str, config: ReaderConfig, pictures: PictureSet, folder: Path, seed: int) -> Reader:
    torch.manual_seed(seed)
    reader, truth = Reader(kind), labels(pictures.records)
    optimizer = Muon(reader)

    def step_fn(step: int) -> dict[str, float]:
        reader.train()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config.steps, config.learning_rate, decay=0.7)
        rng = np.random.default_rng((seed, step))
        rows = rng.integers(0, len(pictures), config.batch)
        x = to_tensor(pictures.pictures(rows))
        x = soften(x.flip(3) if rng.random() < 0.5 else x, rng)
        with torch.autocast("cpu", torch.bfloat16):
            logits = reader(x)
        losses = [cross_entropy(logits[h], truth[h][rows], ignore_index=UNKNOWN) for h in HEADS]
        loss = torch.stack([part for part in losses if not part.isnan()]).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return {"loss": loss.item()}

    Loop(folder, kind, {"reader": reader, "optimizer": optimizer}, step_fn).run(config.steps)
    return reader.eval()
