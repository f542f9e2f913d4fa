"""Trained LoRAs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.catalog import kinds
from shared.catalog.kinds import LoraInput, TrainResult
from shared.errors import Conflict, NotFound
from shared.models import Job, Lora, Project, Round


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


def of_project(session: Session, project: Project, wanted: list[dict[str, Any]]) -> list[LoraInput]:
    """LoRAs with weights, as job inputs.

    Raises:
        NotFound: the project's owner has no such LoRA.
        Conflict: a LoRA is for another base model.
    """
    chosen = []
    for each in wanted:
        query = select(Lora, Project).join(Project, Project.id == Lora.project_id)
        row = session.execute(query.where(Lora.id == each["lora_id"], Project.user_id == project.user_id)).one_or_none()
        if row is None:
            raise NotFound(f"there is no LoRA {each['lora_id']}; list yours with GET /v1/projects/ID/loras")
        lora = row[0]
        if lora.base_model != project.base_model:
            raise Conflict(
                f"LoRA {lora.id} is for the base model {lora.base_model}, not for {project.base_model}",
                code="wrong_base_model",
            )
        chosen.append(as_input(lora, each.get("weight", 1.0)))
    return chosen


def as_input(lora: Lora, weight: float) -> LoraInput:
    """A LoRA as a job input."""
    file = lora.files["diffusers"]
    return LoraInput(id=lora.id, key=file["key"], sha256=file["sha256"], weight=weight)
