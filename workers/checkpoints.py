"""Checkpoints of a training in the object store, so that any worker can resume it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog

from shared.errors import JobFailed, NotFound, Unavailable
from workers.work import Work

log = structlog.get_logger()


class StoredCheckpoints:
    """Keeps the newest two checkpoints, in case one is damaged."""

    def __init__(self, work: Work[Any, Any]):
        self._work = work
        known = work.job.checkpoint or {}
        self._kept: list[dict[str, Any]] = list(known.get("kept", []))
        # The keys "tamed" and "leaner" stay: rows of earlier versions have them.
        self.rate_halved = bool(known.get("tamed"))  # the loss diverged once; train on at half the learning rate
        self.less_memory: dict[str, Any] = known.get("leaner", {})  # parameters that lower the memory use

    def latest(self) -> Path | None:
        for entry in self._kept:
            try:
                return self._work.fetch(entry["key"], entry["sha256"])
            except (JobFailed, NotFound, Unavailable) as error:
                log.warning("checkpoint.unusable", key=entry["key"], error=str(error))
        return None

    def wanted(self) -> bool:
        """Whether to save now: a draining worker saves at the next step."""
        return self._work.pulse.draining

    def halve_rate(self) -> None:
        """Halve the learning rate for all later attempts."""
        self.rate_halved = True
        self._remember()

    def save_memory(self, params: dict[str, Any]) -> None:
        """Use these parameters in all later attempts, so that the training fits into the GPU's memory."""
        self.less_memory = params
        self._remember()

    def save(self, path: Path, step: int) -> None:
        stored = self._work.store(f"checkpoint-{step}.safetensors", path)
        old = self._kept[1:]
        self._kept = [{**asdict(stored), "step": step}, *self._kept[:1]]
        self._remember()
        for entry in old:
            self._work.forget(entry["key"])

    def _remember(self) -> None:
        step = self._kept[0]["step"] if self._kept else 0
        state = {"step": step, "kept": self._kept, "tamed": self.rate_halved, "leaner": self.less_memory}
        self._work.save_checkpoint(state)
