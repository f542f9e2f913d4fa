"""A job kind for tests, with handlers that end in every possible way."""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass
from typing import Any

from shared.catalog.kinds import ImageInput, JobKind
from shared.errors import JobFailed, Unavailable
from workers.checkpoints import StoredCheckpoints
from workers.work import Work


@dataclass(frozen=True, kw_only=True)
class ProbeParams:
    steps: int = 0
    seconds: float = 0.02
    most: int = 0


@dataclass(frozen=True, kw_only=True)
class ProbeInputs:
    file: ImageInput | None = None


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    first: int = 0
    seen: list[Any] | None = None


def probe(handler: str, timeout_seconds: int = 30) -> JobKind[ProbeParams, ProbeInputs, ProbeResult]:
    return JobKind(
        name="probe",
        verb="probing",
        queue="cpu",
        timeout_seconds=timeout_seconds,
        handler=f"tests.workers.handlers:{handler}",
        taken_by="tests.workers.handlers:take",
        params=ProbeParams,
        inputs=ProbeInputs,
        result=ProbeResult,
    )


def take(session: Any, job: Any, result: ProbeResult) -> None:
    """Nothing follows from it."""


def steps(work: Work[ProbeParams, ProbeInputs]) -> ProbeResult:
    """Counts to `params.steps`, slowly enough to be interrupted, and goes on where it was."""
    first = (work.job.checkpoint or {}).get("step", 0)
    for step in range(first + 1, work.params.steps + 1):
        time.sleep(work.params.seconds)
        work.save_checkpoint({"step": step})
        work.step("counting", step, work.params.steps)
    return ProbeResult(first=first)


def trains(work: Work[ProbeParams, ProbeInputs]) -> ProbeResult:
    """Saves a checkpoint only when it must go."""
    checkpoints = StoredCheckpoints(work)
    found = checkpoints.latest()
    first = int(found.read_text()) if found else 0
    for step in range(first + 1, work.params.steps + 1):
        time.sleep(0.02)
        if checkpoints.wanted():
            (work.folder / "checkpoint").write_text(str(step))
            checkpoints.save(work.folder / "checkpoint", step)
        work.step("training", step, work.params.steps)
    return ProbeResult(first=first)


def looks(work: Work[ProbeParams, ProbeInputs]) -> ProbeResult:
    """Looks at a picture, with no more pixels than it needs."""
    assert work.inputs.file
    image = work.image(work.inputs.file, work.params.most)
    return ProbeResult(seen=[image.mode, *image.size])


def fails(work: Work[ProbeParams, ProbeInputs]) -> ProbeResult:
    raise JobFailed("nan_loss", "the loss is not a number", retryable=True)


def crashes(work: Work[ProbeParams, ProbeInputs]) -> ProbeResult:
    raise ZeroDivisionError("a secret of ours")


def store_is_down(work: Work[ProbeParams, ProbeInputs]) -> ProbeResult:
    raise Unavailable("the store does not answer")


def leaves_things(work: Work[ProbeParams, ProbeInputs]) -> ProbeResult:
    (work.folder / "leftover").write_text("x" * 1000)
    os.environ["BOOTLORA_TEST_FOLDER"] = str(work.folder)
    raise JobFailed("invalid_dataset", "no")


def fetches(work: Work[ProbeParams, ProbeInputs]) -> ProbeResult:
    assert work.inputs.file
    work.fetch(work.inputs.file.key, work.inputs.file.sha256)
    return ProbeResult()


def counts(work: Work[ProbeParams, ProbeInputs]) -> ProbeResult:
    """Comes to many steps, and writes nothing."""
    for step in range(work.params.steps):
        time.sleep(0.01)
        work.step("counting", step, work.params.steps)
    return ProbeResult()


def fills_the_disk(work: Work[ProbeParams, ProbeInputs]) -> ProbeResult:
    raise OSError(errno.ENOSPC, "No space left on device")


def tells_nonsense(work: Work[ProbeParams, ProbeInputs]) -> dict[str, Any]:
    return {"no": "record"}


def tells_a_wrong_type(work: Work[ProbeParams, ProbeInputs]) -> ProbeResult:
    return ProbeResult(first="one")  # type: ignore[arg-type]
