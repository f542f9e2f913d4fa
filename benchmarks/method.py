"""Benchmark of the method: how reliably the trigger alone draws a character that nothing was tuned on.

The method gets one front picture of each held-out character. It runs as in the service, without a person: crops, style
rounds in which the scorer chooses, a character round. Then the trigger alone draws her. A judge, a network that has no
part in the method, reads the drawings. An attribute counts only if the drawing shows the requested view.

    python -m benchmarks.method --characters 8
    python -m benchmarks.method --practice --characters 2 --only method --set style.train.rank=4   # choosing presets
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.bootstrap import Method, Subject
from benchmarks.figure import figure
from chibi_lab.captions import invented_name
from chibi_lab.judge import FOLDER as JUDGE
from chibi_lab.judge import Judge
from chibi_lab.labels import UNKNOWN
from chibi_lab.old_world import (
    Character,
    Shot,
    draw,
    feature_tags,
    held_out_characters,
    practice_characters,
    render,
    sample_shot,
)
from chibi_lab.old_world.labels import HEADS, Record, label
from chibi_lab.sheet import save_sheet
from shared import catalog, plans, records
from shared.catalog.params import Plan, WantedPicture
from workers import pictures as cropping
from workers.diffusion import families

UPLOAD_PIXELS = 512
SHEETS = Path("bench-output")
SEEDS_PER_VIEW = 4
KINDS = ("true_renders", "base", "four_crops", "crops_and_others", "upper_bound", "method")
ATTRIBUTES = (
    "hair", "hair_style", "eyes", "ears", "fur", "tail", "outfit", "outfit_color", "bottom", "bottom_color",
    "accessory", "accessory_color",
)  # fmt: skip


@dataclass(frozen=True)
class Judgement:
    """The share of attributes that were right, by view."""

    views: dict[str, float]

    @property
    def worst(self) -> float:
        return min(self.views.values())

    def mean(self, views: Sequence[str]) -> float:
        return statistics.mean(self.views[view] for view in views)


def judged(
    judge: Judge, character: Character, wanted: Sequence[WantedPicture], drawn: Sequence[Image.Image]
) -> Judgement:
    """The share of her attributes in the drawings of each view. A drawing of another view counts 0."""
    read = judge.read(np.stack([np.asarray(image.convert("RGB")) for image in drawn]))
    shares: dict[str, list[float]] = {}
    for i, picture in enumerate(wanted):
        shot = Shot(view=picture.view or "front")
        record = Record(character, shot, draw(character, shot).seen)
        shows_view = HEADS["view"][int(read["view"][i].argmax())] == shot.view
        asked = {head: value for head in ATTRIBUTES if (value := label(record, head)) != UNKNOWN}
        right = statistics.mean(int(read[head][i].argmax()) == value for head, value in asked.items())
        shares.setdefault(shot.view, []).append(right if shows_view else 0.0)
    return Judgement({view: statistics.mean(values) for view, values in shares.items()})


@dataclass(frozen=True)
class CharacterBench:
    """All measurements of one character."""

    character: Character
    trigger: str
    method: Method
    judge: Judge
    sheets: Path | None = None  # the folder for contact sheets, one row for each view

    def subject(self, *known: tuple[Image.Image, list[str]]) -> Subject:
        return Subject(self.trigger, feature_tags(self.character), list(known))

    def ask(self, lora: Path | None, trigger: str) -> Judgement:
        """Draw and judge full-body pictures of each view; the prompt names the trigger and none of her features."""
        last = self.method.plan.rounds[-1]
        only_body = replace(last, framings={"full_body": 1})
        wanted = self.method.wanted(trigger, [], only_body, SEEDS_PER_VIEW * len(last.views), 9_000)
        drawn = self.method.draw(wanted, last.generate, lora)
        self.keep(f"{lora.stem if lora else self.trigger + '-base'}{'' if trigger else '-uncalled'}", drawn)
        return judged(self.judge, self.character, wanted, drawn)

    def read_truth(self) -> Judgement:
        """What the judge reads in true pictures of her, as the upper bound for drawings."""
        rng, views = np.random.default_rng(78), list(catalog.VIEWS) * SEEDS_PER_VIEW
        shots = [plain_shot(rng, view, framing="full body") for view in views]
        shown = [Image.fromarray(render(self.character, shot, self.method.base.row.resolution)) for shot in shots]
        return judged(
            self.judge, self.character, [WantedPicture(prompt="", seed=0, view=view) for view in views], shown
        )

    def keep(self, name: str, drawn: Sequence[Image.Image]) -> None:
        if self.sheets and drawn:
            size = self.method.base.row.resolution
            pixels = [np.asarray(cropping.fit(image, (size, size))) for image in drawn]
            save_sheet(self.sheets / f"{name}.png", pixels, SEEDS_PER_VIEW)

    def trained(self, subject: Subject, name: str, **changes: Any) -> Judgement:
        """Train one character round on the subject's pictures, and judge it."""
        last = self.method.plan.rounds[-1]
        changed_round = replace(last, train=replace(last.train, **changes))
        lora = self.method.train(subject, changed_round, f"{self.trigger}-{name}")
        return self.ask(lora, self.trigger)

    def measure(self, only: Sequence[str] = ()) -> dict[str, Judgement]:
        """Judge each way of making a LoRA, or `only` some of them. `crops_and_others` is measured only if named."""
        subject, truth = self.subject(), self.subject(*true_pictures(self.character, self.method.base.row.resolution))
        self.method.crops(subject, Image.fromarray(render(self.character, Shot(), UPLOAD_PIXELS)))
        found: dict[str, Judgement] = {}
        if not only or "true_renders" in only:
            found["true_renders"] = self.read_truth()
        if not only or "base" in only:
            found["base"] = self.ask(None, self.trigger)
        if not only or "four_crops" in only:
            found["four_crops"] = self.trained(subject, "crops", prior_images=0)
        if "crops_and_others" in only:
            found["crops_and_others"] = self.trained(subject, "crops-others")
        if not only or "upper_bound" in only:
            found["upper_bound"] = self.trained(truth, "truth")
        if not only or "method" in only:
            lora = self.method.run(subject)
            self.keep(f"{self.trigger}-dataset", [image for image, _ in subject.known])
            found["method"] = self.ask(lora, self.trigger)
            found["method_untriggered"] = self.ask(lora, "")
        return found


