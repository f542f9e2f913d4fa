"""The training of a LoRA: setup, steps, result."""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import mse_loss

from shared.params import TrainParams
from workers.diffusion import adapter, checkpoint
from workers.diffusion.adapter import LoraWeights
from workers.diffusion.checkpoint import Checkpoints
from workers.diffusion.dataset import Dataset, Example, plan, prepare
from workers.diffusion.families.base import Family

OnStep = Callable[[int, float], None]  # (steps done, loss of the last one); may raise to stop

# Reading a loss makes the host wait for the card, so there it is done now and then.
STEPS_PER_READING = {"cpu": 1}
STEPS_PER_READING_ELSEWHERE = 10

FEW_TOKENS = 1024  # of the largest latents


class NanLoss(Exception):
    """The training has diverged."""

    def __init__(self, step: int, params: TrainParams):
        super().__init__(
            f"the loss is not a number at step {step}; "
            f"lower the learning rate ({params.learning_rate:g}) or use precision fp32 ({params.precision})"
        )
        self.step = step


@dataclass(frozen=True)
class TrainedLora:
    """The result of a training, and what its files say about it."""

    weights: LoraWeights
    params: TrainParams
    losses: list[float]  # of each step
    seconds: float  # of this process; a resumed run counts from its resumption
    images: int
    tag_counts: dict[str, int]  # over the captions as given
    finished_at: datetime

    @property
    def steps(self) -> int:
        return len(self.losses)


def train_lora(
    base: Family,
    examples: Sequence[Example],
    params: TrainParams,
    *,
    prior: Sequence[Example] = (),
    on_step: OnStep | None = None,
    checkpoints: Checkpoints | None = None,
) -> TrainedLora:
    """Train a LoRA on a few pictures. `prior` pictures keep everyone else as the base model draws them."""
    started = time.monotonic()
    datasets = [prepare(base, examples, params)]
    if prior:
        datasets.append(prepare(base, prior, params, weight=params.prior_weight))
    with adapter.attached(base, params) as models, attention(base, datasets):
        run = Run(base, models, datasets, params)
        run.resume(checkpoints, checkpoint.fingerprint(base, params, examples, prior))
        while run.step < params.train_steps:
            run.advance()
            if checkpoints and (run.step % params.checkpoint_every_steps == 0 or checkpoints.wanted()):
                run.save(checkpoints)
            if run.step % run.steps_per_reading == 0 or run.step == params.train_steps:
                run.read_losses()
                if on_step:
                    on_step(run.step, run.losses[-1])
        weights = {component: adapter.read(model) for component, model in models.items()}
    if not all(change.up.isfinite().all() for changes in weights.values() for change in changes.values()):
        raise NanLoss(run.step, params)  # the last step may have gone wrong after its loss was taken
    return TrainedLora(
        weights=weights,
        params=params,
        losses=run.losses,
        seconds=time.monotonic() - started,
        images=len(examples),
        tag_counts=dict(Counter(tag.strip() for e in examples for caption in e.captions for tag in caption.split(","))),
        finished_at=datetime.now(UTC),
    )


class Run:
    """A training between two steps: everything that the next step depends on."""

    def __init__(self, base: Family, models: dict[str, nn.Module], datasets: list[Dataset], params: TrainParams):
        self.base, self.datasets, self.params = base, datasets, params
        self.step = 0
        self.losses: list[float] = []
        self.unread: list[Tensor] = []
        self.steps_per_reading = STEPS_PER_READING.get(base.device.type, STEPS_PER_READING_ELSEWHERE)
        self.parameters = {
            f"{component}.{name}": parameter
            for component, model in models.items()
            for name, parameter in adapter.parameters(model).items()
        }
        self.optimizer = make_optimizer(self.parameters, params)
        self.scaler = torch.amp.GradScaler(base.device.type, enabled=base.precision(params.precision) == "fp16")
        batches = params.train_steps * params.gradient_accumulation
        self.plans = [plan(data, batches, params.batch_size, params.seed + n) for n, data in enumerate(datasets)]

    def advance(self) -> None:
        """One optimizer step: gradients of its batches, summed, clipped and applied."""
        params = self.params
        learned = torch.zeros((), device=self.base.device)
        for batch in range(self.step * params.gradient_accumulation, (self.step + 1) * params.gradient_accumulation):
            for number, (data, indices) in enumerate(zip(self.datasets, self.plans, strict=True)):
                # What is drawn for a batch follows from its number alone: no generator has a state to be kept.
                generator = torch.Generator().manual_seed(seed_of(params.seed, batch, number))
                loss = batch_loss(self.base, data, indices[batch], params, generator) / params.gradient_accumulation
                self.scaler.scale(loss).backward()
                if number == 0:  # the prior's loss is a brake, not what is being learned
                    learned += loss.detach()
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * lr_factor(self.step, params)
        self.scaler.unscale_(self.optimizer)
        if params.max_grad_norm > 0:
            nn.utils.clip_grad_norm_(self.parameters.values(), params.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.unread.append(learned)
        self.step += 1

    def read_losses(self) -> None:
        """Bring the losses since the last reading over to the host."""
        for loss in torch.stack(self.unread).tolist() if self.unread else []:
            if not math.isfinite(loss):
                raise NanLoss(len(self.losses) + 1, self.params)
            self.losses.append(loss)
        self.unread.clear()

    # checkpoints

    def save(self, checkpoints: Checkpoints) -> None:
        """Keep all that the next step depends on."""
        self.read_losses()
        tensors = {f"weight/{name}": parameter for name, parameter in self.parameters.items()}
        for name, parameter in self.parameters.items():
            tensors |= {f"{key}/{name}": value for key, value in self.optimizer.state[parameter].items()}
        if not all(tensor.isfinite().all() for tensor in tensors.values()):
            raise NanLoss(self.step, self.params)  # the step went wrong after its loss was taken
        state = {"run": self.name, "step": self.step, "losses": self.losses, "scaler": self.scaler.state_dict()}
        checkpoint.save(checkpoints, tensors, state, self.step)

    def resume(self, checkpoints: Checkpoints | None, name: str) -> None:
        """Go on from the newest checkpoint of the run of this name, if there is one."""
        self.name = name
        found = checkpoint.load(checkpoints, name)
        if found is None:
            return
        tensors, state = found
        for name, parameter in self.parameters.items():
            parameter.data.copy_(tensors.pop(f"weight/{name}"))
        for key_and_name, value in tensors.items():
            key, name = key_and_name.split("/")
            self.optimizer.state[self.parameters[name]][key] = value.to(self.base.device)  # its step too: it is fused
        self.step, self.losses = state["step"], state["losses"]
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])


