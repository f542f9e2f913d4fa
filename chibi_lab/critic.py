"""A reader of latents, which tells the UNet which of the things it was asked for its guess does not show.

The plain loss hardly feels small things: an eye's colour is a few of two thousand numbers, and a guess that leaves it
grey costs next to nothing. A classifier feels nothing else. It never judges: `following` asks another network, which
sees pixels.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from models.chibi.reader.network import Residual, conv

from . import machine, parallel
from .config import CriticConfig
from .data import Record
from .labels import HEADS, HERS, UNKNOWN, labels
from .loop import Loop, learning_rate
from .muon import Muon

# Who she is and what she does. Where she is, how large and in which style she is drawn, the plain loss feels by itself.
SMALL = (*HERS, "expression", "pose")
NOISE = 0.3  # at most, of the latents' spread: a guess is never quite on the spot


def answers(records: list[Record]) -> Tensor:
    """What each picture shows: (pictures, heads), UNKNOWN where it is not asked."""
    truth = labels(records)
    return torch.stack([truth[head] for head in SMALL], 1)


class Critic(nn.Module):
    """Latents (n, channels, size, size) to one row of logits for each head."""

    def __init__(self, channels: int, size: int, width: int = 64):
        super().__init__()
        trunk = [conv(channels, width), Residual(width)]
        trunk += [conv(width, 2 * width, 2), Residual(2 * width), conv(2 * width, 2 * width, 2), Residual(2 * width)]
        trunk += [conv(2 * width, 48, 1, 1), nn.Flatten(), nn.Linear(48 * (size // 4) ** 2, 256), nn.ReLU()]
        self.trunk = nn.Sequential(*trunk)
        self.heads = nn.ModuleList([nn.Linear(256, len(HEADS[head])) for head in SMALL])

    def forward(self, z: Tensor) -> list[Tensor]:
        features = self.trunk(z)
        return [head(features) for head in self.heads]

    def blame(self, z: Tensor, wanted: Tensor) -> Tensor:
        """Cross entropy, summed over the heads that are asked: (n,)"""
        read = self(z)
        return torch.stack(
            [cross_entropy(r, w, ignore_index=UNKNOWN, reduction="none") for r, w in zip(read, wanted.T, strict=True)]
        ).sum(0)


def train_critic(config: CriticConfig, latents: Tensor, records: list[Record], folder: Path, seed: int) -> Critic:
    """On the latents of true drawings, and some noise."""
    torch.manual_seed(seed)
    place = machine.device()
    critic, truth = Critic(latents.shape[1], latents.shape[-1]).to(place), answers(records)
    optimizer = Muon(critic)

    def step_fn(step: int) -> dict[str, float]:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config.steps, config.learning_rate, decay=0.7)
        rng = np.random.default_rng((seed, step, parallel.rank()))
        torch.manual_seed((seed << 32) + (step << 8) + parallel.rank())
        rows = rng.integers(0, len(latents), config.batch // parallel.copies())
        z = latents[rows].float()
        z = z + NOISE * torch.rand(len(z), 1, 1, 1) * torch.randn_like(z)
        loss = critic.blame(z.to(place), truth[rows].to(place)).mean()
        loss.backward()
        parallel.average_gradients(critic)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return {"loss": loss.item()}

    Loop(folder, "critic", {"critic": critic, "optimizer": optimizer}, step_fn).run(config.steps)
    return critic.cpu().eval().requires_grad_(False)
