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
    """Shares of attributes, by view."""

    views: dict[str, float]

    @property
    def worst(self) -> float:
        return min(self.views.values())

    def mean(self, views: Sequence[str]) -> float:
        return statistics.mean(self.views[view] for view in views)


def judged(
    judge: Judge, character: Character, wanted: Sequence[WantedPicture], drawn: Sequence[Image.Image]
) -> Judgement:
    """What share of her attributes each view shows; nothing where another view is shown."""
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
class Bench:
    """Everything that is measured of one character."""

    character: Character
    trigger: str
    method: Method
    judge: Judge
    sheets: Path | None = None  # where what is drawn is kept, a row a view

    def subject(self, *known: tuple[Image.Image, list[str]]) -> Subject:
        return Subject(self.trigger, feature_tags(self.character), list(known))

    def ask(self, lora: Path | None, trigger: str) -> Judgement:
        """Only the trigger, each view, full body."""
        last = self.method.plan.rounds[-1]
        only_body = replace(last, framings={"full_body": 1})
        wanted = self.method.wanted(trigger, [], only_body, SEEDS_PER_VIEW * len(last.views), 9_000)
        drawn = self.method.draw(wanted, last.generate, lora)
        self.keep(f"{lora.stem if lora else self.trigger + '-base'}{'' if trigger else '-uncalled'}", drawn)
        return judged(self.judge, self.character, wanted, drawn)

    def read_truth(self) -> Judgement:
        """What the judge reads in true pictures of her: no more can be read in drawings."""
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
        """By one character round on what is known of her."""
        last = self.method.plan.rounds[-1]
        changed_round = replace(last, train=replace(last.train, **changes))
        lora = self.method.train(subject, changed_round, f"{self.trigger}-{name}")
        return self.ask(lora, self.trigger)

    def measure(self, only: Sequence[str] = ()) -> dict[str, Judgement]:
        """What each way of making a LoRA brings back, or `only` some; `crops_and_others` must be asked for."""
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
    """As the service's own prompts ask for pictures."""
    plain = {"style": "cel shading", "background": "white", "expression": "neutral", "arms": "down"}
    return sample_shot(rng, view=view, **plain, **given)


def true_pictures(character: Character, size: int, count: int = 40) -> list[tuple[Image.Image, list[str]]]:
    """The upper bound's training set: true renders, every view, with the tags of what they show."""
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
    """The plan with some of its values set: `style.train.rank=4`, `character.caption_policy="mixed"`."""
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
    """The lines of the bench."""
    views = list(measured[0]["method"].views)
    unseen = [view for view in views if view != first_view]
    by_view = {view: statistics.mean(m["method"].views[view] for m in measured) for view in views}
    worst = min(by_view, key=lambda view: by_view[view])
    yield line("trigger_only_attributes", by_view[worst], 0.9, [m["method"].views[worst] for m in measured], by_view)

    def excess(kind: str) -> list[float]:
        return [m[kind].mean(unseen) - m["base"].mean(unseen) for m in measured]

    def over(other: float) -> list[float]:
        """By character, as many times as the mean of the others: one alone may have next to nothing."""
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
    said = ", ".join(f"{name} {share:.2f}" for name, share in about.items())
    return figure(name, value, goal=goal, better=better, runs=runs, about=said)


def quicker(plan: Plan) -> Plan:
    """A smaller plan, for tests that ask only whether the method still works."""
    rounds = [
        replace(r, target=min(r.target, 16), train=replace(r.train, train_steps=r.train.train_steps // 2))
        for r in plan.rounds
    ]
    return Plan(rounds=[rounds[0], rounds[-1]])


@dataclass(frozen=True)
class Task:
    """One character to be measured, by a process of its own."""

    character: Character
    trigger: str
    base: catalog.BaseModel
    plan: Plan
    only: tuple[str, ...]
    sheets: Path | None
    judge: Path


def measure(task: Task) -> tuple[dict[str, Judgement], float]:
    """What was found, and in how many seconds."""
    torch.set_num_threads(1)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        method = Method(families.load(task.base), task.plan, Path(scratch))
        bench = Bench(task.character, task.trigger, method, Judge.load(task.judge), task.sheets)
        return bench.measure(task.only), time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--characters", type=int, default=8)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="characters measured at once")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--practice", action="store_true", help="characters that presets may be tuned on")
    parser.add_argument("--only", nargs="*", default=[], choices=KINDS)
    parser.add_argument("--set", nargs="*", default=[], metavar="KIND.PATH=JSON", help="change the plan")
    parser.add_argument("--base", type=Path, help="another folder of weights than the one that ships")
    parser.add_argument("--sheets", type=Path, default=SHEETS, help="the folder to keep what is drawn in")
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
