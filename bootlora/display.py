"""Progress on a terminal: a bar for the running job and a line for each important event."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from bootlora import types
from bootlora.client import ENDED, Bootlora, succeeded
from bootlora.following import Moment

UNITS = (("hours", 3600), ("minutes", 60), ("seconds", 1))
MIN_UNITS = 2  # a range that ends below two hours is told in minutes
LOG_EVERY_SECONDS = 30  # without a terminal there is no bar, so progress is printed as lines

# The events that are printed. `bootlora events` lists all.
LINES: dict[str, Callable[[dict[str, Any]], str]] = {
    "round.training_started": lambda data: (
        f"round {data['number']}: training a {data['kind']} LoRA on {data['images']} images"
    ),
    "round.generating_started": lambda data: f"round {data['number']}: drawing {data['images']} candidates",
    "round.candidates_ready": lambda data: (
        f"round {data['number']}: {data['candidates']} candidates are ready, needed: {data['missing']}"
    ),
    "round.attention_needed": lambda data: (
        f"round {data['number']}: [yellow]needs attention[/]: {escape(data['reason'])}"
    ),
    "round.evaluating_started": lambda data: f"round {data['number']}: testing the character LoRA from every side",
    "round.completed": lambda data: f"round {data['number']}: [green]done[/], the dataset has {data['images']} images",
    "round.failed": lambda data: f"round {data['number']}: [red]failed[/]: {escape(data['error']['message'])}",
    "prompt.cut": lambda data: (
        f"[yellow]{data['texts']} prompts are too long for the base model[/]; cut off: {escape(data['unread'][0])}"
    ),
    "job.requeued": lambda data: (
        f"[yellow]{escape(data['reason'])}[/]: the {data['kind']} job was requeued and resumes from its checkpoint"
    ),
    "project.completed": lambda data: "[green]the character LoRA is ready[/]",
    "project.cancelled": lambda data: "[yellow]cancelled[/]",
}


class Display:
    """Shows the progress of a project or of a single job. Use it as a context manager."""

    def __init__(self, console: Console | None = None):
        self.console = console or Console()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            TextColumn("{task.fields[amount]}"),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[left]}"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._task: TaskID | None = None
        self._shown: str | None = None
        self._silent_since = time.monotonic()

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def say(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=True)  # above the bar, if there is one
        self._silent_since = time.monotonic()

    def show(self, moment: Moment) -> None:
        for event in moment.news:
            if event["type"] in LINES:
                self.say(LINES[event["type"]](event["data"]))
        if moment.job is not None and not moment.is_last:
            place = f"round {moment.round['number']} [dim]{moment.round['kind']}[/] " if moment.round else ""
            self.show_job(moment.job, place)

    def wait(self, bootlora: Bootlora, job: types.Job) -> types.Job:
        """Show a bar until the job ends, and return it.

        Raises:
            ApiError: the job failed or was cancelled.
        """
        while job["state"] not in ENDED:
            self.show_job(job)
            job = bootlora.jobs.get(job["id"], wait_seconds=1)
        return succeeded(job)

    def show_job(self, job: types.Job, place: str = "") -> None:
        """Show the job's bar in place of the previous job's."""
        if job["id"] != self._shown:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._task = self._progress.add_task("", amount="", left="", total=None)
            self._shown = job["id"]
        assert self._task is not None
        progress = job.get("progress") or {}
        done, total = amounts(progress)
        stage = progress.get("stage") or job.get("verb") or job["kind"]
        waiting = f"waiting: {lack}" if (lack := job.get("waits_for")) else "waiting for a worker"
        what = place + (stage if job["state"] != "queued" else waiting)
        much, left = amount(progress), time_left(job)
        self._progress.update(self._task, description=what, completed=done, total=total, amount=much, left=left)
        if not self.console.is_terminal and time.monotonic() > self._silent_since + LOG_EVERY_SECONDS:
            self.say("  ".join(["[dim]" + what, *filter(None, (much, left))]))


def amounts(progress: types.Progress) -> tuple[int, int | None]:
    """Done and total: steps if the job counts them, otherwise images."""
    if progress.get("total_steps"):
        return progress.get("step") or 0, progress["total_steps"]
    return progress.get("images_done") or 0, progress.get("images_total")


def amount(progress: types.Progress) -> str:
    parts = []
    if progress.get("total_steps"):
        parts.append(f"step {progress.get('step') or 0}/{progress['total_steps']}")
    if progress.get("images_total"):
        parts.append(f"image {progress.get('images_done') or 0}/{progress['images_total']}")
    if progress.get("loss") is not None:
        parts.append(f"loss {progress['loss']:.4f}")
    return "  ".join(parts)


def time_left(job: types.Job) -> str:
    """Until the job ends, such as `about 4 to 6 minutes left`; empty if the service can't tell."""
    bounds = job.get("seconds_to_finish_range")
    return f"{between(bounds['low'], bounds['high'])} left" if bounds else ""


def between(low: float, high: float) -> str:
    """A range of seconds in words: `about 4 to 6 minutes`."""
    unit, seconds = next((each for each in UNITS if high >= each[1] * MIN_UNITS), UNITS[-1])
    least, most = math.floor(low / seconds), max(1, math.ceil(high / seconds))
    if least == 0:
        return f"less than {most} {unit if most > 1 else unit.removesuffix('s')}"
    return f"about {most} {unit}" if least == most else f"about {least} to {most} {unit}"


def duration(seconds: float) -> str:
    """A duration in words, such as `3 min 20 s`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
