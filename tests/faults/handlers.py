"""Handlers that stand where torch would: they fetch, step, report, checkpoint and store as the real ones do.

A real one's work is a wait here. `params` of a job may ask for trouble; see `_trouble`.
"""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from shared.errors import JobFailed
from workers.checkpoints import StoredCheckpoints
from workers.work import Work

SIDE = 64
STEP_SECONDS = 0.05
CONTENT = os.urandom(1 << 14)
GROWN: list[bytes] = []


def train(work: Work) -> dict[str, Any]:
    """Counts steps, and goes on from the newest checkpoint that is good."""
    params = work.job.params
    for entry in work.job.inputs["dataset"]:
        work.fetch(entry)
    checkpoints = StoredCheckpoints(work)
    found = checkpoints.latest()
    first = int(found.read_bytes().split(b"\n")[0]) if found else 0
    for step in range(first + 1, params["train_steps"] + 1):
        time.sleep(STEP_SECONDS)
        if step % params["checkpoint_every_steps"] == 0 or checkpoints.wanted():
            checkpoints.save(_file(work, "checkpoint", b"%d\n" % step), step)
        work.step("training", step, params["train_steps"], loss=0.1)
    files = {
        name: {**work.store(f"{name}.safetensors", _file(work, name, b"weights")), "filename": f"{name}.safetensors"}
        for name in ("kohya", "diffusers")
    }
    return {"train_steps": params["train_steps"], "metrics": {"first": first}, "files": files}


def generate(work: Work) -> dict[str, Any]:
    """Draws nothing, picture by picture; each that is stored is written down in `params.diary`."""
    params, wanted = work.job.params, work.job.inputs["pictures"]
    for lora in work.job.inputs["loras"]:
        work.fetch(lora)
    done: dict[str, Any] = dict((work.job.checkpoint or {}).get("images", {}))
    _note(params, f"{work.job.id} attempt {work.job.attempt} has {len(done)}")
    for index, picture in enumerate(wanted):
        if str(index) in done:
            continue
        time.sleep(params.get("seconds", STEP_SECONDS))
        _trouble(work, index)
        stored = work.store(f"{index:04}.png", _file(work, "picture", b"%d" % index), "image/png")
        kept = {name: picture[name] for name in ("prompt", "seed", "view", "framing")}
        done[str(index)] = {**stored, "width": SIDE, "height": SIDE, **kept}
        work.save_checkpoint({"images": done})
        _note(params, f"{work.job.id} drew {index}")
        work.step("generating", index + 1, len(wanted))
    return {"images": [done[str(index)] for index in range(len(wanted))]}


def score(work: Work) -> dict[str, Any]:
    """Takes the first of each view, as many as the quota asks for."""
    _trouble(work, 0)
    quota, accepted = dict(work.job.inputs["quota"]), []
    for candidate in work.job.inputs["candidates"]:
        work.fetch(candidate)
        if quota.get(candidate["view"], 0) > 0:
            quota[candidate["view"]] -= 1
            accepted.append(candidate["id"])
    return {"scores": {}, "accepted": accepted}


def crop(work: Work) -> dict[str, Any]:
    """Cuts nothing."""
    _note(work.job.params, f"{work.job.id} attempt {work.job.attempt}")
    _trouble(work, 0)
    for step in range(work.job.params.get("steps", 0)):
        time.sleep(STEP_SECONDS)
        work.step("cropping", step + 1, work.job.params["steps"])
    return {"crops": []}


def _trouble(work: Work, index: int) -> None:
    """`at` says at which picture: `dies`, `fails`, `hangs`, is `deaf`, `grows`, `fills` the disk or `loses_gpu`.

    What hurts happens so often as its number says: in as many attempts, from the first on.
    """
    params = work.job.params
    if index != params.get("at", 0):
        return
    if params.get("dies"):
        os.kill(os.getpid(), signal.SIGKILL)
    if params.get("fails"):
        raise JobFailed(params["fails"], "as it was told", retryable=True)
    if params.get("fills"):
        _file(work, "filler", bytes(params["fills"]))
    if work.job.attempt <= params.get("loses_gpu", 0):
        raise RuntimeError("CUDA error: device-side assert triggered")
    if params.get("grows"):
        GROWN.append(b"x" * params["grows"])
    if params.get("hangs"):
        time.sleep(3600)
    while params.get("deaf"):
        with suppress(Exception):
            time.sleep(3600)


def _file(work: Work, name: str, content: bytes) -> Path:
    path = work.folder / name
    path.write_bytes(content + b"\n" + CONTENT)
    return path


def _note(params: dict[str, Any], line: str) -> None:
    if params.get("diary"):
        with Path(params["diary"]).open("a") as diary:
            diary.write(json.dumps([os.getpid(), line]) + "\n")