def plain_shot(rng: np.random.Generator, view: str, **given: str) -> Shot:
    """A shot as the service's prompts describe it."""
    plain = {"style": "cel shading", "background": "white", "expression": "neutral", "arms": "down"}
    return sample_shot(rng, view=view, **plain, **given)


def true_pictures(character: Character, size: int, count: int = 40) -> list[tuple[Image.Image, list[str]]]:
    """The training set of the upper bound: true renders of every view, with their tags."""
    rng = np.random.default_rng(77)
    views, known = list(catalog.VIEWS), []
    for i in range(count):
        shot = plain_shot(rng, views[i % len(views)])
        drawing = draw(character, shot, size)
        framing = shot.framing.replace(" ", "_")
        tags = plans.image_tags(feature_tags(character), shot.view, framing, [shot.style, "white background"])
        known.append((Image.fromarray(drawing.pixels), tags))
    return known


def changed(plan: Plan, settings: Sequence[str]) -> Plan:
    """The plan with some values changed, such as `style.train.rank=4` or `character.caption_policy="mixed"`."""
    written = asdict(plan)
    for setting in settings:
        path, _, value = setting.partition("=")
        kind, *names, last = path.split(".")
        for round_ in written["rounds"]:
            if round_["kind"] == kind:
                place = round_
                for name in names:
                    place = place[name]
                if last not in place:
                    raise SystemExit(f"{path}: there is no {last!r}; there are {', '.join(place)}")
                place[last] = json.loads(value)
    return records.read(Plan, written)


