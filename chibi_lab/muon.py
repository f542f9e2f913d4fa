"""Muon: momentum whose matrices are made orthogonal before the step, so that every direction learns at one rate.

After Keller Jordan, https://kellerjordan.github.io/posts/muon/. Vectors, and the first and last layers, get AdamW.
"""

import torch
from torch import Tensor, nn

from . import machine, parallel


def orthogonal(m: Tensor, iterations: int = 5) -> Tensor:
    """Nearly U V^T of m = U S V^T, by Newton-Schulz; m is (..., rows, columns)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = m.bfloat16() if machine.bf16_is_faster() else m
    wide = x.shape[-1] >= x.shape[-2]
    x = x if wide else x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x if wide else x.mT).to(m.dtype)


class Muon(torch.optim.Optimizer):
    """`lr` is a factor on both rates: `matrix_rate` for orthogonal steps, `vector_rate` for the rest."""

    def __init__(
        self, model: nn.Module, matrix_rate: float = 0.02, vector_rate: float = 2e-3, weight_decay: float = 0.01
    ):
        plain_names = ("conv_in", "conv_out", "embedding", "embed")
        matrices: list[Tensor] = []
        others: list[Tensor] = []
        for name, p in model.named_parameters():
            is_matrix = p.ndim > 1 and min(p.shape[0], p[0].numel()) >= 16 and not any(n in name for n in plain_names)
            (matrices if is_matrix else others).append(p)
        groups = [
            {"params": matrices, "rate": matrix_rate, "decay": weight_decay, "orthogonal": True},
            {"params": others, "rate": vector_rate, "decay": 0.0, "orthogonal": False},
        ]
        super().__init__(groups, {"lr": 1.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if group["orthogonal"]:
                self._step_matrices(params, group["lr"] * group["rate"], group["decay"])
            else:
                self._step_vectors(params, group["lr"] * group["rate"])

    def _step_matrices(self, params: list[Tensor], rate: float, decay: float) -> None:
        by_shape: dict[tuple[int, int], list[Tensor]] = {}
        for p in params:
            by_shape.setdefault((p.shape[0], p[0].numel()), []).append(p)
        stacks = [torch.stack([self._momentum(p).reshape(shape) for p in group]) for shape, group in by_shape.items()]
        for ((rows, columns), group), steps in zip(by_shape.items(), parallel.spread(orthogonal, stacks), strict=True):
            scale = rate * max(1.0, rows / columns) ** 0.5
            for p, step in zip(group, steps, strict=True):
                p.mul_(1 - rate * decay).add_(step.view(p.shape), alpha=-scale)

    def _momentum(self, p: Tensor, beta: float = 0.95) -> Tensor:
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        assert p.grad is not None
        state["momentum"].lerp_(p.grad, 1 - beta)
        return p.grad.lerp(state["momentum"], beta)

    def _step_vectors(self, params: list[Tensor], rate: float, beta1: float = 0.9, beta2: float = 0.99) -> None:
        for p in params:
            state = self.state[p]
            if not state:
                state.update(step=torch.tensor(0.0), mean=torch.zeros_like(p), square=torch.zeros_like(p))
            assert p.grad is not None
            state["step"] += 1
            n = state["step"].item()
            state["mean"].lerp_(p.grad, 1 - beta1)
            state["square"].lerp_(p.grad.square(), 1 - beta2)
            scale = (state["square"] / (1 - beta2**n)).sqrt_().add_(1e-8)
            p.addcdiv_(state["mean"] / (1 - beta1**n), scale, value=-rate)
