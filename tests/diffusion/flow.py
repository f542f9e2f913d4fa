"""A family of the tests' own, unlike Stable Diffusion in everything: a transformer, flow matching, five dimensions.

It has no text encoder to train, texts of different lengths, and latents that are the pixels themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from shared import catalog
from workers.diffusion.conditioning import Conditioning, Placement
from workers.diffusion.families.base import Family
from workers.diffusion.families.parts import Part, Role
from workers.diffusion.noise.flow import Flow

WIDTH = 16
SIDE = 4  # pixels of a latent

ROW = catalog.BaseModel(
    name="tiny-flow", family="flow", path="", resolution=32, prediction_type="flow_prediction", license="CC0-1.0"
)
FAMILY = catalog.FamilyRow(
    code="tests.diffusion.flow:TinyFlow",
    train={"lora_modules": "attention"},
    generate={
        "inference_steps": 3,
        "guidance_scale": 2.0,
        "sampler": "euler",
        "negative_prompt": "",
        "batch_size": 2,
    },
    score={"scorer": "plain"},
    samplers=catalog.FLOW_SAMPLERS,
)


class Block(nn.Module):
    """Attention over places and words together, then two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.qkv(functional.layer_norm(x, [WIDTH])).unsqueeze(1).chunk(3, dim=-1)
        x = x + self.out(functional.scaled_dot_product_attention(q, k, v, mask)).squeeze(1)
        return x + self.down(functional.silu(self.up(functional.layer_norm(x, [WIDTH]))))


class Transformer(nn.Module):
    """Answers x0 - eps at time 1 - sigma, as Z-Image and Lumina do."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.time, self.size = nn.Embedding(256, WIDTH), nn.Linear(1, WIDTH), nn.Linear(6, WIDTH)
        self.enter, self.leave = nn.Linear(3, WIDTH), nn.Linear(WIDTH, 3)
        self.blocks = nn.ModuleList(Block() for _ in range(2))

    def forward(self, x: Tensor, time: Tensor, words: Tensor, mask: Tensor, sizes: Tensor) -> Tensor:
        places = self.enter(x.flatten(2).mT) + (self.time(time[:, None]) + self.size(sizes))[:, None]
        both = torch.cat([self.words(words), places], dim=1)
        seen = functional.pad(mask, (0, places.shape[1]), value=True)[:, None, None]
        for block in self.blocks:
            both = block(both, seen)
        return self.leave(both[:, words.shape[1] :]).mT.reshape(x.shape)


@dataclass(frozen=True)
class Words(Conditioning):
    """Byte by byte, as long as each text is."""

    ids: list[Tensor]
    sizes: Tensor | None = None  # (batch, 6)


class TinyFlow(Family):
    architecture = "tiny-flow"
    kohya_version = "tiny_flow"

    def __init__(self, row: catalog.BaseModel = ROW, device: str | torch.device | None = None):
        torch.manual_seed(0)
        self.row, self.device, self.dtype = row, torch.device(device or "cpu"), torch.float32
        self.transformer = Transformer().to(self.device).requires_grad_(False).eval()
        attention = ("qkv", "out")
        self.parts = (
            Part(
                name="transformer",
                module=self.transformer,
                role=Role.DENOISER,
                targets={
                    "attention": attention,
                    "attention_ff": (*attention, "up", "down"),
                    "all": (*attention, "up", "down", "enter", "leave"),
                },
                kohya_prefix="lora_unet_",
                peft_prefix="transformer.",
                other_peft_prefixes=["diffusion_model."],
            ),
        )
        self.noise = Flow(density="logit_normal", shift=3.0, sign=-1)

    def gradient_checkpointing(self, part: Part, enabled: bool) -> None:
        """It is too small to save any memory."""

    def sizes(self, resolution: int | None) -> list[tuple[int, int]]:
        side = resolution or self.row.resolution
        return [(side, side), (side, side // 2)]

    def latent_shape(self, width: int, height: int) -> tuple[int, ...]:
        return 3, 1, height // SIDE, width // SIDE

    def encode_images(self, images: Sequence[Image.Image]) -> tuple[Tensor, Tensor]:
        pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)
        latents = functional.avg_pool2d(pixels / 127.5 - 1, SIDE)[:, :, None]  # (batch, 3, 1, height, width)
        return latents, torch.zeros_like(latents)

    def decode(self, latents: Tensor) -> list[Image.Image]:
        pixels = functional.interpolate(latents.squeeze(2), scale_factor=SIDE).clamp(-1, 1) * 127.5 + 127.5
        return [Image.fromarray(picture.permute(1, 2, 0).round().byte().numpy()) for picture in pixels]

    def encode_prompts(self, texts: Sequence[str], clip_skip: int = 0, syntax: str = "plain") -> Words:
        return Words([torch.tensor([*text.encode()], dtype=torch.long) for text in texts])

    def cut_off(self, text: str) -> str:
        return ""

    def place(self, conditioning: Conditioning, placements: Sequence[Placement]) -> Conditioning:
        assert isinstance(conditioning, Words)
        rows = [[*each.original, *each.crop, *each.size] for each in placements]
        return replace(conditioning, sizes=torch.tensor(rows) / 100)

    def predict(self, noisy: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        assert isinstance(conditioning, Words)
        assert conditioning.sizes is not None
        words = nn.utils.rnn.pad_sequence(conditioning.ids, batch_first=True)
        lengths = torch.tensor([len(ids) for ids in conditioning.ids])
        mask = torch.arange(words.shape[1]) < lengths[:, None]
        return self.transformer(noisy, (1 - t).expand(len(noisy)), words, mask, conditioning.sizes)
