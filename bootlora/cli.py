"""The `bootlora` command: the whole service from a shell."""

from __future__ import annotations

import base64
import errno
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Column, Table

from bootlora import saving, selection
from bootlora.client import Bootlora
from bootlora.display import Display
from bootlora.following import follow
from bootlora.http import ApiError
from bootlora.types import Image, Job, Lora

# Names and tags may contain brackets, so no markup. Output to a pipe must not be wrapped.
console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 240)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


class Commands(click.Group):
    """Commands that print an error as one sentence and exit with status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ApiError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # click exits silently when the pipe's reader has closed it
                raise
            raise click.ClickException(
                f"{error.filename}: {error.strerror}" if error.filename else str(error)
            ) from error


class FolderPath(click.Path):
    """A folder that exists or can be created. It is checked before the command starts any work."""

    def __init__(self) -> None:
        super().__init__(file_okay=False, writable=True, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        folder = Path(value)
        super().convert(next(each for each in (folder, *folder.absolute().parents) if os.path.exists(each)), param, ctx)
        return folder


class JsonFile(click.File):
    """A JSON file; the command gets its parsed content."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return json.load(super().convert(value, param, ctx))
        except (ValueError, RecursionError) as error:
            return self.fail(f"{value} is not valid JSON: {error}", param, ctx)


class TagList(click.ParamType):
    """Comma-separated tags."""

    name = "tags"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        return value if isinstance(value, list) else selection.tags(value)


class LoraWeight(click.ParamType):
    """A LoRA's id and the weight at which it is applied."""

    name = "id:weight"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        lora_id, _, weight = value.partition(":")
        try:
            return {"lora_id": lora_id, "weight": float(weight or 1)}
        except ValueError:
            return self.fail(f"{weight!r} is not a number; write for example {lora_id}:0.8", param, ctx)


class Numbers(click.ParamType):
    """Candidate numbers: 1,4,7-9, or all, or rest."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            selection.numbers(value, range(10**6), [])
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return value


def with_client(command: Callable[..., None]) -> Callable[..., None]:
    """Create the client when the command runs, so that `--help` works without a key."""

    @click.pass_obj
    @wraps(command)
    def called(connection: tuple[str, str | None], **given: Any) -> None:
        url, key = connection
        if not key:
            raise click.UsageError("the API key is missing; pass --key or set BOOTLORA_KEY")
        command(Bootlora(url, key), **given)

    return called


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--url", envvar="BOOTLORA_URL", default="http://127.0.0.1:8000", show_default=True, show_envvar=True)
@click.option("--key", envvar="BOOTLORA_KEY", show_envvar=True, help="An API key.")
@click.version_option(package_name="bootlora")
@click.pass_context
def main(ctx: click.Context, url: str, key: str | None) -> None:
    """Train a LoRA that draws a character from any side, starting from one picture."""
    ctx.obj = (url, key)


@main.group()
def projects() -> None:
    """Create, start and cancel projects. One project makes one character's LoRA."""


@projects.command("list")
@with_client
def list_projects(bootlora: Bootlora) -> None:
    """List your projects."""
    table = _table("project", "name", "trigger", "state", "curation", "base model")
    for project in bootlora.projects.all():
        names = ("id", "name", "trigger_word", "state", "curation", "base_model")
        table.add_row(*(str(project.get(name, "")) for name in names))
    console.print(table)


