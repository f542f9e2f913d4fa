"""The UNet: plain v-prediction on latents, conditioned on the frozen text encoder."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor

from . import machine, parallel
from .captions import caption_tags
from .config import UNetConfig
from .critic import Critic, answers
from .data import Record
from .labels import UNKNOWN
from .loop import Loop, learning_rate
from .muon import Muon
from .tokenizer import TagEncoder

NOISE_SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "prediction_type": "v_prediction",
}
AT_ONCE = 16  # pictures: what more of them leave behind for the way back no longer fits the caches
TextEncode = Callable[[Tensor], Tensor]  # token ids -> states


def make_unet(config: UNetConfig, latent_channels: int, latent_size: int, text_width: int) -> UNet2DConditionModel:
    """No attention at the full latent size; the pooled text goes in with the time, as whole-picture facts do."""
    return UNet2DConditionModel(
        sample_size=latent_size,
        in_channels=latent_channels,
        out_channels=latent_channels,
        layers_per_block=1,
        block_out_channels=tuple(config.channels),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=text_width,
        attention_head_dim=config.heads,  # by its old name: the number of heads
        norm_num_groups=16,
        addition_embed_type="text",
        addition_embed_type_num_heads=config.heads,
    )


class Batches:
    """Latents with fresh captions; a pure function of the step."""

    def __init__(self, latents: Tensor, records: list[Record], encode: TagEncoder, config: UNetConfig, seed: int):
        self.latents, self.records, self.encode, self.config, self.seed = latents, records, encode, config, seed
        self.answers = answers(records)

    def __call__(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Latents, token ids, and what the critic is to find; nothing where the caption was left out."""
        rng = np.random.default_rng((self.seed, step, parallel.rank()))
        mine = self.indices(step)[parallel.share(self.config.batch)]
        captions = [self.caption(i, rng) for i in mine]
        untold = torch.tensor([not caption for caption in captions])
        wanted = self.answers[mine].masked_fill(untold[:, None], UNKNOWN)
        return self.latents[mine].float(), torch.tensor([self.encode(c) for c in captions]), wanted

    def caption(self, index: int, rng: np.random.Generator) -> list[str]:
        return [] if rng.random() < self.config.caption_dropout else caption_tags(self.records[index], rng)

    def indices(self, step: int) -> np.ndarray:
        """Each epoch is its own shuffle."""
        per_epoch = len(self.records) // self.config.batch
        epoch, at = divmod(step, per_epoch)
        order = np.random.default_rng((self.seed, 1, epoch)).permutation(len(self.records))
        return order[at * self.config.batch : (at + 1) * self.config.batch]


def train_unet(
    config: UNetConfig,
    unet: UNet2DConditionModel,
    batches: Batches,
    text_encode: TextEncode,
    critic: Critic,
    folder: Path,
    seed: int,
    on_save: Callable[[int, UNet2DConditionModel], None] | None = None,
) -> UNet2DConditionModel:
    """Trains `unet` in place, resuming from the folder; returns the average of its weights over time."""
    place = machine.device()
    unet.to(place, memory_format=torch.channels_last)
    critic.to(place)
    if machine.device().type == "cpu" and machine.bf16_is_faster():
        unet.set_attn_processor(AttnProcessor())  # plain: the fused one is slow in bf16 where pictures are small
    average = copy.deepcopy(unet).requires_grad_(False)
    optimizer = Muon(unet)
    alphas = DDIMScheduler(**NOISE_SCHEDULE).alphas_cumprod.to(place)
    at_once = AT_ONCE if place.type == "cpu" else config.batch

    def learn(z: Tensor, ids: Tensor, wanted: Tensor, parts: int) -> tuple[float, float]:
        guess = denoise(unet, z, text_encode(ids), alphas)
        blame = (guess.alpha.sqrt() * critic.blame(guess.z, wanted)).mean()
        ((guess.error + config.critic_weight * blame) / parts).backward()
        return guess.error.item(), blame.item()

    def step_fn(step: int) -> dict[str, float]:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config.steps, config.learning_rate, decay=config.decay)
        torch.manual_seed((seed << 32) + (step << 8) + parallel.rank())
        parts = list(zip(*(tensor.to(place).split(at_once) for tensor in batches(step)), strict=True))
        figures = [learn(z, ids, wanted, len(parts)) for z, ids, wanted in parts]
        parallel.average_gradients(unet)
        norm = torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        follow(average, unet, min(config.ema, (1 + step) / (10 + step)))
        loss, blame = (sum(each) / len(parts) for each in zip(*figures, strict=True))
        return {"loss": loss, "blame": blame, "gradient": norm.item()}

    state = {"unet": unet, "average": average, "optimizer": optimizer}
    saved = (lambda step: on_save(step, average)) if on_save else None
    Loop(folder, "unet", state, step_fn, saved).run(config.steps)
    return average


@dataclass(frozen=True)
class Guess:
    """What the UNet makes of noised latents."""

    error: Tensor  # mean square, of v
    z: Tensor  # the clean latents that it takes them for
    alpha: Tensor  # (n,) how much of them was in sight


def denoise(unet: UNet2DConditionModel, z: Tensor, text: Tensor, alphas: Tensor) -> Guess:
    """At times spread evenly: weights that favour little noise never learn colours and layout."""
    n = len(z)
    spread = (torch.arange(n) + torch.rand(n)) / n  # one t from each n-th of the time, for less variance
    t = (spread * len(alphas)).long().clamp(max=len(alphas) - 1).to(z.device)
    alpha = alphas[t].view(-1, 1, 1, 1)
    eps = torch.randn_like(z)
    x = (alpha.sqrt() * z + (1 - alpha).sqrt() * eps).contiguous(memory_format=torch.channels_last)
    v = alpha.sqrt() * eps - (1 - alpha).sqrt() * z
    with machine.autocast():
        predicted = unet(x, t, text).sample.float()
    return Guess((predicted - v).pow(2).mean(), alpha.sqrt() * x - (1 - alpha).sqrt() * predicted, alphas[t])


@torch.no_grad()
def follow(average: torch.nn.Module, model: torch.nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
