"""What a handler gets: the job, a scratch folder, its inputs, a way to store outputs and to report progress."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

import stamina
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from sqlalchemy.exc import DBAPIError

from shared import inventory
from shared.catalog import BaseModel
from shared.catalog.kinds import DatasetEntry, I, ImageInput, JobOutput, P, StoredImage
from shared.catalog.params import StoredPicture
from shared.errors import JobFailed, NotFound, Unavailable
from shared.outside.storage import Damaged
from shared.queue import jobs
from shared.queue.jobs import ClaimedJob
from shared.runtime import Runtime
from workers.pulse import Pulse
from workers.stopwatch import Stopwatch

PNG = "image/png"
ENOUGH = 4  # pictures are scaled down to at most so many times the training resolution
REPORTS = 11  # the speed of a stage is that between its last reports
T = TypeVar("T")


@dataclass
class Work(Generic[P, I]):
    """One attempt at one job.

    Object keys contain the attempt, so that a worker that lost its lease can't overwrite the next attempt's objects.
    """

    job: ClaimedJob
    params: P
    inputs: I
    folder: Path
    runtime: Runtime
    pulse: Pulse
    base_sha256: str = ""  # of the files of the base model that is loaded
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    _reports: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=REPORTS))  # steps, and when

    @cached_property
    def base_model(self) -> BaseModel:
        """The job's base model: that of this machine, or else that of another worker, without `path`."""
        name: str = getattr(self.inputs, "base_model")  # noqa: B009  (not all kinds have it)
        found = self.runtime.base_models.get(name)
        if found is None:
            with self.runtime.db.reading() as session:
                found = inventory.known(session, self.runtime.settings).get(name)
        if found is None:
            raise JobFailed(
                "base_model_unavailable", f"there is no base model {name!r} any more; put it back, then retry"
            )
        if found.problem:
            raise JobFailed("base_model_unusable", f"the base model {name!r} can't be used: {found.problem}")
        return found

    def fetch(self, key: str, sha256: str | None = None) -> Path:
        """Download an object and check its SHA-256. Uploads by clients have no known SHA-256 yet."""
        path = self.folder / "inputs" / hashlib.sha256(key.encode()).hexdigest()[:32]
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            try:
                self._wait_for_store(lambda: self.runtime.storage.get_to_file(key, path))
            except NotFound:
                raise JobFailed("missing_object", f"the object {key} is gone from the store") from None
            except Damaged:
                raise JobFailed("corrupt_object", f"the object {key} is not what was stored") from None
            if sha256 and hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
                path.unlink()
                raise JobFailed("corrupt_object", f"the object {key} is not what was stored")
        return path

    def image(self, reference: ImageInput | DatasetEntry | StoredPicture, most: int | None = None) -> Image.Image:
        """An input picture, decoded. All stored pictures are PNGs that the service encoded.

        `most`: scale the picture down to at most so many pixels a side, since a job holds many pictures in memory.
        """
        with Image.open(self.fetch(reference.key, reference.sha256), formats=["PNG"]) as image:
            image.load()
        if most is None or max(image.size) <= most:
            return image
        smaller = image.convert("RGBA" if image.has_transparency_data else "RGB")
        smaller.thumbnail((most, most), Image.Resampling.LANCZOS)
        return smaller

    def store(self, name: str, path: Path, content_type: str = "application/octet-stream") -> JobOutput:
        """Store an output file under this attempt's key."""
        stored = self._wait_for_store(lambda: self.runtime.storage.put_file(self.key(name), path, content_type))
        return JobOutput(key=stored.key, sha256=stored.sha256, size_bytes=stored.size_bytes)

    def store_image(self, name: str, image: Image.Image, texts: Mapping[str, str] | None = None) -> StoredImage:
        """Store a picture as PNG, with these texts in its file."""
        path, carried = self.folder / name, PngInfo()
        for key, text in (texts or {}).items():
            carried.add_text(key, text)  # as iTXt where Latin-1 is not enough
        image.save(path, "PNG", pnginfo=carried)
        return StoredImage(**asdict(self.store(name, path, PNG)), width=image.width, height=image.height)

    def forget(self, key: str) -> None:
        """Delete an object that is not needed any more. If the store is down, the orphan collector deletes it later."""
        with suppress(Unavailable):
            self.runtime.storage.delete(key)

    def key(self, name: str) -> str:
        return f"projects/{self.job.project_id}/jobs/{self.job.id}/{self.job.attempt}/{name}"

    def save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save where another attempt resumes. Retries for the length of the lease if the database is away."""

        state = checkpoint | {"base_sha256": self.base_sha256}

        def save() -> None:
            with self.runtime.db.transaction() as session:
                jobs.save_checkpoint(session, self.job, state)

        self._retried(save, on=DBAPIError, seconds=self.runtime.settings.lease_seconds)

    def record_event(self, type_: str, **data: Any) -> None:
        """Record an event about the job. Retries for the length of the lease if the database is away."""

        def record() -> None:
            with self.runtime.db.transaction() as session:
                jobs.record_event(session, self.job, type_, **data)

        self._retried(record, on=DBAPIError, seconds=self.runtime.settings.lease_seconds)

    def _wait_for_store(self, act: Callable[[], T]) -> T:
        """Retry while the store is down, for longer than the store's own retries."""
        return self._retried(act, on=_may_come_back, seconds=self.runtime.settings.store_patience_seconds)

    def _retried(self, act: Callable[[], T], *, on: type[Exception] | Callable[[Exception], bool], seconds: float) -> T:
        """Retry until it works or the job must stop. A job that must stop still gets one try, to save its state."""
        for attempt in stamina.retry_context(on=on, attempts=None, timeout=seconds, wait_max=10):
            with attempt:
                if attempt.num > 1:
                    self.pulse.check()
                return act()
        raise AssertionError("unreachable: the last attempt raises")

    def begin(self, stage: str) -> None:
        """Begin a stage of the work, as the job's kind names it. Raises `Stopped` if the work must end."""
        if stage != self.stopwatch.stage:
            self.stopwatch.begin(stage)
            self._reports.clear()  # each stage has its own speed
        self._report({"stage": stage})

    def step(self, stage: str, done: int, total: int, **more: Any) -> None:
        """Report progress, and begin the stage if it is a new one. Raises `Stopped` if the work must end."""
        if stage != self.stopwatch.stage:
            self.begin(stage)
        now = time.monotonic()
        self._reports.append((done, now))
        before, then = self._reports[0]
        progress = {"stage": stage, "step": done, "total_steps": total, **more}
        if done > before:
            progress["seconds_left"] = round((now - then) / (done - before) * (total - done), 1)
        self._report(progress)

    def _report(self, progress: dict[str, Any]) -> None:
        self.pulse.progress = progress | self.stopwatch.now()
        self.pulse.check()


def _may_come_back(error: Exception) -> bool:
    return isinstance(error, Unavailable) and not isinstance(error, Damaged)
