"""The network: one look at a picture, and one answer for each question of its card."""

import json
from pathlib import Path
from typing import Self

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import interpolate

from .pixels import to_tensor

SIZE = 128  # pixels; other pictures are scaled to it
Heads = dict[str, tuple[str, ...]]  # a question -> its possible answers


def mirrored(answers: tuple[str, ...]) -> list[int]:
    """Where each answer is found in a mirror image: left and right change places."""
    other = {"left": "right", "right": "left"}
    turned = [" ".join(other.get(word, word) for word in answer.split()) for answer in answers]
    return [answers.index(answer) for answer in turned]


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


class Reader(nn.Module):
    """A trunk, and one linear layer for each head. Its card says which heads it has and which tags they stand for."""

    kind = "reader"
    width = 384  # of the trunk's features

    def __init__(self, heads: Heads, card: dict | None = None):
        super().__init__()
        self.answers, self.card = heads, card or {}
        self.trunk = self.make_trunk()
        self.heads = nn.ModuleDict({head: nn.Linear(self.width, len(values)) for head, values in heads.items()})

    @classmethod
    def make_trunk(cls) -> nn.Sequential:
        """Residual; keeps where things are: 4 x 4 positions, flattened."""
        layers: list[nn.Module] = [conv(3, 32, 4, 5)]
        for a, b in ((32, 64), (64, 96), (96, 128)):
            layers += [conv(a, b, 2), Residual(b)]
        return nn.Sequential(
            *layers, conv(128, 48, 1, 1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(48 * 16, cls.width), nn.ReLU()
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        if x.shape[-1] != SIZE:
            x = interpolate(x, (SIZE, SIZE), mode="bilinear", antialias=True)
        features = self.trunk(x)
        return {head: layer(features).float() for head, layer in self.heads.items()}

    @torch.no_grad()
    def read(self, pictures: np.ndarray) -> dict[str, Tensor]:
        """Probabilities by head for uint8 pictures (n, h, w, 3): the mean of a picture and its mirror image."""
        x = to_tensor(np.asarray(pictures))
        seen, turned = self.eval()(x), self(x.flip(3))
        return {
            head: (seen[head].softmax(1) + turned[head].softmax(1)[:, mirrored(answers)]) / 2
            for head, answers in self.answers.items()
        }

    def save(self, folder: Path, card: dict) -> None:
        """The weights in half precision, and the card beside them."""
        folder.mkdir(parents=True, exist_ok=True)
        halves = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in self.state_dict().items()}
        save_file(halves, folder / f"{self.kind}.safetensors")
        self.card = {"kind": self.kind, "heads": self.answers, **card}
        (folder / f"{self.kind}.json").write_text(json.dumps(self.card, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The reader of a folder, with the heads of its card."""
        card = json.loads((folder / f"{cls.kind}.json").read_text())
        reader = cls({head: tuple(values) for head, values in card["heads"].items()}, card)
        weights = load_file(folder / f"{cls.kind}.safetensors")
        reader.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in weights.items()})
        return reader.eval()
