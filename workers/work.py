"""What a handler has in hand: the job, a folder, inputs by reference, outputs by name, and a way to report."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import stamina
from PIL import Image
from sqlalchemy.exc import DBAPIError

from shared.catalog import BaseModel
from shared.catalog.kinds import DatasetEntry, I, ImageInput, JobOutput, P, StoredImage
from shared.errors import JobFailed, NotFound, Unavailable
from shared.outside.storage import Damaged
from shared.queue import jobs
from shared.queue.jobs import ClaimedJob
from shared.runtime import Runtime
from workers.pulse import Pulse

PNG = "image/png"
ENOUGH = 4  # times the resolution that is worked at: a picture need have no longer side than that
T = TypeVar("T")


@dataclass
class Work(Generic[P, I]):
    """One attempt at one job.

    Object keys carry the attempt, so that a worker that lost its lease overwrites nothing.
    """

    job: ClaimedJob
    params: P
    inputs: I
    folder: Path
    runtime: Runtime
    pulse: Pulse
    _started: float = field(default_factory=time.monotonic)
    _first_step: int | None = None

    @property
    def base_model(self) -> BaseModel:
        name: str = getattr(self.inputs, "base_model")  # noqa: B009  (of the kinds that have one)
        try:
            return self.runtime.base_models[name]
        except KeyError:
            raise JobFailed("base_model_unavailable", f"this worker has no base model {name!r}") from None

    def fetch(self, key: str, sha256: str | None = None) -> Path:
        """An object of the store as a file, checked against the SHA-256 that its row holds. A posted file has none."""
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

    def image(self, reference: ImageInput | DatasetEntry, most: int | None = None) -> Image.Image:
        """An input picture, decoded. Every picture in the store has been re-encoded by us as PNG.

        With `most`, it is scaled so that no side has more pixels: jobs hold many pictures at once.
        """
        with Image.open(self.fetch(reference.key, reference.sha256), formats=["PNG"]) as image:
            image.load()
        if most is None or max(image.size) <= most:
            return image
        smaller = image.convert("RGBA" if image.has_transparency_data else "RGB")
        smaller.thumbnail((most, most), Image.Resampling.LANCZOS)
        return smaller

    def store(self, name: str, path: Path, content_type: str = "application/octet-stream") -> JobOutput:
        """Put an output in the store."""
        stored = self._wait_for_store(lambda: self.runtime.storage.put_file(self.key(name), path, content_type))
        return JobOutput(key=stored.key, sha256=stored.sha256, size_bytes=stored.size_bytes)

    def store_image(self, name: str, image: Image.Image) -> StoredImage:
        path = self.folder / name
        image.save(path, "PNG")
        return StoredImage(**asdict(self.store(name, path, PNG)), width=image.width, height=image.height)

    def forget(self, key: str) -> None:
        """Delete an object that has been replaced. If that can't be done now, the collector of orphans does it."""
        with suppress(Unavailable):
            self.runtime.storage.delete(key)

    def key(self, name: str) -> str:
        return f"projects/{self.job.project_id}/jobs/{self.job.id}/{self.job.attempt}/{name}"

    def save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remember where another attempt goes on. A database that is away is waited for while the job is ours."""

        def save() -> None:
            with self.runtime.db.transaction() as session:
                jobs.save_checkpoint(session, self.job, checkpoint)

        self._patiently(save, on=DBAPIError, seconds=self.runtime.settings.lease_seconds)

    def tell(self, type_: str, **data: Any) -> None:
        """Record an event, as patiently."""

        def tell() -> None:
            with self.runtime.db.transaction() as session:
                jobs.tell(session, self.job, type_, **data)

        self._patiently(tell, on=DBAPIError, seconds=self.runtime.settings.lease_seconds)

    def _wait_for_store(self, act: Callable[[], T]) -> T:
        """Wait for a store that is down, longer than its own few tries."""
        return self._patiently(act, on=_may_come_back, seconds=self.runtime.settings.store_patience_seconds)

    def _patiently(
        self, act: Callable[[], T], *, on: type[Exception] | Callable[[Exception], bool], seconds: float
    ) -> T:
        """Try until it works, and not beyond the end of the job. One that must end may try once, to save its state."""
        for attempt in stamina.retry_context(on=on, attempts=None, timeout=seconds, wait_max=10):
            with attempt:
                if attempt.num > 1:
                    self.pulse.check()
                return act()
        raise AssertionError("unreachable: the last attempt raises")

    def step(self, stage: str, done: int, total: int, **more: Any) -> None:
        """Say how far the work is, and stop here if it must."""
        if self._first_step is None:
            self._first_step, self._started = done, time.monotonic()
        progress = {"stage": stage, "step": done, "total_steps": total, **more}
        fresh = done - self._first_step
        if fresh > 0:
            elapsed = time.monotonic() - self._started
            progress["seconds_left"] = round(elapsed / fresh * (total - done), 1)
        self.pulse.progress = progress
        self.pulse.check()

    def next_stage(self) -> None:
        """What follows has its own speed."""
        self._first_step = None


def _may_come_back(error: Exception) -> bool:
    return isinstance(error, Unavailable) and not isinstance(error, Damaged)
