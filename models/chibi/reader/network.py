"""The networks: two ways of looking at a picture, with the same questions at the end."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..pixels import to_tensor
from .labels import HEADS

SIZE = 128  # pixels; other pictures are scaled to it


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
        """Probabilities by head for uint8 pictures (n, h, w, 3): the mean of a picture and its mirror image."""
        x = to_tensor(np.asarray(pictures))
        seen, mirrored = self.eval()(x), self(x.flip(3))
        return {head: (seen[head].softmax(1) + mirrored[head].softmax(1)) / 2 for head in seen}

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
