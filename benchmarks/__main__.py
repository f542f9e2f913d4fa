"""`make bench` prints one JSON line for each figure, and a table at the end. A missed goal is not an error.

`make bench ONLY=name,name` measures some of them. A figure that can't be measured is printed with the reason.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.figure import figure

# Each figure, and the module that measures it. Each module runs in a process of its own.
SOURCES = {
    "train_step_vs_floor": "benchmarks.diffusion",
    "train_memory_vs_floor": "benchmarks.diffusion",
    "generate_vs_floor": "benchmarks.diffusion",
    "webhook_p95_beside_dead": "benchmarks.webhooks",
    "get_job_vs_flask": "benchmarks.http",
    "post_project_vs_flask": "benchmarks.http",
    "get_me_beside_streams": "benchmarks.streams",
    "worst_body_seconds": "benchmarks.bodies",
    "largest_drawing_bytes": "benchmarks.drawing",
    "claim_1e6_vs_1e3": "benchmarks.tables",
    "list_1e6_vs_1e3": "benchmarks.tables",
    "dispatch_1e6_vs_1e3": "benchmarks.tables",
    "submit_to_start_vs_celery": "benchmarks.service",
    "warm_start_seconds": "benchmarks.service",
    "bootstrap_wall_vs_compute": "benchmarks.service",
    "identity_auc": "benchmarks.scorer",
    "view_accuracy": "benchmarks.scorer",
    "score_images_per_second": "benchmarks.scorer",
    "world_images_per_second": "benchmarks.world",
    "trigger_only_attributes": "benchmarks.method",
    "unseen_views_vs_four_crops": "benchmarks.method",
    "bootstrap_vs_upper_bound": "benchmarks.method",
}
WHOLE = {"benchmarks.method"}  # measures all its figures at once


def main(only: list[str]) -> None:
    unknown = set(only) - set(SOURCES)
    if unknown:
        sys.exit(f"there is no figure {', '.join(sorted(unknown))}; there are {', '.join(SOURCES)}")
    wanted = only or list(SOURCES)
    figures: dict[str, dict[str, Any]] = {}
    for module in dict.fromkeys(SOURCES[name] for name in wanted):
        mine = [name for name in wanted if SOURCES[name] == module]
        figures |= measure(module, mine)
    Console().print(table(list(figures.values())))


def measure(module: str, names: list[str]) -> dict[str, dict[str, Any]]:
    """Measure the figures of one module, and print each when it is known."""
    words = [] if module in WHOLE else names
    found = {}
    command = [sys.executable, "-m", module, *words]
    with tempfile.TemporaryFile("w+") as log:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process:
            assert process.stdout is not None
            for text in process.stdout:
                print(text, end="", flush=True)
                measured = json.loads(text)
                if "name" in measured:
                    found[measured["name"]] = measured
        log.seek(0)
        trouble = log.read().strip()
    missing = [name for name in names if name not in found]
    if missing:
        print(trouble, file=sys.stderr)  # all of it, because the last line may not be the reason
    last = trouble.splitlines()[-1] if trouble else "without a message"
    for name in missing:
        found[name] = figure(name, None, about=f"{module} ended with {process.returncode}: {last}")
        print(json.dumps(found[name]), flush=True)
    return found


def table(figures: list[dict[str, Any]]) -> Table:
    shown = Table("figure", "value", "goal", "runs", "spread", "about", box=None)
    for each in figures:
        goal = "" if each["goal"] is None else f"{'<=' if each['better'] == 'lower' else '>='} {each['goal']}"
        value = "-" if each["value"] is None else str(each["value"])
        spread = " - ".join(str(end) for end in each["spread"])
        shown.add_row(each["name"], value, goal, str(each["runs"]), spread, each["about"])
    return shown


if __name__ == "__main__":
    words = [word.removeprefix("ONLY=") for word in sys.argv[1:]]
    main([name for word in words for name in word.split(",") if name])
