"""The training of a LoRA: setup, steps, result."""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import mse_loss

from shared.catalog.params import TrainParams
from workers.diffusion import checkpoint
from workers.diffusion.checkpoint import Checkpoints
from workers.diffusion.dataset import Dataset, Example, plan, prepare
from workers.diffusion.families.base import Family
from workers.diffusion.lora import adapter
from workers.diffusion.lora.weights import TrainedLora

OnStep = Callable[[int, float], None]  # (steps done, loss of the last one); may raise to stop

# Reading a loss makes the host wait for the GPU, so losses are read there only every few steps.
STEPS_PER_READING = {"cpu": 1}
STEPS_PER_READING_ELSEWHERE = 10

FEW_TOKENS = 1024  # places of the largest latents


class NanLoss(Exception):
    """The training has diverged."""

    def __init__(self, step: int, params: TrainParams):
        super().__init__(
            f"the loss is not a number at step {step}; "
            f"lower the learning rate ({params.learning_rate:g}) or use precision fp32 ({params.precision})"
        )
        self.step = step


def train_lora(
    base: Family,
    examples: Sequence[Example],
    params: TrainParams,
    *,
    prior: Sequence[Example] = (),
    on_step: OnStep | None = None,
    checkpoints: Checkpoints | None = None,
) -> TrainedLora:
    """Train a LoRA on a few pictures. `prior` are pictures of others, which keep these as the base model draws them."""
    started = time.monotonic()
    datasets = [prepare(base, examples, params)]
    if prior:
        datasets.append(prepare(base, prior, params, weight=params.prior_weight))
    with adapter.attached(base, params) as models, attention(base, datasets):
        training = Training(base, models, datasets, params)
        training.resume(checkpoints, checkpoint.fingerprint(base, params, examples, prior))
        while training.step < params.train_steps:
            training.take_step()
            if checkpoints and (training.step % params.checkpoint_every_steps == 0 or checkpoints.wanted()):
                training.save(checkpoints)
            if training.step % training.steps_per_reading == 0 or training.step == params.train_steps:
                training.read_losses()
                if on_step:
                    on_step(training.step, training.losses[-1])
        weights = {name: adapter.read(model) for name, model in models.items()}
    if not all(change.up.isfinite().all() for changes in weights.values() for change in changes.values()):
        raise NanLoss(training.step, params)  # the last step may have diverged after its loss was computed
    return TrainedLora(
        weights=weights,
        params=params,
        losses=training.losses,
        seconds=time.monotonic() - started,
        images=len(examples),
        tag_counts=dict(Counter(tag.strip() for e in examples for caption in e.captions for tag in caption.split(","))),
        finished_at=datetime.now(UTC),
    )


