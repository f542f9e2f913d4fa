"""The demo: make a character LoRA from one picture, as a client of the embedded service, and write a report.

Once the servers run, it uses only the public API, through `bootlora.Bootlora`.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import psutil
from rich.console import Console
from rich.table import Table

from bootlora import ApiError, Bootlora, saving, sheets
from bootlora.display import Display, duration
from bootlora.following import follow, stages
from bootlora.types import Event, Image, Project, Round
from embedded import report
from embedded.stack import ROOT, Stack
from embedded.story import Character, Lap, Story
from embedded.supervisor import InUse, StartFailed

EXAMPLE = ROOT / "models/chibi/examples/eiei21girl.png"
BASE_MODEL = "chibi"
SETTINGS = {"BOOTLORA_HEARTBEAT_SECONDS": "1"}  # the progress bars move once a second
LABEL = {"made_by": "demo"}
INTERRUPTED = 130  # what a shell expects after Ctrl-C


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo-output"), show_default=True)
@click.option("--data", type=click.Path(path_type=Path), default=ROOT / "data/demo", help="The service's folder.")
@click.option(
    "--picture",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=EXAMPLE,
    help="A picture of another character. A JSON file of the same name must describe her.",
)
def demo(out: Path, data: Path, picture: Path) -> None:
    """Make a character LoRA from one picture on this machine."""
    console = Console(highlight=False)
    try:
        run(out, data, Character.read(picture), console)
    except KeyboardInterrupt:
        console.print("stopped; all processes have ended")
        sys.exit(INTERRUPTED)
    except (ApiError, InUse, StartFailed, RuntimeError) as error:
        console.print(f"bootlora: {error}", style="red", markup=False)
        console.print(f"the logs are in {data / 'logs'}", markup=False)
        sys.exit(1)


def run(out: Path, data: Path, character: Character, console: Console, plan: dict[str, Any] | None = None) -> Story:
    """Run the whole demo. The output folder appears only when everything has succeeded."""
    check_replaceable(out)
    began = time.monotonic()
    with built_aside(out) as folder:
        with Stack(data, settings=SETTINGS, report=lambda line: console.print(f"[dim]{line}")) as stack:
            parts = {"start the service": time.monotonic() - began}
            story = play(Bootlora(stack.url, stack.api_key), character, folder, console, parts, plan)
        story.parts["in all"] = time.monotonic() - began
        report.write(story, folder / "report.html")
    print_summary(story, out, console)
    return story


def play(
    bootlora: Bootlora,
    character: Character,
    folder: Path,
    console: Console,
    parts: dict[str, float],
    plan: dict[str, Any] | None,
) -> Story:
    """Do what a client does, from the picture to the LoRA."""
    with Display(console) as display:
        cancel_leftovers(bootlora)
        with timed(parts, "upload and crop"):
            project = prepare(bootlora, character, display, plan)
        with timed(parts, "rounds"):
            events = bootstrap(bootlora, project["id"], display)
        story = Story(character, bootlora.projects.get(project["id"]), parts=parts, stages=stages(events))
        with timed(parts, "before and after"):
            compare(bootlora, story, folder, display)
        with timed(parts, "download"):
            collect(bootlora, story, folder)
    return story


def cancel_leftovers(bootlora: Bootlora) -> None:
    """Cancel the projects of interrupted demos. Otherwise they would continue now and delay this one."""
    for project in bootlora.projects.all(state="running", **{"metadata.made_by": LABEL["made_by"]}):
        bootlora.projects.cancel(project["id"])


def prepare(bootlora: Bootlora, character: Character, display: Display, plan: dict[str, Any] | None) -> Project:
    """Create the project, upload the picture, crop it into four, and set the feature tags."""
    more: dict[str, Any] = {"plan": plan} if plan else {}
    project = bootlora.projects.create(
        name=f"demo of {character.trigger}",
        trigger_word=character.trigger,
        subject_tags=character.subject_tags,
        base_model=BASE_MODEL,
        curation="auto",
        metadata=LABEL,
        **more,
    )
    image = bootlora.images.upload(
        project["id"], character.picture, view="front", framing="full_body", tags=character.image_tags
    )
    job = display.wait(bootlora, bootlora.images.crop(image["id"], "auto"))
    crops = bootlora.jobs.images(job["id"])
    display.say(f"project {project['id']}: {character.picture.name} is cropped into {len(crops)}")
    return bootlora.projects.change(project["id"], feature_tags=character.feature_tags)


def bootstrap(bootlora: Bootlora, project_id: str, display: Display) -> list[Event]:
    """Run all rounds without a person, and return their events."""
    bootlora.projects.start(project_id)
    events: list[Event] = []
    while True:
        for moment in follow(bootlora, project_id, after=events[-1]["data"]["seq"] if events else 0):
            events += moment.news
            display.show(moment)
        if moment.project["state"] == "completed":
            return events
        if moment.project["state"] != "running" or moment.round is None:
            error = moment.project.get("error") or {"code": "ended", "message": f"it is {moment.project['state']}"}
            raise ApiError(0, error["code"], f"the project did not complete: {error['message']}")
        display.say("the round waits for a person; the demo continues with the pictures that it has")
        bootlora.rounds.finish(project_id, moment.round["number"], accept_fewer=True)


def compare(bootlora: Bootlora, story: Story, folder: Path, display: Display) -> None:
    """Draw the evaluation's prompts and seeds again: without a LoRA, with round 1's and with the character LoRA."""
    project_id = story.project["id"]
    tried = in_turn(by_age(bootlora.images.all(project_id, role="evaluation")))
    story.views = [str(image["view"]) for image in tried]
    loras = bootlora.loras.all(project_id)
    wanted: list[Any] = [{"prompt": image["prompt"], "seed": image["seed"], "count": 1} for image in tried]
    rows: list[tuple[str, list[Any]]] = [
        ("base model, the trigger word alone", []),
        ("style LoRA of the four crops", [{"lora_id": loras[0]["id"], "weight": 1.0}]),
        ("character LoRA", [{"lora_id": loras[-1]["id"], "weight": 1.0}]),
    ]
    jobs = [bootlora.projects.generate(project_id, wanted, chosen) for _, chosen in rows]
    for (title, _), job in zip(rows, jobs, strict=True):
        display.say(f"before and after: {title}")
        images = bootlora.jobs.images(display.wait(bootlora, job)["id"])
        story.compared.append((title, saving.pictures(bootlora, images, scratch(folder) / job["id"])))
    per_row = len(set(story.views))
    lines = [
        (title if start == 0 else "", files[start : start + per_row])
        for title, files in story.compared
        for start in range(0, len(files), per_row)
    ]
    (folder / "sheets").mkdir(exist_ok=True)
    sheets.comparison(lines, story.views[:per_row]).save(folder / "sheets/before-after.png")


def in_turn(images: list[Image]) -> list[Image]:
    """Order the images so that the first one of each view comes first, then the second of each, and so on."""
    seen: Counter[str | None] = Counter()
    lines: list[tuple[int, Image]] = []
    for image in images:
        lines.append((seen[image["view"]], image))
        seen[image["view"]] += 1
    return [image for _, image in sorted(lines, key=lambda line: line[0])]


def collect(bootlora: Bootlora, story: Story, folder: Path) -> None:
    """Save the LoRA files, the dataset with its captions and a contact sheet of each round."""
    project_id = story.project["id"]
    story.loras = saving.lora(bootlora, saving.latest_lora(bootlora, project_id), folder / "lora")
    references = by_age(bootlora.images.all(project_id, role="reference", decision="accepted"))
    files = saving.pictures(bootlora, references, scratch(folder) / "references")
    story.references = list(zip(references, files, strict=True))
    for each in bootlora.rounds.all(project_id):
        story.laps.append(lap(bootlora, project_id, bootlora.rounds.get(project_id, each["number"]), folder))
    last = story.laps[-1].round
    place = saving.dataset(bootlora, project_id, last, folder / "dataset")
    story.dataset = [(file, file.with_suffix(".txt").read_text().strip()) for file in sorted(place.glob("*.png"))]


def lap(bootlora: Bootlora, project_id: str, round_: Round, folder: Path) -> Lap:
    number = round_["number"]
    if round_["kind"] == "character":
        images = by_age(bootlora.images.all(project_id, role="evaluation"))
        title = f"round {number}: the character LoRA, tried from every side"
    else:
        images = bootlora.rounds.candidates(project_id, number)
        accepted = sum(image["decision"] == "accepted" for image in images)
        title = f"round {number}: {accepted} of {len(images)} candidates accepted"
    files = saving.pictures(bootlora, images, scratch(folder) / f"round-{number}")
    sheet = saving.sheet(images, files, folder / f"sheets/round-{number}.png", title=title)
    return Lap(round_, bootlora.loras.get(str(round_["lora_id"])), images, files, sheet, title)


def by_age(images: Iterator[Image]) -> list[Image]:
    return sorted(images, key=lambda image: (image["created_at"], image["id"]))


def scratch(folder: Path) -> Path:
    """The folder of pictures for the report and the sheets. It is deleted in the end."""
    return folder / ".pictures"


@contextmanager
def timed(parts: dict[str, float], name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    parts[name] = time.monotonic() - began


def check_replaceable(out: Path) -> None:
    """Refuse to replace a folder that no earlier demo has made."""
    if out.exists() and not (out / "report.html").exists() and (not out.is_dir() or any(out.iterdir())):
        raise click.UsageError(f"{out} exists and was not made by a demo; choose another folder with --out")


@contextmanager
def built_aside(out: Path) -> Iterator[Path]:
    """Yield a new folder that replaces `out` at the end, in one step. If something fails, `out` stays as it was."""
    out = out.absolute()
    remove_leftovers(out)
    aside, old = (out.with_name(f".{out.name}.{word}.{os.getpid()}") for word in ("new", "old"))
    aside.mkdir(parents=True)
    try:
        yield aside
        shutil.rmtree(scratch(aside), ignore_errors=True)
        if out.exists():
            out.replace(old)
        aside.replace(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def remove_leftovers(out: Path) -> None:
    """Delete what killed demos have left beside the folder."""
    for left in out.parent.glob(f".{out.name}.*.*"):
        pid = left.suffix.removeprefix(".")
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(left, ignore_errors=True)


def print_summary(story: Story, out: Path, console: Console) -> None:
    """Print where the results are, and how long each part took."""
    times = Table("part", "", "seconds", box=None, pad_edge=False)
    times.columns[2].justify = "right"
    for name, seconds in story.parts.items():
        times.add_row(name, "", f"{seconds:.1f}", style="bold" if name == "in all" else "")
        if name == "rounds":
            for stage in story.stages:
                times.add_row(
                    "", f"round {stage.number} {stage.kind}: {stage.name}", f"{stage.seconds:.1f}", style="dim"
                )
    console.print()
    console.print(times)
    console.print()
    for place, what in (
        ("report.html", "open this in a browser"),
        ("lora", "the character LoRA, in two formats; it fits only the demo's base model, chibi"),
        ("dataset", f"{len(story.dataset)} pictures with their captions"),
        ("sheets", "a contact sheet of each round, and before/after"),
    ):
        console.print(f"[green]{out / place}[/]  {what}", soft_wrap=True)
    console.print(f"done in {duration(story.parts['in all'])}")
