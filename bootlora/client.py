"""The resources of `/v1` and what you can do with them.

bootlora = Bootlora("http://127.0.0.1:8000", "bl_...")
project = bootlora.projects.create(name="Eiei", trigger_word="eiei21girl", feature_tags=["fox ears"])
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bootlora.http import ApiError, Http, file_name
from bootlora.types import Event, Image, ImportedFile, Job, Lora, Project, Round, WantedLora, WantedPicture

ENDED = ("succeeded", "failed", "cancelled")
PAGE = 100
WAIT_SECONDS = 20.0  # the longest that one request waits for a job


class Bootlora:
    """A connection to one service with one API key."""

    def __init__(self, url: str, api_key: str):
        self.http = Http(url.strip().rstrip("/").removesuffix("/v1") + "/v1", api_key)
        self.projects = Projects(self.http)
        self.images = Images(self.http)
        self.rounds = Rounds(self.http)
        self.loras = Loras(self.http)
        self.jobs = Jobs(self.http)

    def me(self) -> dict[str, Any]:
        return self.http.get("/me")

    def limits(self) -> dict[str, Any]:
        return self.http.get("/limits")

    def base_models(self) -> list[dict[str, Any]]:
        return list(self.http.pages("/base-models"))


class _Resource:
    def __init__(self, http: Http):
        self.http = http


class Projects(_Resource):
    """Projects. Each makes the LoRA of one character."""

    def create(self, *, name: str, trigger_word: str, feature_tags: Sequence[str] = (), **more: Any) -> Project:
        """Create a draft. `more`: subject_tags, base_model, curation, plan, metadata."""
        body = {"name": name, "trigger_word": trigger_word, "feature_tags": list(feature_tags), **more}
        return self.http.post("/projects", body)

    def all(self, **where: Any) -> Iterator[Project]:
        """Your projects, newest first. `where` filters by `state` or by a label as `metadata.NAME`."""
        return self.http.pages("/projects", limit=PAGE, **where)

    def get(self, project_id: str) -> Project:
        return self.http.get(f"/projects/{project_id}")

    def change(self, project_id: str, *, etag: str | None = None, **changes: Any) -> Project:
        """Change fields of a project. Its tags and trigger word can change only in a draft."""
        return self.http.change("PATCH", f"/projects/{project_id}", changes, etag=etag)

    def delete(self, project_id: str) -> None:
        self.http.delete(f"/projects/{project_id}")

    def start(self, project_id: str) -> Project:
        return self.http.post(f"/projects/{project_id}/start")

    def cancel(self, project_id: str) -> Project:
        return self.http.post(f"/projects/{project_id}/cancel")

    def retry(self, project_id: str) -> Project:
        """Run the failed stage again, from its last checkpoint."""
        return self.http.post(f"/projects/{project_id}/retry")

    def events(self, project_id: str, after: int = 0) -> Iterator[Event]:
        """The events after the sequence number `after`, oldest first."""
        while True:
            page = self.http.get(f"/projects/{project_id}/events", after=after, limit=PAGE)
            yield from page["items"]
            if not page["items"] or not page.get("has_more"):
                return
            after = page["items"][-1]["data"]["seq"]

    def generate(
        self,
        project_id: str,
        pictures: Sequence[WantedPicture],
        loras: Sequence[WantedLora] = (),
        params: dict[str, Any] | None = None,
    ) -> Job:
        """Draw pictures with the project's LoRAs, or with the base model alone if `loras` is empty."""
        body = {"pictures": list(pictures), "loras": list(loras), "params": params or {}}
        return self.http.post(f"/projects/{project_id}/generations", body)


class Images(_Resource):
    """Images: references, candidates, evaluations, outputs."""

    def upload(
        self,
        project_id: str,
        file: Path,
        *,
        view: str | None = None,
        framing: str | None = None,
        tags: Sequence[str] = (),
    ) -> Image:
        """Upload a reference picture. `view`, `framing` and `tags` say what it shows."""
        described = {"view": view, "framing": framing, "tags": ",".join(tags)}
        form = {name: value for name, value in described.items() if value}
        return self.http.post(f"/projects/{project_id}/images", files=_part(file), data=form)

    def import_zip(self, project_id: str, file: Path) -> Job:
        """Add the pictures of a zip, each with the caption beside it; `jobs.files` says what became of each file."""
        return self.http.post(f"/projects/{project_id}/imports", files=_part(file))

    def all(self, project_id: str, **where: Any) -> Iterator[Image]:
        """The images of a project. `where` filters by role, decision and round."""
        return self.http.pages(f"/projects/{project_id}/images", limit=PAGE, **where)

    def get(self, image_id: str) -> Image:
        return self.http.get(f"/images/{image_id}")

    def change(self, image_id: str, *, etag: str | None = None, **changes: Any) -> Image:
        """Set an image's decision, tags, view or framing."""
        return self.http.change("PATCH", f"/images/{image_id}", changes, etag=etag)

    def put_back(self, image_id: str, file: Path, *, etag: str | None = None) -> Image:
        """Replace an image with an edited version."""
        path = f"/images/{image_id}"
        return self.http.change("POST", f"{path}/versions", etag=etag, read=path, files=_part(file))

    def crop(self, image_id: str, mode: str, boxes: Sequence[dict[str, Any]] = (), *, keep_source: bool = False) -> Job:
        """Crop one image into several references. `mode`: `auto`, `quadrants` or `boxes`."""
        body = {"mode": mode, "boxes": list(boxes), "keep_source": keep_source}
        return self.http.post(f"/images/{image_id}/crops", body)

    def save(self, image: Image, path: Path) -> Path:
        return self.http.save(image["url"], path, image["sha256"])


