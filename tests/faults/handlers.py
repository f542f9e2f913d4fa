"""Handlers that stand where torch would: they fetch, step, report, checkpoint and store as the real ones do.

A real one's work is a wait here. The params of a job may ask for trouble; see `Trouble`.
"""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shared.catalog.kinds import (
    CropInputs,
    CropParams,
    CropResult,
    DrawnImage,
    GenerateInputs,
    GenerateResult,
    ScoreInputs,
    ScoreResult,
    StoredFile,
    TrainInputs,
    TrainMetrics,
    TrainResult,
)
from shared.catalog.params import GenerateParams, ScoreParams, TrainParams
from shared.errors import JobFailed
from workers.checkpoints import StoredCheckpoints
from workers.handlers import crop as real_crop
from workers.work import Work

SIDE = 64
STEP_SECONDS = 0.05
CONTENT = os.urandom(1 << 14)
GROWN: list[bytes] = []


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """What goes wrong at picture `at`. What hurts happens in as many attempts as its number says, from the first on."""

    at: int = 0
    dies: bool = False  # by SIGKILL
    fails: str | None = None  # the code of the error
    fills: int = 0  # bytes written to the disk
    loses_gpu: int = 0
    grows: int = 0  # bytes of memory
    hangs: bool = False
    deaf: bool = False  # hangs, and swallows what would end it
    seconds: float = STEP_SECONDS  # for a picture
    diary: str | None = None  # a file in which each picture that is stored is written down


@dataclass(frozen=True, kw_only=True)
class TroubledGenerate(GenerateParams, Trouble):
    pass


@dataclass(frozen=True, kw_only=True)
class TroubledScore(ScoreParams, Trouble):
    pass


@dataclass(frozen=True, kw_only=True)
class TroubledCrop(CropParams, Trouble):
    mode: str = "auto"
    steps: int = 0


def train(work: Work[TrainParams, TrainInputs]) -> TrainResult:
    """Counts steps, and goes on from the newest checkpoint that is good."""
    params = work.params
    for entry in work.inputs.dataset:
        work.fetch(entry.key, entry.sha256)
    checkpoints = StoredCheckpoints(work)
    found = checkpoints.latest()
    first = int(found.read_bytes().split(b"\n")[0]) if found else 0
    for step in range(first + 1, params.train_steps + 1):
        time.sleep(STEP_SECONDS)
        if step % params.checkpoint_every_steps == 0 or checkpoints.wanted():
            checkpoints.save(_file(work, "checkpoint", b"%d\n" % step), step)
        work.step("training", step, params.train_steps, loss=0.1)
    stored = {name: work.store(f"{name}.safetensors", _file(work, name, b"weights")) for name in ("kohya", "diffusers")}
    files = {name: StoredFile(**asdict(each), filename=f"{name}.safetensors") for name, each in stored.items()}
    metrics = TrainMetrics(loss=0.1, curve=[(first, 0.1)], seconds=0.0, images=len(work.inputs.dataset))
    return TrainResult(train_steps=params.train_steps, metrics=metrics, files=files)


def generate(work: Work[TroubledGenerate, GenerateInputs]) -> GenerateResult:
    """Draws nothing, picture by picture; each that is stored is written down in `params.diary`."""
    params, wanted = work.params, work.inputs.pictures
    for lora in work.inputs.loras:
        work.fetch(lora.key, lora.sha256)
    done: dict[str, Any] = dict((work.job.checkpoint or {}).get("images", {}))
    _note(params, f"{work.job.id} attempt {work.job.attempt} has {len(done)}")
    for index, picture in enumerate(wanted):
        if str(index) in done:
            continue
        time.sleep(params.seconds)
        _trouble(work, index)
        stored = work.store(f"{index:04}.png", _file(work, "picture", b"%d" % index), "image/png")
        told = {name: value for name, value in asdict(picture).items() if name != "original"}
        done[str(index)] = {**asdict(stored), "width": SIDE, "height": SIDE, **told}
        work.save_checkpoint({"images": done})
        _note(params, f"{work.job.id} drew {index}")
        work.step("generating", index + 1, len(wanted))
    return GenerateResult(images=[DrawnImage(**done[str(index)]) for index in range(len(wanted))])


def score(work: Work[TroubledScore, ScoreInputs]) -> ScoreResult:
    """Accepts the first of each view, as many as the quota asks for."""
    _trouble(work, 0)
    quota, accepted = dict(work.inputs.quota), []
    for candidate in work.inputs.candidates:
        work.fetch(candidate.key, candidate.sha256)
        if candidate.view and quota.get(candidate.view, 0) > 0:
            quota[candidate.view] -= 1
            accepted.append(candidate.id)
    return ScoreResult(scores={}, accepted=accepted)


def crop(work: Work[TroubledCrop, CropInputs]) -> CropResult:
    """Cuts as the real one does, after its steps."""
    _note(work.params, f"{work.job.id} attempt {work.job.attempt}")
    _trouble(work, 0)
    for step in range(work.params.steps):
        time.sleep(STEP_SECONDS)
        work.step("cropping", step + 1, work.params.steps)
    return real_crop.run(work)


def _trouble(work: Work[Any, Any], index: int) -> None:
    params: Trouble = work.params
    if index != params.at:
        return
    if params.dies:
        os.kill(os.getpid(), signal.SIGKILL)
    if params.fails:
        raise JobFailed(params.fails, "as it was told", retryable=True)
    if params.fills:
        _file(work, "filler", bytes(params.fills))
    if work.job.attempt <= params.loses_gpu:
        raise RuntimeError("CUDA error: device-side assert triggered")
    if params.grows:
        GROWN.append(b"x" * params.grows)
    if params.hangs:
        time.sleep(3600)
    while params.deaf:
        with suppress(Exception):
            time.sleep(3600)


def _file(work: Work[Any, Any], name: str, content: bytes) -> Path:
    path = work.folder / name
    path.write_bytes(content + b"\n" + CONTENT)
    return path


def _note(params: Trouble, line: str) -> None:
    if params.diary:
        with Path(params.diary).open("a") as diary:
            diary.write(json.dumps([os.getpid(), line]) + "\n")
