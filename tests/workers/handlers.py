"""Handlers that end in every way a handler can."""

from __future__ import annotations

import errno
import os
import time
from typing import Any

from shared.errors import JobFailed, Unavailable
from workers.checkpoints import StoredCheckpoints
from workers.work import Work


def steps(work: Work) -> dict[str, Any]:
    """Counts to `params.steps`, slowly enough to be interrupted, and goes on where it was."""
    first = (work.job.checkpoint or {}).get("step", 0)
    for step in range(first + 1, work.job.params["steps"] + 1):
        time.sleep(work.job.params.get("seconds", 0.02))
        work.save_checkpoint({"step": step})
        work.step("counting", step, work.job.params["steps"])
    return {"crops": [], "first": first}


def trains(work: Work) -> dict[str, Any]:
    """Saves a checkpoint only when it must go."""
    checkpoints = StoredCheckpoints(work)
    found = checkpoints.latest()
    first = int(found.read_text()) if found else 0
    for step in range(first + 1, work.job.params["steps"] + 1):
        time.sleep(0.02)
        if checkpoints.wanted():
            (work.folder / "checkpoint").write_text(str(step))
            checkpoints.save(work.folder / "checkpoint", step)
        work.step("training", step, work.job.params["steps"])
    return {"crops": [], "first": first}


def looks(work: Work) -> dict[str, Any]:
    """Looks at a picture, with no more pixels than it needs."""
    image = work.image(work.job.inputs["file"], work.job.params["most"])
    return {"crops": [], "seen": [image.mode, *image.size]}


def fails(work: Work) -> dict[str, Any]:
    raise JobFailed("nan_loss", "the loss is not a number", retryable=True)


def crashes(work: Work) -> dict[str, Any]:
    raise ZeroDivisionError("a secret of ours")


def store_is_down(work: Work) -> dict[str, Any]:
    raise Unavailable("the store does not answer")


def leaves_things(work: Work) -> dict[str, Any]:
    (work.folder / "leftover").write_text("x" * 1000)
    os.environ["BOOTLORA_TEST_FOLDER"] = str(work.folder)
    raise JobFailed("invalid_dataset", "no")


def fetches(work: Work) -> dict[str, Any]:
    work.fetch(work.job.inputs["file"])
    return {"crops": []}


def counts(work: Work) -> dict[str, Any]:
    """Comes to many steps, and writes nothing."""
    for step in range(work.job.params["steps"]):
        time.sleep(0.01)
        work.step("counting", step, work.job.params["steps"])
    return {"crops": []}


def fills_the_disk(work: Work) -> dict[str, Any]:
    raise OSError(errno.ENOSPC, "No space left on device")


def tells_nonsense(work: Work) -> dict[str, Any]:
    return {"no": "crops"}
