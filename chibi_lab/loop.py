"""A training loop that any stop can interrupt: it saves as it goes and goes on where it was."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from . import machine, parallel

SAVE_SECONDS = 120
LOG_STEPS = 50


def learning_rate(step: int, steps: int, peak: float, warmup: int = 50, decay: float = 0.35) -> float:
    """Up, level, and down at the end; level means that more steps can be added before the decay begins."""
    start = steps * (1 - decay)
    falling = max(0.02, 1 - (step - start) / max(1.0, steps - start)) if step > start else 1.0
    return peak * min(1.0, (step + 1) / warmup) * falling


@dataclass
class Loop:
    """`state` holds everything with a state_dict; `step_fn(step)` makes one step and returns the figures to log."""

    folder: Path
    name: str
    state: dict[str, nn.Module | torch.optim.Optimizer]
    step_fn: Callable[[int], dict[str, float]]
    on_save: Callable[[int], None] | None = None
    save_seconds: float = SAVE_SECONDS
    figures: list[dict[str, float]] = field(default_factory=list)

    @property
    def checkpoint(self) -> Path:
        return self.folder / f"{self.name}.ckpt"

    def resume(self) -> int:
        """The step to go on from."""
        if not self.checkpoint.exists():
            return 0
        saved = torch.load(self.checkpoint, weights_only=True, map_location=machine.device())
        for key, value in self.state.items():
            value.load_state_dict(saved[key])
        return saved["step"]

    def save(self, step: int) -> None:
        if parallel.rank() > 0:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.checkpoint.with_suffix(".part")
        torch.save({"step": step, **{k: v.state_dict() for k, v in self.state.items()}}, unfinished)
        unfinished.rename(self.checkpoint)
        if self.on_save:
            self.on_save(step)

    def run(self, steps: int) -> None:
        step, saved_at, begun = self.resume(), time.time(), time.time()
        first = step
        while step < steps:
            self.figures.append(self.step_fn(step))
            step += 1
            if step % LOG_STEPS == 0 or step == steps:
                self.log(step, (step - first) / (time.time() - begun))
            if time.time() - saved_at > self.save_seconds or step == steps:
                self.save(step)
                saved_at = time.time()

    def log(self, step: int, steps_per_second: float) -> None:
        if parallel.rank() > 0:
            return
        mean = {k: sum(f[k] for f in self.figures) / len(self.figures) for k in self.figures[-1]}
        self.figures.clear()
        line = {"stage": self.name, "step": step, "steps_per_second": round(steps_per_second, 2)}
        line |= {k: round(v, 5) for k, v in mean.items()}
        print(json.dumps(line), flush=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
