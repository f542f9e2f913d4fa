"""The bench of the method: how surely the trigger alone brings back a character whom nobody tuned for.

Each held-out character is known by one front picture. The method then runs as the service runs it, unattended:
crops, style rounds whose candidates the scorer chooses, a character round. A judge that had no part in any of it
reads what the trigger alone draws; an attribute counts only in a picture that shows the view that was asked for.

    python -m benchmarks.method --characters 8
    python -m benchmarks.method --practice --characters 2 --only method --set style.train.rank=4   # choosing presets
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from models.chibi.captions import invented_name
from models.chibi.data import Record
from models.chibi.reader import FOLDER as READERS
from models.chibi.reader import HEADS, UNKNOWN, Reader, label
from models.chibi.sheet import save_sheet
from models.chibi.world import (
    Character,
    Shot,
    draw,
    feature_tags,
    held_out_characters,
    practice_characters,
    render,
    sample_shot,
)
from shared import captions, catalog, plans
from shared.params import GenerateParams, Picture, ScoreParams, TrainParams
from workers import pictures as cropping
from workers.diffusion import families, lora_file
from workers.diffusion.dataset import Example
from workers.diffusion.families.base import Family
from workers.diffusion.generate import generate
from workers.diffusion.train import train_lora
from workers.scorers.choice import Candidate, choose, dhash, quotas

SUBJECT_TAGS = ["1girl", "solo"]
UPLOAD_PIXELS = 512
SEEDS_PER_VIEW = 4
ATTRIBUTES = (
    "hair", "hair_style", "eyes", "ears", "fur", "tail", "outfit", "outfit_color", "bottom", "bottom_color",
    "accessory", "accessory_color",
)  # fmt: skip


@dataclass
class Subject:
    """A character under study, and the pictures that are known of her."""

    character: Character
    trigger: str
    known: list[tuple[Image.Image, list[str]]] = field(default_factory=list)  # with their tags

    @property
    def features(self) -> list[str]:
        return feature_tags(self.character)


@dataclass(frozen=True)
class Method:
    """The service's plan for a base model, called without the service."""

    base: Family
    plan: dict[str, Any]
    scratch: Path

    def crops(self, subject: Subject) -> None:
        """One front picture becomes four."""
        shown = Image.fromarray(render(subject.character, Shot(), UPLOAD_PIXELS))
        for crop in cropping.auto(shown, view="front"):
            image = cropping.prepare(cropping.cut(shown, crop.box), self.base.row.resolution)
            tags = plans.image_tags(subject.features, crop.view, crop.framing, list(self.quality_tags))
            subject.known.append((image, tags))

    @property
    def quality_tags(self) -> Sequence[str]:
        return catalog.FAMILIES[self.base.row.family].quality_tags

    def run(self, subject: Subject) -> Path:
        """All rounds; returns the character LoRA."""
        for number, round_ in enumerate(self.plan["rounds"]):
            lora = self.train(subject, round_, f"{subject.trigger}-{number}")
            if round_["kind"] == "style":
                self.gather(subject, round_, lora, number)
        return lora

    def train(self, subject: Subject, round_: dict[str, Any], name: str) -> Path:
        examples = [Example(image, self.captions(subject, round_, tags)) for image, tags in subject.known]
        params = TrainParams(**round_["train"])
        lora = train_lora(self.base, examples, params, prior=self.prior(round_, params))
        path = self.scratch / f"{name}.safetensors"
        about = lora_file.About(title=name, trigger_word=subject.trigger)
        lora_file.save_kohya(lora, self.base, about, path)
        return path

    def captions(self, subject: Subject, round_: dict[str, Any], tags: list[str]) -> list[str]:
        return captions.captions(
            policy=round_["caption_policy"],
            trigger_word=subject.trigger,
            subject_tags=SUBJECT_TAGS,
            feature_tags=subject.features,
            image_tags=tags,
        )

    def prior(self, round_: dict[str, Any], params: TrainParams) -> list[Example]:
        """Others, as the base draws them."""
        if not params.prior_images:
            return []
        wanted = self.wanted("", [], round_, params.prior_images, params.seed + 500_000)
        drawn = self.draw(wanted, round_["generate"], None)
        return [Example(image, [picture.prompt]) for picture, image in zip(wanted, drawn, strict=True)]

    def wanted(self, trigger: str, features: list[str], round_: dict[str, Any], count: int, seed: int) -> list[Picture]:
        return plans.pictures(
            trigger_word=trigger,
            subject_tags=SUBJECT_TAGS,
            feature_tags=features,
            views=round_["views"],
            framings=round_["framings"],
            prompt_tags=round_["prompt_tags"],
            count=count,
            seed=seed,
            name_features=bool(features),
        )

    def draw(self, wanted: Sequence[Picture], params: dict[str, Any], lora: Path | None) -> list[Image.Image]:
        loras = [(lora, 1.0)] if lora else []
        drawn = dict(generate(self.base, wanted, GenerateParams(**params), loras=loras))
        return [drawn[i] for i in range(len(wanted))]

    def gather(self, subject: Subject, round_: dict[str, Any], lora: Path, number: int) -> None:
        """Draw candidates and let the scorer choose, as often as the plan allows."""
        params = ScoreParams(**round_["score"])
        scorer = catalog.resolve(catalog.SCORERS[params.scorer or "plain"])()
        for attempt in range(round_["max_generations"]):
            places = round_["target"] - len(subject.known)
            if places <= 0:
                return
            count = round(places * round_["candidates_per_pick"])
            wanted = self.wanted(
                subject.trigger, subject.features, round_, count, 10_000 * (number + 1) + 1_000 * attempt
            )
            drawn = self.draw(wanted, round_["generate"], lora)
            references = [image for image, _ in subject.known]
            candidates = [Candidate(p.view, p.framing, dhash(d)) for p, d in zip(wanted, drawn, strict=True)]
            scores = scorer.score(references, drawn, [p.view for p in wanted])
            hashes = [dhash(image) for image in references]
            for i in choose(candidates, scores, quotas(places, round_["views"]), params, taken=hashes):
                tags = wanted[i].prompt.split(", ")[1 + len(SUBJECT_TAGS) :]
                subject.known.append((drawn[i], tags))


