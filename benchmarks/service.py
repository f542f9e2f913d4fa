"""The overhead of the service: `python -m benchmarks.service [NAME...]` prints one JSON line for each figure.

The whole embedded stack runs: gunicorn, Celery, Valkey, SeaweedFS and SQLite. The measurements alternate with those of
the baseline, on the same machine and with the same number of threads.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import requests
import structlog
from PIL import Image
from redis import Redis
from sqlalchemy import select
from sqlalchemy.orm import Session

from benchmarks import bare
from benchmarks.figure import figure
from benchmarks.http import gunicorn
from bootlora import Bootlora
from bootlora.following import follow
from embedded.stack import ROOT, Stack
from shared.catalog import kinds
from shared.models import Job, Project
from shared.queue import jobs
from shared.runtime import Runtime
from shared.settings import Settings
from workers.diffusion import families
from workers.diffusion.dataset import Example
from workers.diffusion.generate import generate
from workers.diffusion.train import train_lora
from workers.handlers import train
from workers.pulse import Pulse
from workers.scratch import workspace
from workers.work import Work

STARTS = 25  # of each side
WARM_STARTS = 9
METHODS = 3  # runs of the whole method, each followed by the same work without a service
EXAMPLE = ROOT / "models/chibi/examples/eiei21girl.png"
FEATURES = ["fox ears", "fox tail", "blonde hair", "yellow eyes", "red kimono"]
TRAINING = {"train_steps": 60, "batch_size": 4, "rank": 8, "checkpoint_every_steps": 30}
DRAWING = {"inference_steps": 10, "batch_size": 8}
SMALL = {"train_steps": 2, "batch_size": 1, "rank": 2, "caption_variants": 1}
STYLE = {"kind": "style", "target": 12, "candidates_per_pick": 3, "max_generations": 1, "enough": 4}
SETTINGS = {
    "BOOTLORA_SUBMITS_PER_MINUTE": "100000",
    "BOOTLORA_REQUESTS_PER_MINUTE": "100000",
    "GOMP_SPINCOUNT": "10000",  # as in the worker
}


def plan(training: dict[str, Any]) -> dict[str, Any]:
    """One style round, and the character round."""
    return {"rounds": [{**each, "train": training, "generate": DRAWING} for each in (STYLE, {"kind": "character"})]}


class Bench:
    """A running service, its client, its database and its store."""

    def __init__(self, stack: Stack, folder: Path):
        self.stack = stack
        self.bootlora = Bootlora(stack.url, stack.api_key)
        os.environ.update(stack.environment, BOOTLORA_SCRATCH_DIR=str(folder / "bench"))
        self.runtime = Runtime.from_settings(Settings.from_env())
        self._http = requests.Session()

    # --- submit to start ----------------------------------------------------------------------------------------

    def submit_to_start_vs_celery(self) -> dict[str, Any]:
        """Time from the POST of a job to its claim by an idle worker / from the enqueue of a bare task to its start."""
        project_id = self.draft(plan(SMALL))
        with self.bare_worker() as redis, gunicorn("benchmarks.bare:door", dict(os.environ), "16") as port:
            door = f"http://127.0.0.1:{port}/notes/bare-started"
            acts = (lambda: self._submit(project_id), lambda: self._enqueue(redis), lambda: self._knock(redis, door))
            times = [[act() for act in acts] for _ in range(STARTS + 2)][2:]
        ours, theirs, doors = (statistics.median(each) for each in zip(*times, strict=True))
        ratios = [a / b for a, b, _ in times]
        about = f"medians of {STARTS}, in turn: {ours * 1000:.1f} ms and {theirs * 1000:.1f} ms"
        about += f" (and {doors * 1000:.1f} ms through a bare Flask route without a database); prefork, SQLite"
        return line("submit_to_start_vs_celery", ours / theirs, 2.0, ratios, about)

    def _submit(self, project_id: str) -> float:
        began = time.time()
        job = self.bootlora.projects.generate(
            project_id, [{"prompt": "1girl", "count": 1}], params={"inference_steps": 1}
        )
        ended = self.bootlora.jobs.wait(job["id"])
        return datetime.fromisoformat(str(ended["started_at"])).timestamp() - began

    def _enqueue(self, redis: Redis) -> float:
        began = time.time()
        bare.note.delay("bare-started")
        return self._noted(redis) - began

    def _knock(self, redis: Redis, door: str) -> float:
        """The same through a route that does nothing else. This is a lower bound for any service."""
        began = time.time()
        self._http.post(door, json={}).raise_for_status()
        return self._noted(redis) - began

    def _noted(self, redis: Redis) -> float:
        answer = redis.blpop(["bare-started"], timeout=60)
        return float(answer[1])  # type: ignore[index]

    @contextmanager
    def bare_worker(self) -> Iterator[Redis]:
        """A bare Celery worker on the same broker, ready."""
        broker = self.stack.environment["BOOTLORA_BROKER_URL"]
        bare.app.conf.broker_url = broker
        words = ["-A", "benchmarks.bare", "worker", "-Q", bare.QUEUE, "-c", "1", "--without-gossip", "--without-mingle"]
        command = [sys.executable, "-m", "celery", *words]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with Redis.from_url(broker) as redis, subprocess.Popen(command, cwd=ROOT, **quiet) as process:  # type: ignore[call-overload]
            try:
                self._enqueue(redis)
                yield redis
            finally:
                process.terminate()

    # --- warm start ---------------------------------------------------------------------------------------------

    def warm_start_seconds(self) -> dict[str, Any]:
        """Seconds from the claim of a training to the end of its first step, in a process that has trained before."""
        project_id = self.draft(plan(SMALL))
        self.bootstrap(project_id)
        with self.runtime.db.reading() as session:
            past = next(job for job in jobs_of(session, project_id) if job.kind == kinds.TRAIN.name)
        times = [self._start(past) for _ in range(WARM_STARTS + 1)][1:]
        about = "chibi, four pictures, batch 1; fetching, caching latents and one step included"
        return line("warm_start_seconds", statistics.median(times), 0.3, times, about)

    def _start(self, past: Job) -> float:
        began = time.perf_counter()
        with self.runtime.db.transaction() as session:
            project = session.get_one(Project, past.project_id)
            params, inputs = kinds.TRAIN.params_of(past), kinds.TRAIN.inputs_of(past)
            job = jobs.enqueue(session, project, kinds.TRAIN, params=params, inputs=inputs)
            held = jobs.claim(session, job.id, 1, "gpu@bench", 90)
        assert held is not None
        with workspace(self.runtime.settings.scratch_dir) as folder, Pulse(self.runtime, held, lambda: False) as pulse:
            try:
                train.run(FirstStep(held, params, inputs, folder=folder, runtime=self.runtime, pulse=pulse))
            except Reached:
                seconds = time.perf_counter() - began
        with self.runtime.db.transaction() as session:
            jobs.stop(session, held)
        return seconds

    # --- the whole method ---------------------------------------------------------------------------------------

    def bootstrap_wall_vs_compute(self) -> dict[str, Any]:
        """Time from start to completion through API, queue and store / the same work called directly."""
        self.bootstrap(self.draft(plan(SMALL)))  # warms up
        ratios, walls = [], []
        for _ in range(METHODS):
            project_id = self.draft(plan(TRAINING))
            began = time.perf_counter()
            self.bootstrap(project_id)
            walls.append(time.perf_counter() - began)
            ratios.append(walls[-1] / self._compute(project_id))
        about = f"{METHODS} runs of {statistics.median(walls):.0f} s: one style round, then the character round; chibi"
        return line("bootstrap_wall_vs_compute", statistics.median(ratios), 1.15, ratios, about)

    def _compute(self, project_id: str) -> float:
        """Seconds of the same work without a service. Its inputs are fetched before."""
        with tempfile.TemporaryDirectory() as folder:
            with self.runtime.db.reading() as session:
                done = [
                    job for job in jobs_of(session, project_id) if job.kind in (kinds.TRAIN.name, kinds.GENERATE.name)
                ]
            acts = [self._act(job, Path(folder)) for job in done]
            began = time.perf_counter()
            for act in acts:
                act()
            return time.perf_counter() - began

    def _act(self, job: Job, folder: Path) -> Callable[[], object]:
        """A job as a direct call."""
        family = families.load(self.runtime.base_models["chibi"])
        if job.kind == kinds.TRAIN.name:
            params, inputs = kinds.TRAIN.params_of(job), kinds.TRAIN.inputs_of(job)
            examples = [Example(self._image(each.key, folder), each.captions) for each in inputs.dataset]
            return lambda: train_lora(family, examples, params, prior=train.prior_examples(family, inputs, params))
        drawing, wanted = kinds.GENERATE.params_of(job), kinds.GENERATE.inputs_of(job)
        loras = [(self._file(each.key, folder), each.weight) for each in wanted.loras]
        return lambda: list(generate(family, wanted.pictures, drawing, loras=loras))

    def _image(self, key: str, folder: Path) -> Image.Image:
        with Image.open(self._file(key, folder)) as image:
            image.load()
            return image

    def _file(self, key: str, folder: Path) -> Path:
        path = folder / key.replace("/", "_")
        self.runtime.storage.get_to_file(key, path)
        return path

    # --- projects -----------------------------------------------------------------------------------------------

    def draft(self, plan: dict[str, Any]) -> str:
        """A project with four references, ready to start."""
        made = self.bootlora.projects.create(
            name="bench",
            trigger_word="eiei21girl",
            feature_tags=FEATURES,
            base_model="chibi",
            curation="auto",
            plan=plan,
        )
        image = self.bootlora.images.upload(made["id"], EXAMPLE, view="front", framing="full_body")
        self.bootlora.jobs.wait(self.bootlora.images.crop(image["id"], "auto")["id"])
        return str(made["id"])

    def bootstrap(self, project_id: str) -> None:
        """Run all rounds until the project is completed."""
        self.bootlora.projects.start(project_id)
        for moment in follow(self.bootlora, project_id):
            state = moment.project["state"]
        if state != "completed":
            raise RuntimeError(f"the project is {state}")


class Reached(Exception):
    """The training has done its first step."""


class FirstStep(Work):
    """Work that stops after the first step."""

    def step(self, stage: str, done: int, total: int, **more: Any) -> None:
        super().step(stage, done, total, **more)
        if stage == "training":
            raise Reached


def jobs_of(session: Session, project_id: str) -> list[Job]:
    return list(session.scalars(select(Job).where(Job.project_id == project_id).order_by(Job.id)))


def line(name: str, value: float, goal: float, runs: list[float], about: str) -> dict[str, Any]:
    return figure(name, value, goal=goal, better="lower", runs=runs, about=about)


FIGURES: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "submit_to_start_vs_celery": Bench.submit_to_start_vs_celery,
    "warm_start_seconds": Bench.warm_start_seconds,
    "bootstrap_wall_vs_compute": Bench.bootstrap_wall_vs_compute,
}


def main(names: list[str]) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder) / "data", settings=SETTINGS) as stack:
        bench = Bench(stack, Path(folder))
        for name in names or list(FIGURES):
            print(json.dumps(FIGURES[name](bench)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
