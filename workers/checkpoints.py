"""Checkpoints of a training in the object store, for whichever worker goes on with it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog

from shared.errors import JobFailed, NotFound, Unavailable
from workers.work import Work

log = structlog.get_logger()


class StoredCheckpoints:
    """The newest two, so that one half-written or rotten is no loss."""

    def __init__(self, work: Work[Any, Any]):
        self._work = work
        known = work.job.checkpoint or {}
        self._kept: list[dict[str, Any]] = list(known.get("kept", []))
        self.tamed = bool(known.get("tamed"))  # it has diverged once, and goes on at half its learning rate
        self.leaner: dict[str, Any] = known.get("leaner", {})  # parameters with which it needs less memory

    def latest(self) -> Path | None:
        for entry in self._kept:
            try:
                return self._work.fetch(entry["key"], entry["sha256"])
            except (JobFailed, NotFound, Unavailable) as error:
                log.warning("checkpoint.unusable", key=entry["key"], error=str(error))
        return None

    def wanted(self) -> bool:
        """A worker that is about to shut down saves at once."""
        return self._work.pulse.draining

    def tame(self) -> None:
        """Remember for every later attempt that the learning rate was too high."""
        self.tamed = True
        self._remember()

    def save_memory(self, leaner: dict[str, Any]) -> None:
        """Remember for every later attempt that the card has too little memory for more."""
        self.leaner = leaner
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
        state = {"step": step, "kept": self._kept, "tamed": self.tamed, "leaner": self.leaner}
        self._work.save_checkpoint(state)
