"""The memory of the largest drawings that the service accepts: `python -m benchmarks.drawing` prints one JSON line.

Each is drawn by a process of its own, as a worker does it: the base model is loaded, and one batch is drawn with
classifier-free guidance. One step is enough, since memory does not grow with steps.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from benchmarks.figure import figure
from benchmarks.memory import peak_bytes
from shared import catalog, plans
from shared.catalog.params import MAX_SIDE, WantedPicture

GOAL = 2e9  # bytes
BASE = "chibi"


def largest_sizes() -> list[tuple[int, int]]:
    """The base model's own size, the largest square, and the longest strip: all may be drawn in the largest batch."""
    base = catalog.BASE_MODELS[BASE]
    family = catalog.FAMILIES[base.family]
    area = family.max_squares * base.resolution**2
    side = int(area**0.5)
    return [(base.resolution, base.resolution), (side, side), (MAX_SIDE, area // MAX_SIDE)]


def draw(width: int, height: int) -> dict[str, Any]:
    """Draw one batch of the largest number. Its peak memory includes torch and the base model."""
    from workers.diffusion import families, generate

    base = catalog.BASE_MODELS[BASE]
    most = plans.largest_batch(plans.generate_params(base, {"width": width, "height": height}), base)
    given = {"width": width, "height": height, "batch_size": most, "inference_steps": 1}
    params = plans.generate_params(base, given)
    wanted = [WantedPicture(prompt="1girl, solo, full body", seed=seed) for seed in range(most)]
    family = families.load(base, "cpu")
    loaded = peak_bytes()
    drawn = list(generate.generate(family, wanted, params))
    return {"size": f"{width}x{height}", "batch": len(drawn), "bytes": peak_bytes(), "loaded": loaded}


def largest_drawing_bytes() -> dict[str, Any]:
    peaks = []
    for width, height in largest_sizes():
        command = [sys.executable, "-m", "benchmarks.drawing", str(width), str(height)]
        peaks.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        print(peaks[-1], file=sys.stderr, flush=True)
    worst = max(peaks, key=lambda each: each["bytes"])
    about = f"peak memory of a process that draws {worst['batch']} pictures of {worst['size']} with {BASE} at once"
    runs = [float(each["bytes"]) for each in peaks]
    return figure("largest_drawing_bytes", max(runs), goal=GOAL, better="lower", runs=runs, about=about)


if __name__ == "__main__":
    sizes = [int(word) for word in sys.argv[1:] if word.isdigit()]
    print(json.dumps(draw(*sizes) if sizes else largest_drawing_bytes()), flush=True)