class Training:
    """The state of a training between two steps."""

    def __init__(self, base: Family, models: dict[str, nn.Module], datasets: list[Dataset], params: TrainParams):
        self.base, self.datasets, self.params = base, datasets, params
        self.step = 0  # number of steps done
        self.losses: list[float] = []
        self._losses_on_device: list[Tensor] = []  # of the steps since the last reading
        self.steps_per_reading = STEPS_PER_READING.get(base.device.type, STEPS_PER_READING_ELSEWHERE)
        by_part = {name: adapter.parameters(model) for name, model in models.items()}
        self.parameters = {
            f"{part}.{name}": parameter for part, mine in by_part.items() for name, parameter in mine.items()
        }
        self.optimizer = make_optimizer(base, by_part, params)
        self.scaler = torch.amp.GradScaler(base.device.type, enabled=base.precision(params.precision) == "fp16")
        batches = params.train_steps * params.gradient_accumulation
        self.plans = [plan(data, batches, params.batch_size, params.seed + n) for n, data in enumerate(datasets)]

    def take_step(self) -> None:
        """Take one optimizer step: sum the gradients of its batches, clip them and apply them."""
        params = self.params
        learned = torch.zeros((), device=self.base.device)
        for batch in range(self.step * params.gradient_accumulation, (self.step + 1) * params.gradient_accumulation):
            for number, (data, indices) in enumerate(zip(self.datasets, self.plans, strict=True)):
                # The seed depends only on the batch's number, so checkpoints need no generator state.
                generator = torch.Generator().manual_seed(seed_of(params.seed, batch, number))
                loss = batch_loss(self.base, data, indices[batch], params, generator) / params.gradient_accumulation
                self.scaler.scale(loss).backward()
                if number == 0:  # the prior's loss is not reported
                    learned += loss.detach()
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * lr_factor(self.step, params)
        self.scaler.unscale_(self.optimizer)
        if params.max_grad_norm > 0:
            nn.utils.clip_grad_norm_(self.parameters.values(), params.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self._losses_on_device.append(learned)
        self.step += 1

    def read_losses(self) -> None:
        """Copy the losses since the last reading to the host."""
        for loss in torch.stack(self._losses_on_device).tolist() if self._losses_on_device else []:
            if not math.isfinite(loss):
                raise NanLoss(len(self.losses) + 1, self.params)
            self.losses.append(loss)
        self._losses_on_device.clear()

    # checkpoints

    def save(self, checkpoints: Checkpoints) -> None:
        """Save everything that the next step depends on."""
        self.read_losses()
        tensors = {f"weight/{name}": parameter for name, parameter in self.parameters.items()}
        for name, parameter in self.parameters.items():
            tensors |= {f"{key}/{name}": value for key, value in self.optimizer.state[parameter].items()}
        if not all(tensor.isfinite().all() for tensor in tensors.values()):
            raise NanLoss(self.step, self.params)  # the step diverged after its loss was computed
        state = {"run": self.fingerprint, "step": self.step, "losses": self.losses, "scaler": self.scaler.state_dict()}
        checkpoint.save(checkpoints, tensors, state, self.step)

    def resume(self, checkpoints: Checkpoints | None, fingerprint: str) -> None:
        """Resume from the newest checkpoint with this fingerprint, if there is one."""
        self.fingerprint = fingerprint
        found = checkpoint.load(checkpoints, fingerprint)
        if found is None:
            return
        tensors, state = found
        for name, parameter in self.parameters.items():
            parameter.data.copy_(tensors.pop(f"weight/{name}"))
        for key_and_name, value in tensors.items():
            key, name = key_and_name.split("/")
            # the optimizer is fused, so its step count lives on the device too
            self.optimizer.state[self.parameters[name]][key] = value.to(self.base.device)
        self.step, self.losses = state["step"], state["losses"]
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])


def batch_loss(
    base: Family, data: Dataset, indices: Sequence[int], params: TrainParams, generator: torch.Generator
) -> Tensor:
    """The denoiser's loss on these examples, at random times."""
    with base.autocast(params.precision):
        batch = data.batch(base, indices, params.caption_dropout, generator)
        x0 = batch.latents  # (batch, channels, ...)
        eps = torch.randn(x0.shape, generator=generator)
        if params.noise_offset:
            constant = torch.randn(*x0.shape[:2], *[1] * (x0.ndim - 2), generator=generator)
            eps += params.noise_offset * constant
        eps = eps.to(base.device)
        t = base.noise.draw_times(len(x0), generator).to(base.device)
        answer = base.predict(base.noise.add(x0, eps, t), t, batch.conditioning)
        target = base.noise.target(x0, eps, t)
    errors = mse_loss(answer.float(), target.float(), reduction="none")
    errors = errors.mean(dim=tuple(range(1, errors.ndim)))  # (batch,)
    return (errors * base.noise.weight(t, params.min_snr_gamma) * batch.weights).mean()


def seed_of(*numbers: int) -> int:
    """One seed from several numbers, the same on any machine."""
    return random.Random(":".join(map(str, numbers))).getrandbits(63)


def attention(base: Family, datasets: Sequence[Dataset]) -> AbstractContextManager[None]:
    """The fastest kind of attention: on a CPU, the backward pass of torch's flash kernel is slow for few tokens."""
    tokens = max(mean[0].numel() for data in datasets for mean in data.means)
    if base.device.type == "cpu" and tokens <= FEW_TOKENS:
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()


def lr_factor(step: int, params: TrainParams) -> float:
    """The learning rate at a step (from 0), as a share of its peak."""
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


def make_optimizer(
    base: Family, parameters: dict[str, dict[str, nn.Parameter]], params: TrainParams
) -> torch.optim.Optimizer:
    """AdamW over the parameters of each part, at the part's own learning rate."""
    groups: list[dict[str, Any]] = []
    for part, mine in parameters.items():
        rate = base.part(part).rate(params)
        groups.append({"params": list(mine.values()), "lr": rate, "peak_lr": rate})
    # beta2 is 0.99, because the usual 0.999 averages over more steps than these trainings have.
    return torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=params.weight_decay, fused=True)
