"""Builds rows with default values. A test overrides only the values that matter to it."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image as Pixels
from PIL import ImageDraw
from sqlalchemy import select
from sqlalchemy.orm import Session

from shared import catalog, projects, records, rounds
from shared.catalog.kinds import KINDS
from shared.models import Image, ImportedLora, Job, Lora, Project, Round, User

FEATURES = ["fox ears", "blonde hair", "yellow eyes"]


def png(width: int = 64, height: int = 64, mode: str = "RGB", color: Any = "teal", **save: Any) -> bytes:
    """A little picture."""
    pixels = Pixels.new("RGBA" if mode == "P" else mode, (width, height), color)
    if mode in ("RGB", "RGBA"):
        ImageDraw.Draw(pixels).ellipse((width // 4, height // 4, width // 2, height // 2), fill="orange")
    target = io.BytesIO()
    pixels.convert(mode).save(target, save.pop("format", "PNG"), **save)
    return target.getvalue()


def make_user(session: Session, name: str = "ada", **given: Any) -> User:
    user = session.scalar(select(User).where(User.name == name)) or User(name=name, **given)
    session.add(user)
    session.flush()
    return user


def make_project(session: Session, user_id: str | None = None, **given: Any) -> Project:
    """A draft, or whatever `state` says."""
    user = session.get_one(User, user_id) if user_id else make_user(session)
    wanted = {
        "name": "Eiei",
        "trigger_word": "eiei21girl",
        "subject_tags": ["1girl", "solo"],
        "feature_tags": FEATURES,
        "base_model": "chibi",
        "curation": "manual",
    }
    rows = {name: given.pop(name) for name in ("state", "error", "created_at") if name in given}
    project = projects.create(session, user, wanted | given, catalog.base_models())
    for name, value in rows.items():
        setattr(project, name, value)
    session.flush()
    return project


def make_image(session: Session, project: Project, **given: Any) -> Image:
    """An accepted reference, or whatever is said. Its object isn't there."""
    row = {
        "role": "reference",
        "source": "upload",
        "decision": "accepted",
        "tags": list(project.feature_tags),
        "key": f"projects/{project.id}/images/x.png",
        "sha256": "0" * 64,
        "size_bytes": 100,
        "width": 64,
        "height": 64,
    }
    image = Image(project_id=project.id, **(row | given))
    session.add(image)
    session.flush()
    return image


def make_job(session: Session, project: Project, **given: Any) -> Job:
    """A waiting generation."""
    kind = KINDS[given.get("kind", "generate")]
    row = {
        "kind": kind.name,
        "queue": kind.queue,
        "params": {"inference_steps": 4} if kind.name == "generate" else {},
        "inputs": job_inputs(kind.name, project),
    } | given
    work = (records.read(kind.params, row["params"]), records.read(kind.inputs, row["inputs"]))
    row = {"stages": kind.stages_of(*work), "base_model": row["inputs"].get("base_model")} | row
    job = Job(user_id=project.user_id, project_id=project.id, **row)
    session.add(job)
    session.flush()
    return job


def job_inputs(kind: str, project: Project) -> dict[str, Any]:
    """The least that a job of a kind is given."""
    said: dict[str, dict[str, Any]] = {
        "generate": {"pictures": [], "loras": []},
        "score": {"references": [], "candidates": [], "quota": {}, "feature_tags": []},
        "crop": {"image": {"id": "img_0", "key": "k", "sha256": "0"}},
        "upload": {"key": "k"},
        "train": {
            "dataset": [],
            "name": "x",
            "trigger_word": project.trigger_word,
            "subject_tags": [],
            "prompt_tags": [],
            "views": [],
        },
    }
    return {"base_model": project.base_model, **said[kind]}


def make_round(session: Session, project: Project, **given: Any) -> Round:
    """The first round, being curated."""
    plan = project.plan.rounds[0]
    row = {"number": 1, "kind": plan.kind, "target": plan.target, "plan": plan, "state": "curating"}
    round_ = Round(project=project, **(row | given))
    session.add(round_)
    session.flush()
    return round_


def make_lora(session: Session, round_: Round, **given: Any) -> Lora:
    project = round_.project
    file = {"key": f"projects/{project.id}/x.safetensors", "sha256": "0" * 64, "size_bytes": 1000}
    row = {
        "kind": round_.kind,
        "trigger_word": project.trigger_word,
        "base_model": project.base_model,
        "rank": 8,
        "alpha": 8.0,
        "train_steps": 160,
        "metrics": {"loss": 0.1},
        "files": {"kohya": file | {"filename": "x.safetensors"}, "diffusers": file | {"filename": "y.safetensors"}},
        "job_id": make_job(session, project, kind="train", state="succeeded").id,
    }
    lora = Lora(project_id=project.id, round_id=round_.id, **(row | given))
    session.add(lora)
    session.flush()
    round_.lora_id = lora.id
    return lora


def make_imported_lora(session: Session, user_id: str, **given: Any) -> ImportedLora:
    """A LoRA for chibi that a user has brought. Its object isn't there."""
    row = {
        "name": "Fox girl",
        "family": "chibi",
        "kinds": ["lora"],
        "parts": {"unet": 56},
        "rank": 8,
        "trigger_word": "",
        "base_model": "",
        "license": "",
        "filename": "fox.safetensors",
        "key": f"imported-loras/{user_id}/x.safetensors",
        "sha256": "0" * 64,
        "size_bytes": 1000,
    }
    lora = ImportedLora(user_id=user_id, **(row | given))
    session.add(lora)
    session.flush()
    return lora


def make_curating(session: Session, user_id: str, candidates: int = 3, **given: Any) -> tuple[Project, Round]:
    """A running project whose first round has four references, a LoRA and candidates to decide about."""
    project = make_project(session, user_id, state="running", **given)
    for _ in range(4):
        make_image(session, project)
    round_ = make_round(session, project)
    make_lora(session, round_)
    for number in range(candidates):
        make_image(
            session,
            project,
            role="candidate",
            source="generated",
            decision="pending",
            round_id=round_.id,
            seed=number,
            prompt="eiei21girl, 1girl, solo, from side",
        )
    return project, round_


def make_failed(session: Session, user_id: str) -> tuple[Project, Round]:
    """The same, but for a generation that has failed, and the round with it."""
    project, round_ = make_curating(session, user_id)
    round_.state = "generating"
    error = {"code": "gpu_oom", "message": "too large", "retryable": True}
    job = make_job(session, project, kind="generate", round_id=round_.id, state="failed", error=error)
    rounds.job_ended_badly(session, job)
    return project, round_
