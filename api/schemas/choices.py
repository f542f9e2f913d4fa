"""What clients may choose among. In the document each of these lists stands once, under its name."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from marshmallow import fields
from marshmallow.validate import OneOf

from api.schemas.fields import List
from shared import catalog, lifecycle
from shared.catalog.kinds import IMPORT_OUTCOMES, KINDS
from shared.events import TYPES
from shared.users import SCOPES
from shared.webhooks import TEST


class Choice(fields.String):
    """One of a few words."""

    words: Collection[str] = ()

    def __init__(self, **kwargs: Any):
        super().__init__(validate=OneOf([str(word) for word in self.words]), **kwargs)


class Role(Choice):
    words = ("member", "admin")


class Scope(Choice):
    words = SCOPES


class Curation(Choice):
    words = tuple(lifecycle.Curation)


class ProjectState(Choice):
    words = tuple(lifecycle.ProjectState)


class RoundKind(Choice):
    words = tuple(lifecycle.RoundKind)


class RoundState(Choice):
    words = tuple(lifecycle.RoundState)


class CaptionPolicy(Choice):
    words = catalog.CAPTION_POLICIES


class View(Choice):
    words = catalog.VIEWS


class Several(List):
    """Some of a few words: each once, however often it is named."""

    def _deserialize(self, *args: Any, **kwargs: Any) -> list[Any]:
        return list(dict.fromkeys(super()._deserialize(*args, **kwargs)))


class Framing(Choice):
    words = catalog.FRAMINGS


class ViewsFrom(Choice):
    words = catalog.VIEWS_FROM


class LoraModules(Choice):
    words = catalog.LORA_MODULES


class LrScheduler(Choice):
    words = catalog.LR_SCHEDULERS


class Precision(Choice):
    words = catalog.PRECISIONS


class Sampler(Choice):
    words = catalog.SAMPLERS


class Scorer(Choice):
    words = catalog.SCORERS


class ImageRole(Choice):
    words = ("reference", "candidate", "evaluation", "output")


class ImageSource(Choice):
    words = ("upload", "crop", "generated", "edited")


class ImageState(Choice):
    words = ("ready", "missing")


class ImageType(Choice):
    words = ("image/png", "image/jpeg", "image/webp", "image/avif")


class Decision(Choice):
    words = tuple(lifecycle.Decision)


class CropMode(Choice):
    words = catalog.CROP_MODES


class ImportOutcome(Choice):
    words = IMPORT_OUTCOMES


class JobKind(Choice):
    words = KINDS


class JobState(Choice):
    words = tuple(lifecycle.JobState)


class EventType(Choice):
    words = tuple(name for name in TYPES if name != TEST)


class DeliveryState(Choice):
    words = ("pending", "delivered", "failed")