@projects.command("create")
@click.argument("name", required=False)
@click.option("--trigger", required=True, help="A word that the base model does not know, such as eiei21girl.")
@click.option("--features", type=TagList(), default="", help="The character's features: 'fox ears, blonde hair, ...'.")
@click.option("--subject", type=TagList(), default="1girl, solo", show_default=True)
@click.option("--base-model", help="Default: the first base model of the service.")
@click.option("--intended-use", type=click.Choice(["commercial", "non_commercial"]), help="What the LoRA is for.")
@click.option("--curation", type=click.Choice(["manual", "auto"]), default="manual", show_default=True)
@click.option("--plan", type=JsonFile(), help="A JSON file with the rounds; the default is 4 -> 16 -> 40.")
@click.option("--metadata", multiple=True, metavar="KEY=VALUE", help="Your own ids; every event carries them.")
@with_client
def create_project(
    bootlora: Bootlora,
    name: str | None,
    trigger: str,
    features: list[str],
    subject: list[str],
    base_model: str | None,
    intended_use: str | None,
    curation: str,
    plan: Any,
    metadata: Sequence[str],
) -> None:
    """Create a draft and print its id. NAME defaults to the trigger word."""
    more: dict[str, Any] = {"subject_tags": subject, "curation": curation}
    more["base_model"] = base_model or bootlora.base_models()[0]["name"]
    if intended_use is not None:
        more["intended_use"] = intended_use
    if plan is not None:
        more["plan"] = plan
    if metadata:
        more["metadata"] = dict(each.partition("=")[::2] for each in metadata)
    project = bootlora.projects.create(name=name or trigger, trigger_word=trigger, feature_tags=features, **more)
    warnings: Any = project.get("warnings", [])
    for warning in warnings:
        click.echo(f"warning: {warning['detail']}", err=True)
    click.echo(project["id"])


@projects.command("show")
@click.argument("project")
@with_client
def show_project(bootlora: Bootlora, project: str) -> None:
    """Show a project, its references, its rounds and its LoRAs."""
    found = bootlora.projects.get(project)
    for name in ("id", "name", "state", "trigger_word", "subject_tags", "feature_tags", "base_model", "curation"):
        value = found.get(name)
        console.print(f"{name:14} {', '.join(value) if isinstance(value, list) else value}")
    if error := found.get("error"):
        console.print(f"{'error':14} {error['message']}", style="red")
    console.print()
    console.print(_image_table(bootlora.images.all(project, role="reference")))
    rounds = _table("LoRA", "round", "kind", "state", "target", "trained on")
    for each in bootlora.rounds.all(project):
        counts = (str(each["target"]), str(len(each["dataset"])))
        rounds.add_row(each.get("lora_id"), str(each["number"]), each["kind"], each["state"], *counts)
    if rounds.row_count:
        console.print()
        console.print(rounds)


@projects.command("start")
@click.argument("project")
@with_client
def start_project(bootlora: Bootlora, project: str) -> None:
    """Start the first round."""
    bootlora.projects.start(project)
    click.echo(f"started; `bootlora watch {project}` shows the progress")


@projects.command("cancel")
@click.argument("project")
@with_client
def cancel_project(bootlora: Bootlora, project: str) -> None:
    """Cancel a project for good. Its images and LoRAs are kept."""
    bootlora.projects.cancel(project)
    click.echo("cancelled")


@projects.command("retry")
@click.argument("project")
@with_client
def retry_project(bootlora: Bootlora, project: str) -> None:
    """Run the failed stage again, from its last checkpoint."""
    bootlora.projects.retry(project)
    click.echo(f"retrying; `bootlora watch {project}` shows the progress")


@projects.command("delete")
@click.argument("project")
@click.confirmation_option(prompt="Delete the project with all its images and LoRAs?")
@with_client
def delete_project(bootlora: Bootlora, project: str) -> None:
    """Delete a project with all its images and LoRAs."""
    bootlora.projects.delete(project)
    click.echo("deleted")


@main.command()
@with_client
def models(bootlora: Bootlora) -> None:
    """List the base models, with their licences and what is wrong with those that can't be used."""
    table = _table("name", "family", "predicts", "side", "licence", "commercial use", "remark")
    for each in bootlora.base_models():
        family = " ".join(filter(None, [each["family"], each.get("lineage")]))
        remark = each.get("problem") or ("" if each.get("available", True) else "no live worker has it")
        facts = (
            family,
            each["prediction_type"],
            str(each["resolution"]),
            each["license"],
            each.get("commercial_use", ""),
        )
        table.add_row(each["name"], *([""] * len(facts) if each.get("problem") else facts), remark)
    console.print(table)