def figures(measured: list[dict[str, Judgement]], first_view: str = "front") -> Iterator[dict[str, Any]]:
    """The figures of the benchmark."""
    views = list(measured[0]["method"].views)
    unseen = [view for view in views if view != first_view]
    by_view = {view: statistics.mean(m["method"].views[view] for m in measured) for view in views}
    worst = min(by_view, key=lambda view: by_view[view])
    yield line("trigger_only_attributes", by_view[worst], 0.9, [m["method"].views[worst] for m in measured], by_view)

    def excess(kind: str) -> list[float]:
        return [m[kind].mean(unseen) - m["base"].mean(unseen) for m in measured]

    def over(other: float) -> list[float]:
        """For each character, its value over the mean of the others', since a single other value may be close to 0."""
        return [each / max(other, 0.01) for each in excess("method")]

    ours, crops, best = (statistics.mean(excess(kind)) for kind in ("method", "four_crops", "upper_bound"))
    above_base = {"method": ours, "crops": crops}
    yield line("unseen_views_vs_four_crops", ours / max(crops, 0.01), 2, over(crops), above_base)
    yield line("bootstrap_vs_upper_bound", ours / max(best, 0.01), 0.9, over(best), {"upper_bound": best})
    leak = statistics.mean(m["method_untriggered"].mean(views) for m in measured)
    yield line("attributes_without_trigger", leak, None, [], {}, better="lower")
    readable = {view: statistics.mean(m["true_renders"].views[view] for m in measured) for view in views}
    yield line("attributes_in_true_renders", min(readable.values()), None, [], readable)


def line(
    name: str, value: float, goal: float | None, runs: list[float], about: dict[str, float], better: str = "higher"
) -> dict[str, Any]:
    shares = ", ".join(f"{name} {share:.2f}" for name, share in about.items())
    return figure(name, value, goal=goal, better=better, runs=runs, about=shares)


def quicker(plan: Plan) -> Plan:
    """A smaller plan, for tests that check only whether the method works."""
    rounds = [
        replace(r, target=min(r.target, 16), train=replace(r.train, train_steps=r.train.train_steps // 2))
        for r in plan.rounds
    ]
    return Plan(rounds=[rounds[0], rounds[-1]])


@dataclass(frozen=True)
class Task:
    """One character to measure, in a process of its own."""

    character: Character
    trigger: str
    base: catalog.BaseModel
    plan: Plan
    only: tuple[str, ...]
    sheets: Path | None
    judge: Path


def measure(task: Task) -> tuple[dict[str, Judgement], float]:
    """The judgements, and the seconds that they took."""
    torch.set_num_threads(1)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        method = Method(families.load(task.base), task.plan, Path(scratch))
        bench = CharacterBench(task.character, task.trigger, method, Judge.load(task.judge), task.sheets)
        return bench.measure(task.only), time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--characters", type=int, default=8)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="characters measured at once")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--practice", action="store_true", help="use the characters on which presets are tuned")
    parser.add_argument("--only", nargs="*", default=[], choices=KINDS)
    parser.add_argument("--set", nargs="*", default=[], metavar="KIND.PATH=JSON", help="change the plan")
    parser.add_argument("--base", type=Path, help="a folder of weights, instead of those that ship")
    parser.add_argument("--sheets", type=Path, default=SHEETS, help="the folder for contact sheets")
    parser.add_argument("--judge", type=Path, default=JUDGE)
    arguments = parser.parse_args()
    row = catalog.base_models()["chibi"]
    if arguments.base:
        row = replace(row, path=str(arguments.base))
    plan = changed(plans.resolve(None, row), arguments.set)
    arguments.sheets.mkdir(parents=True, exist_ok=True)
    characters = (practice_characters if arguments.practice else held_out_characters)(arguments.characters)
    rng = np.random.default_rng(5)
    tasks = [
        Task(
            character=character,
            trigger=invented_name(rng),
            base=row,
            plan=quicker(plan) if arguments.quick else plan,
            only=tuple(arguments.only),
            sheets=arguments.sheets,
            judge=arguments.judge,
        )
        for character in characters
    ]
    measured = []
    with ProcessPoolExecutor(arguments.processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        for task, (found, seconds) in zip(tasks, pool.map(measure, tasks), strict=True):
            measured.append(found)
            shown = {kind: {v: round(s, 2) for v, s in j.views.items()} for kind, j in found.items()}
            about = {"character": feature_tags(task.character), "seconds": round(seconds)}
            print(json.dumps(about | shown), flush=True)
    if not arguments.only:
        for figure_ in figures(measured):
            print(json.dumps(figure_), flush=True)


if __name__ == "__main__":
    main()
