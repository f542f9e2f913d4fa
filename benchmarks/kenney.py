"""The method on characters by another artist: Kenney's, of which true pictures from several sides exist.

The method gets the front picture of each. The trigger alone then draws her from other sides. The figure is the cosine
between the judge's features of these drawings and of the true pictures. For comparison it also measures LoRAs of the
four crops alone, the base model, and, as an upper bound, other true pictures of the same character.

    python -m benchmarks.kenney [NAME...]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import cosine_similarity

from benchmarks.bootstrap import Method, Subject
from benchmarks.method import changed
from chibi_lab.judge import FOLDER, Judge
from chibi_lab.sheet import save_sheet
from models.chibi.reader.pixels import to_tensor
from shared import catalog, plans
from workers import pictures
from workers.diffusion import families

DRAWN = Path(__file__).resolve().parent.parent / "tests" / "data" / "kenney"
CHARACTERS = {
    "femaleAdventurer": ["brown hair", "long hair", "brown eyes", "blue shirt", "brown shorts", "blue hairband"],
    "robot": ["robot", "blue armor", "yellow eyes"],
}
POSES = {"front": "idle", "three-quarter": "walk0", "behind": "climb0"}
SEEDS = 4


def true_picture(name: str, view: str, size: int) -> Image.Image:
    shown = pictures.prepare(Image.open(DRAWN / f"{name}_{POSES[view]}.png"), size)
    return pictures.fit(shown, (size, size))


@torch.no_grad()
def features(judge: Judge, images: Sequence[Image.Image]) -> torch.Tensor:
    """The features of pictures in the judge's trunk, (n, width)."""
    return judge.trunk(to_tensor(np.stack([np.asarray(image) for image in images])))


def likeness(judge: Judge, drawn: Sequence[Image.Image], truth: Image.Image) -> float:
    """Mean cosine between drawings and the true picture, -1..1."""
    return float(cosine_similarity(features(judge, drawn), features(judge, [truth])).mean())


def measure(method: Method, judge: Judge, name: str, sheets: Path | None) -> dict[str, dict[str, float]]:
    """Likeness by view, for each way of making a LoRA."""
    subject = Subject(f"{name.lower()}7", CHARACTERS[name])
    size, last = method.base.row.resolution, method.plan.rounds[-1]
    method.crops(subject, Image.open(DRAWN / f"{name}_idle.png"))
    crops = method.train(subject, last, f"{name}-crops")
    loras = {"base": None, "four_crops": crops, "method": method.run(subject)}
    found: dict[str, dict[str, float]] = {}
    rows: list[np.ndarray] = []
    for kind, lora in loras.items():
        asked = replace(last, views=list(POSES), framings={"full_body": 1})
        wanted = method.wanted(subject.trigger, [], asked, SEEDS * len(POSES), 9_000)
        drawn = method.draw(wanted, last.generate, lora)
        rows += [np.asarray(image) for image in drawn]
        found[kind] = {
            view: likeness(
                judge,
                [image for image, picture in zip(drawn, wanted, strict=True) if picture.view == view],
                true_picture(name, view, size),
            )
            for view in POSES
        }
    others = {view: [true_picture(name, other, size) for other in POSES if other != view] for view in POSES}
    found["true_pictures"] = {view: likeness(judge, others[view], true_picture(name, view, size)) for view in POSES}
    if sheets:
        save_sheet(sheets / f"{name}.png", rows, SEEDS * len(POSES))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CHARACTERS)}; default: all")
    parser.add_argument("--set", nargs="*", default=[], metavar="KIND.PATH=JSON", help="change the plan")
    parser.add_argument("--base", type=Path, help="a folder of weights, instead of those that ship")
    parser.add_argument("--sheets", type=Path, help="a folder for the drawings")
    arguments = parser.parse_args()
    row = catalog.base_models()["chibi"]
    if arguments.base:
        row = replace(row, path=str(arguments.base))
    plan, judge = changed(plans.resolve(None, row), arguments.set), Judge.load(FOLDER)
    with tempfile.TemporaryDirectory() as scratch:
        method = Method(families.load(row), plan, Path(scratch))
        for name in arguments.names or CHARACTERS:
            found = measure(method, judge, name, arguments.sheets)
            unseen = {kind: statistics.mean(views[v] for v in POSES if v != "front") for kind, views in found.items()}
            shown = {kind: {view: round(x, 3) for view, x in views.items()} for kind, views in found.items()}
            means = {kind: round(x, 3) for kind, x in unseen.items()}
            print(json.dumps({"character": name, "unseen": means, **shown}), flush=True)


if __name__ == "__main__":
    main()