@main.command()
@click.argument("project")
@click.argument("files", nargs=-1, required=True, type=FILE)
@click.option("--view", help="front, three-quarter, side, behind, above or below.")
@click.option("--framing", help="full_body, upper_body or portrait.")
@click.option("--tags", type=TagList(), default="", help="Other tags for these pictures.")
@with_client
def upload(
    bootlora: Bootlora, project: str, files: Sequence[Path], view: str | None, framing: str | None, tags: list[str]
) -> None:
    """Upload reference pictures and print their ids."""
    for file in files:
        click.echo(bootlora.images.upload(project, file, view=view, framing=framing, tags=tags)["id"])


@main.command("import")
@click.argument("project")
@click.argument("file", type=FILE)
@with_client
def import_zip(bootlora: Bootlora, project: str, file: Path) -> None:
    """Add the pictures of a zip, in the layout of kohya's scripts; what became of each file is shown."""
    job = _watched(bootlora, bootlora.images.import_zip(project, file))
    files = bootlora.jobs.files(job["id"])
    table = _table("file", "outcome", "image", "remark")
    for each in files:
        table.add_row(each["name"], each["outcome"].replace("_", " "), each["image_id"], each["reason"])
    console.print(table)
    counts = Counter(each["outcome"] for each in files)
    click.echo(f"taken {counts['taken']}, left out {counts['left_out']}, refused {counts['refused']}")


@main.command()
@click.argument("image")
@click.option("--mode", type=click.Choice(["auto", "quadrants"]), default="auto", show_default=True)
@click.option("--keep-source", is_flag=True, help="Also keep the whole picture as a reference.")
@with_client
def crop(bootlora: Bootlora, image: str, mode: str, keep_source: bool) -> None:
    """Crop one picture into several references: four, or two if it is a portrait."""
    job = _watched(bootlora, bootlora.images.crop(image, mode, keep_source=keep_source))
    console.print(_image_table(bootlora.jobs.images(job["id"])))


@main.command()
@click.argument("thing", metavar="PROJECT|IMAGE")
@click.argument("tags", nargs=-1, required=True)
@click.option("--subject", type=TagList(), help="A project's subject tags, which stay in every caption.")
@with_client
def tags(bootlora: Bootlora, thing: str, tags: Sequence[str], subject: list[str] | None) -> None:
    """Set the feature tags of a project, or the tags of one image."""
    given = selection.tags(", ".join(tags))
    if thing.startswith("img_"):
        now = bootlora.images.change(thing, tags=given)["tags"]
    else:
        more: dict[str, Any] = {"subject_tags": subject} if subject is not None else {}
        now = bootlora.projects.change(thing, feature_tags=given, **more)["feature_tags"]
    click.echo(", ".join(now))


@main.command()
@click.argument("project")
@with_client
def watch(bootlora: Bootlora, project: str) -> None:
    """Show a project's progress until it ends or waits for you."""
    with Display(console) as display:
        for moment in follow(bootlora, project):
            display.show(moment)
    if moment.waits_for:
        console.print(f"the project waits for you: {moment.waits_for}", style="yellow")
        if moment.round:
            number = moment.round["number"]
            console.print(f"next: bootlora candidates {project} {number} --out round-{number}")
    else:
        console.print(f"the project is {moment.project['state']}")
    if moment.project["state"] == "failed":
        raise ApiError(0, "failed", (moment.project.get("error") or {}).get("message", "the project has failed"))


@main.command()
@click.argument("project")
@click.argument("number", metavar="ROUND", type=int)
@click.option("--out", type=FolderPath(), required=True)
@with_client
def candidates(bootlora: Bootlora, project: str, number: int, out: Path) -> None:
    """Download a round's candidates and a contact sheet with the numbers for `curate`."""
    found = bootlora.rounds.candidates(project, number)
    files = saving.pictures(bootlora, found, out)
    sheet = saving.sheet(found, files, out / "sheet.png", title=f"round {number}: candidates", numbered=True)
    click.echo(f"saved {len(files)} candidates in {out}; {sheet} shows their numbers")


