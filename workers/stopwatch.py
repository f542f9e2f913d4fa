"""How long each stage of an attempt takes."""

from __future__ import annotations

import time


class Stopwatch:
    """Runs from the start of an attempt. The time before the first stage belongs to the first stage."""

    def __init__(self) -> None:
        self.stage: str | None = None
        self._began = self._stage_began = time.monotonic()
        self._spent: dict[str, float] = {}  # seconds, by the stages before the present one

    def begin(self, stage: str) -> None:
        """End the present stage and begin another one. Nothing changes if it is the present one."""
        if stage == self.stage:
            return
        if self.stage is not None:
            self._spent, self._stage_began = self.seconds(), time.monotonic()
        self.stage = stage

    def seconds(self) -> dict[str, float]:
        """Seconds by stage until now. The work of a handler that names no stage is the stage `working`."""
        stage = self.stage or "working"
        return self._spent | {stage: self._spent.get(stage, 0.0) + time.monotonic() - self._stage_began}

    def now(self) -> dict[str, float]:
        """For the progress of a job: seconds since the attempt began, and since its present stage began."""
        now = time.monotonic()
        return {"seconds": round(now - self._began, 2), "stage_seconds": round(now - self._stage_began, 2)}
