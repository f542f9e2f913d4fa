"""LoRAs: those that were trained here, and those that users bring."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared import texts
from shared.catalog import BaseModel, kinds
from shared.catalog.kinds import LoraInput, TrainResult
from shared.checkpoints.header import BadModel, header_of
from shared.errors import Conflict, Invalid, NotFound, TooLarge
from shared.lifecycle import JobState
from shared.lora_files.kinds import BadLora
from shared.lora_files.recognition import recognise
from shared.lora_files.values import check_finite
from shared.models import ImportedLora, Job, Lora, Project, Round, User
from shared.settings import Settings
from shared.texts import UNSEEN, UNSEEN_BEYOND

MAX_TEXT = 200  # letters of what a file says of itself


def add(session: Session, job: Job, round_: Round, result: TrainResult) -> Lora:
    """Add a trained LoRA and assign it to its round, which draws with it."""
    params = kinds.TRAIN.params_of(job)
    lora = Lora(
        project_id=round_.project_id,
        round_id=round_.id,
        job_id=job.id,
        kind=round_.kind,
        trigger_word=round_.project.trigger_word,
        base_model=round_.project.base_model,
        rank=params.rank,
        alpha=params.alpha,
        train_steps=result.train_steps,
        metrics=asdict(result.metrics),
        terms=result.terms,
        files={name: asdict(file) for name, file in result.files.items()},
    )
    session.add(lora)
    session.flush()
    round_.lora_id = lora.id
    return lora


def of_project(
    session: Session, project: Project, wanted: list[dict[str, Any]], base_models: Mapping[str, BaseModel]
) -> list[LoraInput]:
    """LoRAs with weights, as job inputs.

    Raises:
        NotFound: the project's owner has no such LoRA.
        Conflict: a LoRA is for another base model.
    """
    return [_wanted(session, project, each["lora_id"], each.get("weight", 1.0), base_models) for each in wanted]


def _wanted(
    session: Session, project: Project, lora_id: str, weight: float, base_models: Mapping[str, BaseModel]
) -> LoraInput:
    query = select(Lora).join(Project, Project.id == Lora.project_id)
    lora = session.scalar(query.where(Lora.id == lora_id, Project.user_id == project.user_id))
    if lora is not None:
        if lora.base_model != project.base_model:
            raise Conflict(
                f"LoRA {lora.id} is for the base model {lora.base_model}, not for {project.base_model}",
                code="wrong_base_model",
            )
        return as_input(lora, weight)
    imported = imported_of(session, project.user_id, lora_id)
    if imported is None:
        raise NotFound(f"there is no LoRA {lora_id}; list yours with GET /v1/loras and GET /v1/projects/ID/loras")
    family = base_models[project.base_model].family
    if imported.family != family:
        raise Conflict(
            f"LoRA {imported.id} ({imported.name}) is for base models of the family {imported.family}, and "
            f"{project.base_model} is of the family {family}",
            code="wrong_base_model",
        )
    return LoraInput(id=imported.id, key=imported.key, sha256=imported.sha256, weight=weight, name=imported.name)


def as_input(lora: Lora, weight: float) -> LoraInput:
    """A trained LoRA as a job input."""
    file = lora.files["diffusers"]
    name = lora.files["kohya"]["filename"].removesuffix(".safetensors")
    return LoraInput(id=lora.id, key=file["key"], sha256=file["sha256"], weight=weight, name=name)


# LoRAs that users bring


def columns_of(file: IO[bytes], filename: str, *, family: str | None, settings: Settings) -> dict[str, Any]:
    """The columns of `ImportedLora` for an uploaded file. Reads all of it, a piece at a time.

    Raises:
        TooLarge: its header is larger than allowed.
        Invalid: it is not a LoRA that can be used. Nothing of it is kept.
    """
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    looks_like_header = file.read(1) == b"{"
    if looks_like_header and length > settings.max_lora_header_bytes:
        raise TooLarge(
            f"the header of the file has {length} bytes, and {settings.max_lora_header_bytes} are allowed",
            code="lora_header_too_large",
        )
    try:
        header = header_of(file)
        found = recognise(header, family)
        check_finite(file, header)
    except BadModel as error:
        raise Invalid(f"{_shown(filename)}: {error}", code="not_safetensors") from error
    except BadLora as error:
        raise Invalid(f"{_shown(filename)}: {error}", code=error.code) from error
    written = found.metadata
    version = written.get("ss_base_model_version") or written.get("modelspec.architecture", "")
    return {
        "name": _text(written.get("modelspec.title") or written.get("ss_output_name") or Path(filename).stem),
        "family": found.family,
        "kinds": found.kinds,
        "parts": found.parts,
        "rank": found.rank,
        "trigger_word": _text(written.get("modelspec.trigger_phrase", "")),
        "base_model": _text(written.get("ss_sd_model_name") or version),
        "license": _text(written.get("modelspec.license", "")),
    }


def take_in(session: Session, user: User, columns: dict[str, Any]) -> tuple[ImportedLora, bool]:
    """Add an uploaded LoRA, or return the one of the same bytes that the user has. The second: whether it is new."""
    lock(session, user.id)
    known = same_file(session, user.id, columns["sha256"])
    if known is not None:
        return known, False
    if "key" not in columns:
        raise Conflict("the LoRA of the same bytes was deleted just now; send the file again", code="lora_deleted")
    lora = ImportedLora(user_id=user.id, **columns)
    session.add(lora)
    session.flush()
    return lora, True


def lock(session: Session, user_id: str) -> None:
    """Lock the user's row, as a submission does: no job with a LoRA is added while that LoRA is deleted."""
    session.execute(select(User.id).where(User.id == user_id).with_for_update())


def same_file(session: Session, user_id: str, sha256: str) -> ImportedLora | None:
    return session.scalar(select(ImportedLora).where(ImportedLora.user_id == user_id, ImportedLora.sha256 == sha256))


def imported_of(session: Session, user_id: str, lora_id: str) -> ImportedLora | None:
    return session.scalar(select(ImportedLora).where(ImportedLora.user_id == user_id, ImportedLora.id == lora_id))


def delete(session: Session, lora: ImportedLora) -> None:
    """Delete the row of a LoRA that a user has brought. The caller deletes its object.

    Raises:
        Conflict: a job that waits or runs draws with it.
    """
    lock(session, lora.user_id)
    waiting = select(Job).where(Job.user_id == lora.user_id, Job.state.in_((JobState.QUEUED, JobState.RUNNING)))
    for job in session.scalars(waiting.where(Job.kind == kinds.GENERATE.name)):
        if any(each.id == lora.id for each in kinds.GENERATE.inputs_of(job).loras):
            raise Conflict(f"job {job.id} is {job.state} and draws with this LoRA; cancel it first", code="lora_in_use")
    session.delete(lora)
    session.flush()


def _text(written: str) -> str:
    """A text from an uploaded file, on one line, without invisible characters and not too long."""
    clean = re.sub(rf"[{UNSEEN}{UNSEEN_BEYOND}]+", " ", written.encode("utf-8", "replace").decode())
    return texts.normal(" ".join(clean.split()))[:MAX_TEXT]


def _shown(filename: str) -> str:
    return _text(filename) or "the file"