@dataclass(frozen=True)
class Judgement:
    """Shares of attributes, by view."""

    views: dict[str, float]

    @property
    def worst(self) -> float:
        return min(self.views.values())

    def mean(self, views: Sequence[str]) -> float:
        return statistics.mean(self.views[view] for view in views)


def judged(judge: Reader, subject: Subject, wanted: Sequence[Picture], drawn: Sequence[Image.Image]) -> Judgement:
    """What share of her attributes each view shows; nothing where another view is shown."""
    read = judge.read(np.stack([np.asarray(image.convert("RGB")) for image in drawn]))
    shares: dict[str, list[float]] = {}
    for i, picture in enumerate(wanted):
        shot = Shot(view=picture.view or "front")
        record = Record(subject.character, shot, draw(subject.character, shot).seen)
        shows_view = HEADS["view"][int(read["view"][i].argmax())] == shot.view
        asked = {head: value for head in ATTRIBUTES if (value := label(record, head)) != UNKNOWN}
        right = statistics.mean(int(read[head][i].argmax()) == value for head, value in asked.items())
        shares.setdefault(shot.view, []).append(right if shows_view else 0.0)
    return Judgement({view: statistics.mean(values) for view, values in shares.items()})


@dataclass(frozen=True)
class Bench:
    """Everything that is measured of one character."""

    method: Method
    judge: Reader
    sheets: Path | None = None  # where what is drawn is kept, a row a view

    def ask(self, subject: Subject, lora: Path | None, trigger: str) -> Judgement:
        """Only the trigger, each view, full body."""
        last = self.method.plan["rounds"][-1]
        only_body = {**last, "framings": {"full_body": 1}}
        wanted = self.method.wanted(trigger, [], only_body, SEEDS_PER_VIEW * len(last["views"]), 9_000)
        drawn = self.method.draw(wanted, last["generate"], lora)
        self.keep(f"{subject.trigger}-{lora.stem if lora else 'base'}{'' if trigger else '-uncalled'}", drawn)
        return judged(self.judge, subject, wanted, drawn)

    def keep(self, name: str, drawn: Sequence[Image.Image]) -> None:
        if self.sheets and drawn:
            save_sheet(self.sheets / f"{name}.png", [np.asarray(image) for image in drawn], SEEDS_PER_VIEW)

    def measure(self, character: Character, trigger: str, only: Sequence[str] = ()) -> dict[str, Judgement]:
        """By what was trained, or `only` some of that: the judgement of what it draws."""
        last, size = self.method.plan["rounds"][-1], self.method.base.row.resolution
        subject, truth = Subject(character, trigger), Subject(character, trigger, true_pictures(character, size))
        self.method.crops(subject)
        found: dict[str, Judgement] = {}
        if not only or "base" in only:
            found["base"] = self.ask(subject, None, trigger)
        if not only or "four_crops" in only:
            found["four_crops"] = self.ask(subject, self.method.train(subject, last, f"{trigger}-crops"), trigger)
        if not only or "upper_bound" in only:
            found["upper_bound"] = self.ask(subject, self.method.train(truth, last, f"{trigger}-truth"), trigger)
        if not only or "method" in only:
            whole = self.method.run(subject)
            self.keep(f"{trigger}-dataset", [image for image, _ in subject.known])
            found["method"] = self.ask(subject, whole, trigger)
            found["method_untriggered"] = self.ask(subject, whole, "")
        return found


