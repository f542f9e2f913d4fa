"""The autoencoder: 128 x 128 pictures to 16 x 16 latents and back."""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn.functional import avg_pool2d

from models.chibi.reader.pixels import to_tensor

from . import machine, parallel
from .config import VaeConfig
from .data import PictureSet
from .loop import Loop, learning_rate
from .muon import Muon

WHOLE_EVERY = 12  # steps between two on whole pictures; the others see crops, which are cheaper
SMALL_SHARE = 0.97  # of the steps see crops of half the size: many cheap steps first
EDGE = 8  # pixels of one latent cell


def make_vae(config: VaeConfig, size: int) -> AutoencoderKL:
    """Its residual branches begin at zero and its posterior narrow, so that from the first step it is a plain path."""
    depth = len(config.channels)
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=config.latent_channels,
        block_out_channels=tuple(config.channels),
        down_block_types=("DownEncoderBlock2D",) * depth,
        up_block_types=("UpDecoderBlock2D",) * depth,
        layers_per_block=1,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=size,
        scaling_factor=1.0,
    )
    with torch.no_grad():
        for name, weight in vae.named_parameters():
            if name.endswith("conv2.weight"):
                weight.zero_()
        vae.quant_conv.bias[config.latent_channels :] -= 4
    return vae


def picture_batch(pictures: PictureSet, step: int, config: VaeConfig, seed: int) -> Tensor:
    """A pure function of the step, so that a resumed run sees what it would have seen."""
    rng = np.random.default_rng((seed, step, parallel.rank()))
    crop = config.crop // 2 if step < SMALL_SHARE * config.steps else config.crop
    whole = step % WHOLE_EVERY == WHOLE_EVERY - 1
    mine = config.batch // parallel.copies()
    batch = pictures.pictures(rng.integers(0, len(pictures), max(1, mine // 4) if whole else mine))
    if not whole:
        corners = rng.integers(0, (batch.shape[1] - crop) // EDGE + 1, (len(batch), 2)) * EDGE
        batch = np.stack([p[y : y + crop, x : x + crop] for p, (y, x) in zip(batch, corners, strict=True)])
    return to_tensor(batch[:, :, ::-1].copy() if rng.random() < 0.5 else batch)


def picture_loss(y: Tensor, x: Tensor) -> Tensor:
    """Absolute error of pixels, of their differences (sharp lines) and of 4 x 4 means and their hues.

    The last two are there because shapes come by themselves, but colours are learned late.
    """
    e = y - x
    differences = (e[..., 1:] - e[..., :-1]).abs().mean() + (e[..., 1:, :] - e[..., :-1, :]).abs().mean()
    means = avg_pool2d(e, 4)
    hues = (means - means[:, [1, 2, 0]]).abs().mean()
    return e.abs().mean() + 0.3 * differences + e.pow(2).mean() + 2 * means.abs().mean() + 2 * hues


def psnr(vae: AutoencoderKL, pictures: np.ndarray, batch: int = 32) -> float:
    errors = []
    with torch.no_grad(), machine.autocast():
        for i in range(0, len(pictures), batch):
            x = to_tensor(pictures[i : i + batch]).to(vae.device)
            y = vae.decode(vae.encode(x).latent_dist.mean).sample.float().clamp(-1, 1)
            errors.append((y - x).pow(2).mean((1, 2, 3)) / 4)
    return float(-10 * torch.cat(errors).mean().log10())


def train_vae(config: VaeConfig, vae: AutoencoderKL, pictures: PictureSet, folder: Path, seed: int) -> AutoencoderKL:
    """Encoder and decoder together; what the encoder is at the end, the latents are."""
    optimizer = Muon(vae.to(machine.device()))

    def step_fn(step: int) -> dict[str, float]:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config.steps, config.learning_rate, decay=config.decay)
        x = picture_batch(pictures, step, config, seed).to(machine.device())
        with machine.autocast():
            posterior = vae.encode(x).latent_dist
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * logvar)
        y = decode(vae, z)
        kl = 0.5 * (mean.pow(2) + logvar.exp() - 1 - logvar).mean()
        off_centre = mean.mean((0, 2, 3)).pow(2).mean()
        loss = picture_loss(y, x) + config.kl_weight * kl + config.centre_weight * off_centre
        descend(vae, optimizer, loss)
        return {
            "l1": (y - x).abs().mean().item(),
            "kl": kl.item(),
            "off_centre": off_centre.item(),
            "loss": loss.item(),
        }

    Loop(folder, "vae", {"vae": vae, "optimizer": optimizer}, step_fn).run(config.steps)
    return vae


def train_decoder(
    config: VaeConfig, vae: AutoencoderKL, pictures: PictureSet, folder: Path, seed: int
) -> AutoencoderKL:
    """The decoder alone: the UNet may be training on the latents meanwhile."""
    torch.manual_seed(seed)
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    optimizer = Muon(vae.to(machine.device()))
    latent_noise = 0.03  # of their spread: what the UNet makes is never quite on the spot

    def step_fn(step: int) -> dict[str, float]:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config.decoder_steps, 0.5 * config.learning_rate, decay=0.8)
        x = picture_batch(pictures, config.steps + step, config, seed).to(machine.device())
        with torch.no_grad(), machine.autocast():
            z = vae.encode(x).latent_dist.mean.float()
        y = decode(vae, z + latent_noise * z.std() * torch.randn_like(z))
        loss = picture_loss(y, x)
        descend(vae, optimizer, loss)
        return {"l1": (y - x).abs().mean().item(), "loss": loss.item()}

    Loop(folder, "decoder", {"vae": vae, "optimizer": optimizer}, step_fn).run(config.decoder_steps)
    return vae


def decode(vae: AutoencoderKL, z: Tensor) -> Tensor:
    with machine.autocast():
        return vae.decode(z).sample.float()


def descend(model: torch.nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    loss.backward()
    parallel.average_gradients(model)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


@torch.no_grad()
def encode(vae: AutoencoderKL, pictures: np.ndarray, batch: int = 8) -> Tensor:
    """Latents, not yet scaled, in half precision: (n, channels, size / 8, size / 8)."""
    latents = []
    with machine.autocast():
        for start in range(0, len(pictures), batch):
            x = to_tensor(pictures[start : start + batch]).to(vae.device)
            latents.append(vae.encode(x).latent_dist.mean.half().cpu())
    return torch.cat(latents)
