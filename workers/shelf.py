"""The base models on this worker's machine, looked for again and again while jobs run."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import structlog

from shared.checkpoints import hashes
from shared.checkpoints.header import BadModel
from shared.checkpoints.scan import Scan
from shared.runtime import Runtime

log = structlog.get_logger()

LOOK_SECONDS = 5.0
HASH_SECONDS = 1.0
RETRY_SECONDS = 60.0  # a model that could not be read is tried again after this time


class Shelf:
    """Keeps `base_models` of a runtime up to date: new files without a restart, hashes as they are computed."""

    def __init__(self, runtime: Runtime):
        self._runtime = runtime
        self._scratch = runtime.settings.scratch_dir
        self._scan = Scan(runtime.settings.models_dir, runtime.settings.models_file)
        self._problems: dict[str, str] = {}
        self._retry_at: dict[str, float] = {}  # of models that could not be read

    def look(self) -> None:
        """Look for base models. Logs each new problem once."""
        models = self._scan.look(partial(hashes.look_up, hashes.known(self._scratch)))
        problems = {name: model.problem for name, model in models.items() if model.problem}
        for name, problem in problems.items():
            if self._problems.get(name) != problem:
                log.warning("base_model.unusable", base_model=name, path=models[name].path, problem=problem)
        self._problems = problems
        self._runtime.base_models = models

    def hash_next(self) -> None:
        """Compute one hash that is missing. A large file takes some seconds, and nothing waits for it."""
        for name, model in self._runtime.base_models.items():
            if model.sha256 or model.problem or time.monotonic() < self._retry_at.get(name, 0.0):
                continue
            try:
                hashes.sha256(Path(model.path), self._scratch)
            except (OSError, BadModel) as error:
                log.warning("base_model.not_hashed", base_model=name, error=str(error))
                self._retry_at[name] = time.monotonic() + RETRY_SECONDS
            self.look()
            return
