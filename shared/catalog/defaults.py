"""The parameters that suit a base model: those of its family, its lineage and what it predicts."""

from __future__ import annotations

from typing import Any

from shared.catalog.bases import BaseModel
from shared.catalog.families import FAMILIES, lineage_named_in
from shared.catalog.lineages import Lineage
from shared.lifecycle import RoundKind


def train_defaults(base_model: BaseModel, kind: RoundKind) -> dict[str, Any]:
    """What a training of such a round has, beside the neutral defaults of `TrainParams`."""
    family = FAMILIES[base_model.family]
    of_kind = family.character_train if kind == RoundKind.CHARACTER else {}
    return family.train | of_kind | (family.v_train if predicts_v(base_model) else {})


def generate_defaults(base_model: BaseModel) -> dict[str, Any]:
    """What a drawing has, beside the neutral defaults of `GenerateParams`."""
    family, own = FAMILIES[base_model.family], lineage(base_model)
    of_lineage = {"negative_prompt": own.negative_prompt} if own else {}
    return family.generate | of_lineage | (family.v_generate if predicts_v(base_model) else {})


def prompt_tags(base_model: BaseModel) -> list[str]:
    """What is appended to every prompt that the service itself writes."""
    family = FAMILIES[base_model.family]
    return [*family.scene_tags, *(lineage(base_model) or family).quality_tags]


def lineage(base_model: BaseModel) -> Lineage | None:
    """The lineage in the base model's row, else the one that its name names; None if there is none."""
    name = base_model.lineage or lineage_named_in(base_model.family, base_model.name)
    return FAMILIES[base_model.family].lineages.get(name)


def predicts_v(base_model: BaseModel) -> bool:
    """Whether it predicts v (arXiv 2202.00512). A family that always does leaves its `v_train` empty."""
    return base_model.prediction_type == "v_prediction"
