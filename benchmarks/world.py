"""Benchmark of the renderer: how many pictures a core draws. Characters and shots are random, as for training."""

from __future__ import annotations

import json
import sys
import time

import numpy as np

from benchmarks.figure import figure
from chibi_lab.data import sample

SIZE = 128
PICTURES = 120
RUNS = 3


def rate(seed: int) -> float:
    """Pictures in a CPU second, including the choice of characters and shots."""
    rng = np.random.default_rng(seed)
    started = time.process_time()
    for _ in range(PICTURES):
        sample(rng, SIZE)
    return PICTURES / (time.process_time() - started)


def main(only: list[str]) -> None:
    sample(np.random.default_rng(0), SIZE)
    runs = [rate(seed) for seed in range(RUNS)]
    found = figure(
        "world_images_per_second",
        float(np.median(runs)),
        goal=30,
        better="higher",
        runs=runs,
        about="pictures of 128 pixels a CPU second, drawn by the world of the chibi base",
    )
    if not only or found["name"] in only:
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
