"""How far the judge can be trusted on what a base draws: its answers beside those that a person gave by eye.

A judge learns on renders, and may misread what a base draws. No figure should rest on a head before its agreement is
known.

python -m chibi_lab.agreement draw FOLDER      # pictures of held-out prompts, a sheet, and a form to fill in
python -m chibi_lab.agreement read FOLDER      # the share of the answers in the form that the judge gives too
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from models.chibi.reader import Reader

from .following import generate, load_pipeline, questions
from .judge import FOLDER as JUDGE
from .judge import Judge
from .labels import HEADS
from .sheet import save_sheet

BASE = Path(__file__).parents[1] / "models/chibi/base"
FORM = "form.json"
PICTURES = 48
COLUMNS = 8


@dataclass(frozen=True)
class Agreement:
    agreed: int
    asked: int


def draw(folder: Path, base: Path, count: int = PICTURES) -> None:
    """Pictures, and a form with every head of each picture left empty: what can't be seen stays so."""
    folder.mkdir(parents=True, exist_ok=True)
    pipeline = load_pipeline(base)
    asked = questions(count, pipeline.unet.config.sample_size * 8, seed=77)
    pictures = generate(pipeline, [question.prompt for question in asked], seed=900)
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{i:03d}.png")
    save_sheet(folder / "sheet.png", pictures, COLUMNS)
    form = {f"{i:03d}.png": dict.fromkeys(HEADS, "") for i in range(len(pictures))}
    (folder / FORM).write_text(json.dumps({"answers": HEADS, "pictures": form}, indent=2) + "\n")


def agreement(judge: Reader, folder: Path) -> dict[str, Agreement]:
    """By head, over the answers that were filled in. Raises ValueError for an answer that the judge can't give."""
    form = json.loads((folder / FORM).read_text())["pictures"]
    pictures = np.stack([np.asarray(Image.open(folder / name).convert("RGB")) for name in form])
    read = judge.read(pictures)
    found = {}
    for head, answers in judge.answers.items():
        given = {i: filled[head] for i, filled in enumerate(form.values()) if filled.get(head)}
        if unknown := set(given.values()) - set(answers):
            raise ValueError(f"{FORM}: {head} can't be {sorted(unknown)}; choose from {list(answers)}")
        agreed = sum(answers[int(read[head][i].argmax())] == answer for i, answer in given.items())
        found[head] = Agreement(agreed, len(given))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["draw", "read"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--base", type=Path, default=BASE)
    parser.add_argument("--judge", type=Path, default=JUDGE)
    arguments = parser.parse_args()
    if arguments.action == "draw":
        draw(arguments.folder, arguments.base)
        return
    for head, found in agreement(Judge.load(arguments.judge), arguments.folder).items():
        share = f"{found.agreed / found.asked:.2f}" if found.asked else "   -"
        print(f"{head:16} {share}  of {found.asked}")


if __name__ == "__main__":
    main()
