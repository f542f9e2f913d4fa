"""The tables of everything that a client may choose: words, families, base models, params, job kinds and queues.

A new family or job kind is a new row. Rows name code by dotted paths; a test resolves each. `params` and `kinds` build
on the names below, and are imported from their modules.
"""

from shared.catalog.bases import BASE_MODELS, BaseModel, base_models
from shared.catalog.families import FAMILIES, QUALITY_TAGS, FamilyRow, lineage_named_in
from shared.catalog.lineages import Lineage
from shared.catalog.paths import resolve
from shared.catalog.queues import FORMER_QUEUES, QUEUES, Queue
from shared.catalog.vocabulary import (
    CAPTION_POLICIES,
    CROP_MODES,
    DISCRETE_SAMPLERS,
    FLOW_SAMPLERS,
    FRAMINGS,
    HIDDEN_BY_FRAMING,
    HIDDEN_BY_VIEW,
    INTENDED_USES,
    LORA_MODULES,
    LR_SCHEDULERS,
    PRECISIONS,
    PROMPT_SYNTAXES,
    SAMPLERS,
    SCORERS,
    VIEWS,
    VIEWS_FROM,
)

__all__ = [
    "BASE_MODELS",
    "CAPTION_POLICIES",
    "CROP_MODES",
    "DISCRETE_SAMPLERS",
    "FAMILIES",
    "FLOW_SAMPLERS",
    "FORMER_QUEUES",
    "FRAMINGS",
    "HIDDEN_BY_FRAMING",
    "HIDDEN_BY_VIEW",
    "INTENDED_USES",
    "LORA_MODULES",
    "LR_SCHEDULERS",
    "PRECISIONS",
    "PROMPT_SYNTAXES",
    "QUALITY_TAGS",
    "QUEUES",
    "SAMPLERS",
    "SCORERS",
    "VIEWS",
    "VIEWS_FROM",
    "BaseModel",
    "FamilyRow",
    "Lineage",
    "Queue",
    "base_models",
    "lineage_named_in",
    "resolve",
]
