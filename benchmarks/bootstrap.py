"""The method without the service: the same plan, crops, captions, trainings and choices, called directly."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image

from shared import captions, catalog, plans
from shared.catalog.params import GenerateParams, Plan, RoundPlan, TrainParams, WantedPicture
from workers import pictures as cropping
from workers.diffusion.dataset import Example
from workers.diffusion.families.base import Family
from workers.diffusion.generate import generate
from workers.diffusion.lora import files
from workers.diffusion.lora.about import About
from workers.diffusion.train import train_lora
from workers.scorers.choice import Candidate, choose, dhash

SUBJECT_TAGS = ["1girl", "solo"]


@dataclass
class Subject:
    """A character, and her pictures so far."""

    trigger: str
    features: list[str]
    known: list[tuple[Image.Image, list[str]]] = field(default_factory=list)  # with their tags


@dataclass(frozen=True)
class Method:
    """The service's plan for a base model, called without the service."""

    base: Family
    plan: Plan
    scratch: Path

    def crops(self, subject: Subject, shown: Image.Image) -> None:
        """Crop one front picture into four."""
        for crop in cropping.auto(shown, view="front"):
            image = cropping.prepare(cropping.cut(shown, crop.box), self.base.row.resolution)
            tags = plans.image_tags(subject.features, crop.view, crop.framing, list(self.scene_tags))
            subject.known.append((image, tags))

    @property
    def scene_tags(self) -> Sequence[str]:
        return catalog.FAMILIES[self.base.row.family].scene_tags

    def run(self, subject: Subject) -> Path:
        """Run all rounds and return the character LoRA."""
        for number, round_ in enumerate(self.plan.rounds):
            lora = self.train(subject, round_, f"{subject.trigger}-{number}")
            if round_.kind == "style":
                self.gather(subject, round_, lora, number)
        return lora

    def train(self, subject: Subject, round_: RoundPlan, name: str) -> Path:
        examples = [Example(image, self.captions(subject, round_, tags)) for image, tags in subject.known]
        params = round_.train
        lora = train_lora(self.base, examples, params, prior=self.prior(round_, params))
        path = self.scratch / f"{name}.safetensors"
        about = About(title=name, trigger_word=subject.trigger)
        files.save_kohya(lora, self.base, about, path)
        return path

    def captions(self, subject: Subject, round_: RoundPlan, tags: list[str]) -> list[str]:
        return captions.captions(
            policy=round_.caption_policy,
            trigger_word=subject.trigger,
            subject_tags=SUBJECT_TAGS,
            feature_tags=subject.features,
            image_tags=tags,
        )

    def prior(self, round_: RoundPlan, params: TrainParams) -> list[Example]:
        """Pictures of other characters, drawn by the base model."""
        if not params.prior_images:
            return []
        wanted = self.wanted("", [], round_, params.prior_images, params.seed + 500_000)
        drawn = self.draw(wanted, round_.generate, None)
        return [
            Example(image, [captions.without_quality(picture.prompt)])
            for picture, image in zip(wanted, drawn, strict=True)
        ]

    def wanted(
        self, trigger: str, features: list[str], round_: RoundPlan, count: int, seed: int
    ) -> list[WantedPicture]:
        return plans.pictures(
            trigger_word=trigger,
            subject_tags=SUBJECT_TAGS,
            feature_tags=features,
            views=round_.views,
            framings=round_.framings,
            prompt_tags=round_.prompt_tags,
            count=count,
            seed=seed,
            name_features=bool(features),
        )

    def draw(
        self, wanted: Sequence[WantedPicture], params: GenerateParams, lora: Path | None, weight: float = 1.0
    ) -> list[Image.Image]:
        loras = [(lora, weight)] if lora else []
        drawn = dict(generate(self.base, wanted, params, loras=loras))
        return [drawn[i] for i in range(len(wanted))]

    def gather(self, subject: Subject, round_: RoundPlan, lora: Path, number: int) -> None:
        """Draw candidates and let the scorer choose, until the target is reached or the plan allows no more."""
        params = round_.score
        scorer = catalog.resolve(catalog.SCORERS[params.scorer or "plain"])
        for attempt in range(round_.max_generations):
            places = round_.target - len(subject.known)
            if places <= 0:
                return
            count = math.ceil(places * round_.candidates_per_pick)
            seed = 10_000 * (number + 1) + 1_000 * attempt
            quota = self.quota(subject, round_)
            asked = replace(round_, views=list(quota))
            wanted = self.wanted(subject.trigger, subject.features, asked, count, seed)
            drawn = self.draw(wanted, round_.generate, lora, round_.lora_weight)
            references = [image for image, _ in subject.known]
            candidates = [Candidate(p.view, p.framing, dhash(d)) for p, d in zip(wanted, drawn, strict=True)]
            scores = scorer(references, drawn, [p.view for p in wanted])
            hashes = [dhash(image) for image in references]
            for i in choose(candidates, scores, quota, params, taken=hashes):
                tags = wanted[i].prompt.split(", ")[1 + len(SUBJECT_TAGS) :]
                subject.known.append((drawn[i], tags))

    def quota(self, subject: Subject, round_: RoundPlan) -> dict[str, int]:
        """How many pictures of each view are still missing."""
        shown: Counter[str | None] = Counter(
            view for _, tags in subject.known for view, tag in catalog.VIEWS.items() if tag in tags
        )
        return plans.quota(round_.views, shown, round_.target - len(subject.known))
