"""Fields with a fixed list of values. openapi.yaml has each list once, under the class's name without `Choice`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from marshmallow import fields
from marshmallow.validate import OneOf

from api.schemas.fields import List
from shared import catalog, lifecycle
from shared.catalog.kinds import IMPORT_OUTCOMES, KINDS
from shared.events import TYPES
from shared.lora_files.modules import MODELS
from shared.users import SCOPES
from shared.webhooks import TEST


class Choice(fields.String):
    """One of the `words`."""

    words: Collection[str] = ()

    def __init__(self, **kwargs: Any):
        super().__init__(validate=OneOf([str(word) for word in self.words]), **kwargs)


class RoleChoice(Choice):
    words = ("member", "admin")


class ScopeChoice(Choice):
    words = SCOPES


class IntendedUseChoice(Choice):
    words = catalog.INTENDED_USES


class CurationChoice(Choice):
    words = tuple(lifecycle.Curation)


class ProjectStateChoice(Choice):
    words = tuple(lifecycle.ProjectState)


class LoraSourceChoice(Choice):
    words = ("trained", "imported")


class LoraFamilyChoice(Choice):
    words = tuple(MODELS)


class RoundKindChoice(Choice):
    words = tuple(lifecycle.RoundKind)


class RoundStateChoice(Choice):
    words = tuple(lifecycle.RoundState)


class CaptionPolicyChoice(Choice):
    words = catalog.CAPTION_POLICIES


class ViewChoice(Choice):
    words = catalog.VIEWS


class Several(List):
    """A list of choices. Repeated ones are dropped."""

    def _deserialize(self, *args: Any, **kwargs: Any) -> list[Any]:
        return list(dict.fromkeys(super()._deserialize(*args, **kwargs)))


class FramingChoice(Choice):
    words = catalog.FRAMINGS


class ViewsFromChoice(Choice):
    words = catalog.VIEWS_FROM


class LoraModulesChoice(Choice):
    words = catalog.LORA_MODULES


class LrSchedulerChoice(Choice):
    words = catalog.LR_SCHEDULERS


class PrecisionChoice(Choice):
    words = catalog.PRECISIONS


class PromptSyntaxChoice(Choice):
    words = catalog.PROMPT_SYNTAXES


class SamplerChoice(Choice):
    words = catalog.SAMPLERS


class ScorerChoice(Choice):
    words = catalog.SCORERS


class ImageRoleChoice(Choice):
    words = tuple(lifecycle.ImageRole)


class ImageSourceChoice(Choice):
    words = tuple(lifecycle.ImageSource)


class ImageStateChoice(Choice):
    words = ("ready", "missing")


class ImageTypeChoice(Choice):
    words = ("image/png", "image/jpeg", "image/webp", "image/avif")


class DecisionChoice(Choice):
    words = tuple(lifecycle.Decision)


class CropModeChoice(Choice):
    words = catalog.CROP_MODES


class ImportOutcomeChoice(Choice):
    words = IMPORT_OUTCOMES


class JobKindChoice(Choice):
    words = KINDS


class JobStateChoice(Choice):
    words = tuple(lifecycle.JobState)


class EventTypeChoice(Choice):
    words = tuple(name for name in TYPES if name != TEST)


class DeliveryStateChoice(Choice):
    words = ("pending", "delivered", "failed")