def batch_loss(
    base: Family, data: Dataset, indices: Sequence[int], params: TrainParams, generator: torch.Generator
) -> Tensor:
    """How far off the denoiser is on these examples, at random amounts of noise."""
    with base.autocast(params.precision):
        batch = data.batch(base, indices, params.caption_dropout, generator)
        x0 = batch.latents  # (batch, channels, h/f, w/f)
        eps = torch.randn(x0.shape, generator=generator)
        if params.noise_offset:
            eps += params.noise_offset * torch.randn(x0.shape[0], x0.shape[1], 1, 1, generator=generator)
        t = draw_timesteps(x0.shape[0], base.train_timesteps, generator).to(base.device)
        noisy, target = base.noised(x0, eps.to(base.device), t)
        answer = base.predict(noisy, t, batch.conditioning)
    errors = mse_loss(answer.float(), target.float(), reduction="none").mean(dim=(1, 2, 3))
    return (errors * base.loss_weights(t, params.min_snr_gamma) * batch.weights).mean()


def seed_of(*numbers: int) -> int:
    """One seed from several numbers, the same on any machine."""
    return random.Random(":".join(map(str, numbers))).getrandbits(63)


def draw_timesteps(count: int, timesteps: int, generator: torch.Generator) -> Tensor:
    """Uniform, but one from each of `count` equal parts: small batches then see all amounts of noise alike."""
    parts = (torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count
    return (parts * timesteps).long().clamp(max=timesteps - 1)


def attention(base: Family, datasets: Sequence[Dataset]) -> AbstractContextManager[None]:
    """Attention as it is fastest: for few tokens on a CPU, torch's flash kernel is slow on the way back."""
    tokens = max(mean[0].numel() for data in datasets for mean in data.means)
    if base.device.type == "cpu" and tokens <= FEW_TOKENS:
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()


def lr_factor(step: int, params: TrainParams) -> float:
    """Share of the peak learning rate at a step, counted from 0."""
    warmup = min(params.warmup_steps, params.train_steps)
    if step < warmup:
        return (step + 1) / warmup
    left = 1 - (step - warmup) / max(1, params.train_steps - warmup)
    if params.lr_scheduler == "constant":
        return 1.0
    if params.lr_scheduler == "linear":
        return left
    if params.lr_scheduler == "cosine":
        return 0.5 - 0.5 * math.cos(math.pi * left)
    raise ValueError(f"unknown lr_scheduler {params.lr_scheduler!r}")


def make_optimizer(parameters: dict[str, nn.Parameter], params: TrainParams) -> torch.optim.Optimizer:
    """AdamW, with the text encoder at its own rate."""
    rates = {"unet": params.learning_rate, "text_encoder": params.text_encoder_learning_rate}
    groups: list[dict[str, Any]] = []
    for component, rate in rates.items():
        mine = [parameter for name, parameter in parameters.items() if name.startswith(f"{component}.")]
        if mine:
            groups.append({"params": mine, "lr": rate, "peak_lr": rate})
    # beta2 of 0.99 forgets sooner than the usual 0.999, whose memory is longer than these runs
    return torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=params.weight_decay, fused=True)