def true_pictures(character: Character, size: int, count: int = 40) -> list[tuple[Image.Image, list[str]]]:
    """The upper bound's training set: true renders, every view, with the tags of what they show."""
    rng = np.random.default_rng(77)
    views, known = list(catalog.VIEWS), []
    for i in range(count):
        shot = sample_shot(
            rng, view=views[i % len(views)], style="cel shading", background="white", expression="neutral", arms="down"
        )
        drawing = draw(character, shot, size)
        framing = shot.framing.replace(" ", "_")
        tags = plans.image_tags(feature_tags(character), shot.view, framing, [shot.style, "white background"])
        known.append((Image.fromarray(drawing.pixels), tags))
    return known


def changed(plan: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """The plan with some of its values set: `style.train.rank=4`, `character.caption_policy="mixed"`."""
    for setting in settings:
        path, _, value = setting.partition("=")
        kind, *names, last = path.split(".")
        for round_ in plan["rounds"]:
            if round_["kind"] == kind:
                place = round_
                for name in names:
                    place = place[name]
                if last not in place:
                    raise SystemExit(f"{path}: there is no {last!r}; there are {', '.join(place)}")
                place[last] = json.loads(value)
    return plan


def figures(measured: list[dict[str, Judgement]], first_view: str = "front") -> Iterator[dict[str, Any]]:
    """The lines of the bench."""
    views = list(measured[0]["method"].views)
    unseen = [view for view in views if view != first_view]
    by_view = {view: statistics.mean(m["method"].views[view] for m in measured) for view in views}
    worst = min(by_view, key=lambda view: by_view[view])
    yield line("trigger_only_attributes", by_view[worst], 0.9, [m["method"].views[worst] for m in measured], by_view)

    def excess(kind: str) -> list[float]:
        return [m[kind].mean(unseen) - m["base"].mean(unseen) for m in measured]

    ours, crops, best = (statistics.mean(excess(kind)) for kind in ("method", "four_crops", "upper_bound"))
    yield line(
        "unseen_views_vs_four_crops", ours / max(crops, 0.01), 2, excess("method"), {"method": ours, "crops": crops}
    )
    yield line("bootstrap_vs_upper_bound", ours / max(best, 0.01), 0.9, excess("method"), {"upper_bound": best})
    leak = statistics.mean(m["method_untriggered"].mean(views) for m in measured)
    yield line("attributes_without_trigger", leak, None, [], {"better": "lower"})


def line(name: str, value: float, goal: float | None, runs: list[float], about: dict[str, Any]) -> dict[str, Any]:
    spread = [round(min(runs), 3), round(max(runs), 3)] if runs else []
    return {
        "name": name, "value": round(value, 3), "goal": goal, "better": "lower" if goal is None else "higher",
        "runs": len(runs), "spread": spread,
        "about": ", ".join(f"{k} {v:.2f}" if isinstance(v, float) else f"{k} {v}" for k, v in about.items()),
    }  # fmt: skip


def quicker(plan: dict[str, Any]) -> dict[str, Any]:
    """The same plan in little: for tests, which ask only whether the method still works."""
    rounds = [
        {**r, "target": min(r["target"], 16), "train": {**r["train"], "train_steps": r["train"]["train_steps"] // 2}}
        for r in plan["rounds"]
    ]
    return {"rounds": [rounds[0], rounds[-1]]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--characters", type=int, default=8)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--practice", action="store_true", help="characters that presets may be tuned on")
    parser.add_argument("--only", nargs="*", default=[], choices=["base", "four_crops", "upper_bound", "method"])
    parser.add_argument("--set", nargs="*", default=[], metavar="KIND.PATH=JSON", help="change the plan")
    parser.add_argument("--base", type=Path, help="another folder of weights than the one that ships")
    parser.add_argument("--sheets", type=Path, help="a folder to keep what is drawn in")
    parser.add_argument("--readers", type=Path, default=READERS)
    arguments = parser.parse_args()
    row = catalog.base_models()["chibi"]
    if arguments.base:
        row = replace(row, path=str(arguments.base))
    plan = changed(plans.resolve(None, row), arguments.set)
    if arguments.sheets:
        arguments.sheets.mkdir(parents=True, exist_ok=True)
    characters = practice_characters if arguments.practice else held_out_characters
    rng, measured = np.random.default_rng(5), []
    with tempfile.TemporaryDirectory() as scratch:
        method = Method(families.load(row), quicker(plan) if arguments.quick else plan, Path(scratch))
        bench = Bench(method, Reader.load(arguments.readers, "judge"), arguments.sheets)
        for character in characters(arguments.characters):
            started = time.monotonic()
            measured.append(bench.measure(character, invented_name(rng), arguments.only))
            seconds = round(time.monotonic() - started)
            shown = {kind: {v: round(s, 2) for v, s in j.views.items()} for kind, j in measured[-1].items()}
            print(json.dumps({"character": feature_tags(character), "seconds": seconds, **shown}), flush=True)
    if not arguments.only:
        for figure in figures(measured):
            print(json.dumps(figure), flush=True)


if __name__ == "__main__":
    main()