@main.command()
@click.argument("project")
@click.argument("number", metavar="ROUND", type=int)
@click.option("--accept", type=Numbers(), default="none", help="For example 1,4,7-9, or all.")
@click.option("--reject", type=Numbers(), default="none", help="For example 2-3, or rest: every undecided candidate.")
@with_client
def curate(bootlora: Bootlora, project: str, number: int, accept: str, reject: str) -> None:
    """Accept and reject candidates by their numbers on the sheet."""
    found = bootlora.rounds.candidates(project, number)
    undecided = [place for place, image in enumerate(found, 1) if image["decision"] == "pending"]
    places = range(1, len(found) + 1)
    try:
        accepted = selection.numbers(accept, places, undecided)
        rejected = selection.numbers(reject, places, [place for place in undecided if place not in accepted])
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    if both := sorted(set(accepted) & set(rejected)):
        raise click.ClickException(f"candidates {', '.join(map(str, both))} are both accepted and rejected; choose one")
    ids = {place: image["id"] for place, image in enumerate(found, 1)}
    bootlora.rounds.decide(
        project, number, accepted=[ids[place] for place in accepted], rejected=[ids[place] for place in rejected]
    )
    click.echo(f"accepted {len(accepted)}, rejected {len(rejected)}")


@main.command("put-back")
@click.argument("image")
@click.argument("file", type=FILE)
@with_client
def put_back(bootlora: Bootlora, image: str, file: Path) -> None:
    """Replace an image with an edited version and print the new image's id."""
    click.echo(bootlora.images.put_back(image, file)["id"])


@main.command()
@click.argument("project")
@click.argument("number", metavar="ROUND", type=int)
@click.option("--count", type=int, required=True)
@click.option("--views", type=TagList(), default="", help="Only these views, for example 'behind, side'.")
@with_client
def more(bootlora: Bootlora, project: str, number: int, count: int, views: list[str]) -> None:
    """Draw more candidates."""
    _watched(bootlora, bootlora.rounds.more(project, number, count, views))
    click.echo("done; download them with `bootlora candidates`")


@main.command()
@click.argument("project")
@click.argument("number", metavar="ROUND", type=int)
@click.option("--accept-fewer", is_flag=True, help="Finish with fewer pictures than the round's target.")
@with_client
def finish(bootlora: Bootlora, project: str, number: int, accept_fewer: bool) -> None:
    """End a round's curation and start the next round."""
    bootlora.rounds.finish(project, number, accept_fewer=accept_fewer)
    click.echo(f"round {number} is finished")


@main.command()
@click.argument("project")
@click.option("--out", type=FolderPath(), required=True)
@click.option("--round", "number", type=int, help="Take this round's LoRA and dataset. Default: the last round.")
@with_client
def download(bootlora: Bootlora, project: str, out: Path, number: int | None) -> None:
    """Download the LoRA in both formats and the dataset with its captions."""
    rounds = bootlora.rounds.all(project)
    if number is None:
        lora = saving.latest_lora(bootlora, project)
        number = next(each["number"] for each in rounds if each["id"] == lora["round_id"])
    round_ = bootlora.rounds.get(project, number)
    if not round_.get("lora_id"):
        raise click.ClickException(f"round {number} has no LoRA yet; `bootlora watch {project}` shows the progress")
    for file in saving.lora(bootlora, bootlora.loras.get(str(round_["lora_id"])), out / "lora"):
        click.echo(file)
    click.echo(saving.dataset(bootlora, project, round_, out / "dataset"))


@main.group()
def loras() -> None:
    """Bring LoRAs of other tools, to draw with: `bootlora generate PROJECT --lora ID:0.8`."""


@loras.command("add")
@click.argument("file", type=FILE)
@click.option("--name", help="Default: the title in the file, or the file's name.")
@click.option("--trigger", "trigger_word", help="The word that calls it up, where the file doesn't say it.")
@click.option("--license", "license_", help="Its license, where the file doesn't say it.")
@click.option("--family", help="sd15, sd2, sdxl or chibi: for a file that fits several, which it is for.")
@with_client
def add_lora(bootlora: Bootlora, file: Path, license_: str | None, **more: str | None) -> None:
    """Upload a LoRA file of kohya's scripts, LyCORIS, diffusers or peft."""
    said = {name: value for name, value in {**more, "license": license_}.items() if value}
    console.print(_lora_table([bootlora.loras.add(file, **said)]))


@loras.command("list")
@with_client
def list_loras(bootlora: Bootlora) -> None:
    """List the LoRAs that you have brought, newest first."""
    console.print(_lora_table(bootlora.loras.brought()))


