"""Training of readers on renders, and their accuracy on characters that they have never seen."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, cross_entropy, interpolate, pad

from models.chibi.reader import Reader
from models.chibi.reader.network import mirrored
from models.chibi.reader.pixels import to_tensor

from . import machine
from .config import ReaderConfig
from .data import PictureSet
from .labels import HEADS, UNKNOWN, labels
from .loop import Loop, learning_rate
from .muon import Muon

SHIFT = 6  # pixels, at most


def shifted(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Each picture moved by a few pixels, so that no picture is learned by heart by where its edges lie."""
    padded = pad(x, (SHIFT,) * 4, mode="replicate")
    size = x.shape[-1]
    corners = rng.integers(0, 2 * SHIFT + 1, (len(x), 2))
    return torch.stack([p[:, i : i + size, j : j + size] for p, (i, j) in zip(padded, corners, strict=True)])


def soften(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Noise and blur, so that generated pictures, which are soft, are read as well as renders."""
    if rng.random() < 0.5:
        factor = int(rng.integers(2, 4))
        x = interpolate(avg_pool2d(x, factor), x.shape[-2:], mode="bilinear")
    return x + torch.randn_like(x) * float(rng.uniform(0, 0.12))


def turned_labels(head: str, truth: Tensor) -> Tensor:
    """The labels of the mirror images: what was on the left is on the right."""
    places = torch.tensor(mirrored(HEADS[head]))
    return torch.where(truth == UNKNOWN, truth, places[truth.clamp(min=0)])


def weighed(logits: Tensor, wanted: Tensor) -> Tensor:
    """Cross entropy of one head, less of it where few pictures show what is asked: their mean is mostly noise."""
    asked = (wanted != UNKNOWN).sum()
    total = cross_entropy(logits, wanted, ignore_index=UNKNOWN, reduction="sum")
    return total / (asked * len(wanted)).clamp(min=1).sqrt()


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


def train_reader(kind: type[Reader], config: ReaderConfig, pictures: PictureSet, folder: Path, seed: int) -> Reader:
    torch.manual_seed(seed)
    place = machine.device()
    reader, truth = kind(HEADS).to(place), labels(pictures.records)
    optimizer = Muon(reader)
    turned = {head: turned_labels(head, truth[head]) for head in HEADS}

    def step_fn(step: int) -> dict[str, float]:
        reader.train()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config.steps, config.learning_rate, decay=0.7)
        rng = np.random.default_rng((seed, step))
        rows = rng.integers(0, len(pictures), config.batch)
        x = to_tensor(pictures.pictures(rows)).to(place)
        flipped = rng.random() < 0.5
        x = soften(shifted(x.flip(3) if flipped else x, rng), rng)
        wanted = turned if flipped else truth
        with machine.autocast():
            logits = reader(x)
        loss = torch.stack([weighed(logits[head], wanted[head][rows].to(place)) for head in HEADS]).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return {"loss": loss.item()}

    Loop(folder, kind.kind, {"reader": reader, "optimizer": optimizer}, step_fn).run(config.steps)
    return reader.cpu().eval()