class Rounds(_Resource):
    """Rounds of training, generating and curating."""

    def all(self, project_id: str) -> list[Round]:
        return list(self.http.pages(f"/projects/{project_id}/rounds"))

    def get(self, project_id: str, number: int) -> Round:
        return self.http.get(f"/projects/{project_id}/rounds/{number}")

    def add(self, project_id: str, kind: str, **plan: Any) -> Round:
        """Add a round to a completed project and start it. `kind`: `style` or `character`."""
        return self.http.post(f"/projects/{project_id}/rounds", {"kind": kind, **plan})

    def candidates(self, project_id: str, number: int) -> list[Image]:
        """All candidates of a round, oldest first. The order never changes, so positions can serve as numbers."""
        path = f"/projects/{project_id}/rounds/{number}/candidates"
        return sorted(self.http.pages(path, limit=PAGE), key=lambda image: (image["created_at"], image["id"]))

    def more(self, project_id: str, number: int, count: int, views: Sequence[str] = ()) -> Job:
        """Draw more candidates, of the given views or else of the views that still lack pictures."""
        body: dict[str, Any] = {"count": count} | ({"views": list(views)} if views else {})
        return self.http.post(f"/projects/{project_id}/rounds/{number}/candidates", body)

    def decide(
        self,
        project_id: str,
        number: int,
        *,
        accepted: Sequence[str] = (),
        rejected: Sequence[str] = (),
        etag: str | None = None,
    ) -> Round:
        """Accept and reject candidates. Either all decisions are taken or none."""
        path = f"/projects/{project_id}/rounds/{number}"
        body = {"accepted": list(accepted), "rejected": list(rejected)}
        return self.http.change("PUT", f"{path}/decisions", body, etag=etag, read=path)

    def finish(self, project_id: str, number: int, *, accept_fewer: bool = False, etag: str | None = None) -> Round:
        """End the curation. Undecided candidates count as rejected."""
        path = f"/projects/{project_id}/rounds/{number}"
        return self.http.change("POST", f"{path}/finish", {"accept_fewer": accept_fewer}, etag=etag, read=path)


class Loras(_Resource):
    """LoRAs: those that were trained, and those that you have brought."""

    def add(self, file: Path, **more: str) -> Lora:
        """Bring a LoRA of another tool. `more`: name, trigger_word, license, family, where the file doesn't say it."""
        return self.http.post("/loras", files=_part(file), data=more)

    def brought(self) -> Iterator[Lora]:
        """The LoRAs that you have brought, newest first."""
        return self.http.pages("/loras", limit=PAGE)

    def delete(self, lora_id: str) -> None:
        """Delete a LoRA that you have brought, unless a job is about to draw with it."""
        self.http.delete(f"/loras/{lora_id}")

    def all(self, project_id: str) -> list[Lora]:
        """The LoRAs of a project, oldest first."""
        return sorted(self.http.pages(f"/projects/{project_id}/loras"), key=lambda lora: lora["created_at"])

    def get(self, lora_id: str) -> Lora:
        return self.http.get(f"/loras/{lora_id}")

    def save(self, lora: Lora, format_: str, folder: Path) -> Path:
        """Download a file: `kohya` for ComfyUI, A1111 and Forge, `diffusers`, or `original` if you have brought it."""
        file = lora["files"][format_]
        return self.http.save(file["url"], folder / file_name(file["filename"]), file["sha256"])


class Jobs(_Resource):
    """Jobs: queued, running or ended."""

    def get(self, job_id: str, *, wait_seconds: float = 0) -> Job:
        return self.http.get(f"/jobs/{job_id}", wait_seconds=wait_seconds)

    def cancel(self, job_id: str) -> Job:
        return self.http.post(f"/jobs/{job_id}/cancel")

    def images(self, job_id: str) -> list[Image]:
        """The images that a job has drawn or cropped, in order."""
        return list(self.http.pages(f"/jobs/{job_id}/images", limit=PAGE))

    def files(self, job_id: str) -> list[ImportedFile]:
        """What became of each file of a zip."""
        return list(self.http.get(f"/jobs/{job_id}/files")["items"])

    def wait(self, job_id: str, timeout_seconds: float = 3600) -> Job:
        """Wait until the job has succeeded and return it.

        Raises:
            ApiError: the job failed, was cancelled, or took longer than `timeout_seconds`.
        """
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            job = self.get(job_id, wait_seconds=min(WAIT_SECONDS, deadline - time.monotonic()))
            if job["state"] in ENDED:
                return succeeded(job)
            time.sleep(0.2)
        raise ApiError(0, "timeout", f"job {job_id} has not ended in {timeout_seconds:.0f} s; wait again or cancel it")


def succeeded(job: Job) -> Job:
    if job["state"] == "succeeded":
        return job
    error = job.get("error") or {"code": job["state"], "message": f"job {job['id']} was {job['state']}"}
    raise ApiError(0, error["code"], error["message"])


def _part(file: Path) -> dict[str, tuple[str, bytes]]:
    """A multipart file part, read into memory, so that a retry can send it again."""
    return {"file": (file.name, file.read_bytes())}