@loras.command("delete")
@click.argument("lora")
@click.confirmation_option(prompt="Delete the LoRA?")
@with_client
def delete_lora(bootlora: Bootlora, lora: str) -> None:
    """Delete a LoRA that you have brought. No job that waits or runs may draw with it."""
    bootlora.loras.delete(lora)
    click.echo("deleted")


@main.command()
@click.argument("project")
@click.option("--prompt", "prompts", multiple=True, required=True, help="May be given several times.")
@click.option("--seed", type=int, default=1, show_default=True)
@click.option(
    "--count", type=int, default=1, show_default=True, help="Pictures per prompt; the seed grows by one for each."
)
@click.option("--lora", "loras", type=LoraWeight(), multiple=True, help="Default: the latest LoRA of the project.")
@click.option("--base", is_flag=True, help="Draw with the base model alone, without a LoRA.")
@click.option("--image", help="The id of a picture of the project to draw from.")
@click.option(
    "--strength",
    type=click.FloatRange(0, 1, min_open=True),
    help="How much of --image is drawn anew; 0.6 if left out. 1 keeps nothing but what a mask keeps.",
)
@click.option(
    "--mask",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A grey picture as large as --image: white is drawn anew, black stays as it is.",
)
@click.option("--out", type=FolderPath(), required=True)
@with_client
def generate(
    bootlora: Bootlora,
    project: str,
    prompts: Sequence[str],
    seed: int,
    count: int,
    loras: Sequence[Any],
    base: bool,
    image: str | None,
    strength: float | None,
    mask: Path | None,
    out: Path,
) -> None:
    """Draw pictures with a project's LoRAs, from noise or from another picture."""
    if image is None and (strength is not None or mask is not None):
        raise click.UsageError("--strength and --mask need --image, the picture to draw from")
    if not loras and not base:
        loras = [{"lora_id": saving.latest_lora(bootlora, project)["id"], "weight": 1.0}]
    drawn_from = {"image": image, "strength": strength, "mask": mask and base64.b64encode(mask.read_bytes()).decode()}
    given = {name: value for name, value in drawn_from.items() if value is not None}
    wanted: list[Any] = [{"prompt": prompt, "seed": seed, "count": count, **given} for prompt in prompts]
    job = _watched(bootlora, bootlora.projects.generate(project, wanted, loras))
    for file in saving.pictures(bootlora, bootlora.jobs.images(job["id"]), out):
        click.echo(file)


@main.command()
@click.argument("project")
@click.option("--after", type=int, default=0, help="Only events after this sequence number.")
@with_client
def events(bootlora: Bootlora, project: str, after: int) -> None:
    """List a project's events, one per line."""
    for event in bootlora.projects.events(project, after):
        data = {name: value for name, value in event["data"].items() if name not in ("id", "project_id", "seq")}
        click.echo(f"{event['data']['seq']:4} {event['timestamp'][:19]} {event['type']:26} {json.dumps(data)}")


def _lora_table(found: Iterable[Lora]) -> Table:
    table = _table("id", "name", "family", "kinds", "trigger", "license", "MB")
    for lora in found:
        size = f"{lora['files']['original']['size_bytes'] / 1e6:.1f}"
        row = [
            lora["id"],
            lora["name"],
            lora["family"],
            ", ".join(lora["kinds"]),
            lora["trigger_word"],
            lora["license"],
        ]
        table.add_row(*row, size)
    return table


def _watched(bootlora: Bootlora, job: Job) -> Job:
    with Display(console) as display:
        return display.wait(bootlora, job)


def _table(id_: str, *columns: str) -> Table:
    """A table whose first column is an id, which is never wrapped, so that you can copy it."""
    return Table(Column(id_, no_wrap=True), *columns, box=None, pad_edge=False)


def _image_table(images: Any) -> Table:
    table = _table("image", "source", "decision", "view", "framing", "tags")
    image: Image
    for image in images:
        tags = ", ".join(image.get("tags") or [])
        table.add_row(image["id"], image["source"], image["decision"], image.get("view"), image.get("framing"), tags)
    return table


if __name__ == "__main__":
    main()
