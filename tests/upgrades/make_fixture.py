"""Makes the files `7a09abe*` beside it: an installation at commit 7a09abe, stopped in the middle of everything.

Run at 7a09abe; kept to show how the files were made. It does not run on later code, and need not:

    OMP_NUM_THREADS=1 .venv/bin/python -m tests.upgrades.make_fixture

Every row is written by the code of that commit: by its API, its worker runner and its real handlers on Chibi. Where a
worker had to die, it dies in the middle of the real handler. The few plain updates of tables are marked as such.
Pictures, seeds and the order of everything are fixed; ids and times are those of the day.
"""

from __future__ import annotations

import errno
import io
import json
import lzma
import sqlite3
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import redis
from PIL import Image as Pixels
from PIL import ImageDraw
from sqlalchemy import delete, select, text, update

from api.app import create_app
from embedded.supervisor import Supervisor
from shared import catalog, jobs, plans, reconcile, users, webhooks
from shared.admin import upgrade
from shared.db import clock, utcnow
from shared.models import AuditEntry, Image, Job, Webhook
from shared.params import GenerateParams, ScoreParams, TrainParams
from shared.runtime import Runtime
from shared.settings import Settings
from shared.storage import FolderStorage, PresignedPost
from shared.webhooks import Answer
from tests import servers
from workers import runner
from workers.runner import run_job
from workers.work import Work

COMMIT = "7a09abe"
HERE = Path(__file__).parent
SECRET_KEY = "the key of the fixture, which is no secret"
NOWHERE = "http://127.0.0.1:1024/hook"  # where nothing listens
HEARTBEAT_SECONDS = 0.05
MOST_AUDITED = 8
FEATURES = ["fox ears", "red kimono"]
COLORS = ["orange", "gold", "crimson", "teal"]
VIEWS = ["front", "side", "behind", "three-quarter"]
CAPTIONS = [f"eiei21girl, 1girl, {', '.join(FEATURES)}, {catalog.VIEWS[view]}, full body" for view in VIEWS]

TRAINING = {
    "train_steps": 3,
    "batch_size": 1,
    "rank": 1,
    "alpha": 1.0,
    "resolution": 32,
    "caption_variants": 1,
    "checkpoint_every_steps": 1,
    "prior_images": 0,
    "lora_modules": "attention",
}
DRAWING = {"inference_steps": 2, "width": 32, "height": 32, "batch_size": 1}
FEW = {"views": ["front", "side", "behind"], "prompt_tags": [], "train": TRAINING, "generate": DRAWING}
STYLE = {
    **FEW,
    "kind": "style",
    "target": 5,
    "candidates_per_pick": 2,
    "max_generations": 1,
    "enough": 4,
}
CHARACTER = {**FEW, "kind": "character"}
TWO_ROUNDS = {"rounds": [STYLE, CHARACTER]}
ONE_ROUND = {"rounds": [CHARACTER]}

# Each parameter otherwise than Chibi has it; `check_that_all_differ` sees to that.
EVERY_TRAINING: dict[str, Any] = {
    "rank": 3,
    "alpha": 2.5,
    "lora_modules": "attention_ff",
    "learning_rate": 0.001,
    "text_encoder_learning_rate": 0.0001,
    "lr_scheduler": "linear",
    "warmup_steps": 1,
    "weight_decay": 0.02,
    "max_grad_norm": 0.5,
    "train_steps": 2,
    "batch_size": 2,
    "gradient_accumulation": 2,
    "resolution": 64,
    "caption_variants": 2,
    "caption_dropout": 0.1,
    "prior_images": 2,
    "prior_weight": 0.5,
    "min_snr_gamma": 4.0,
    "noise_offset": 0.05,
    "precision": "fp32",
    "gradient_checkpointing": True,
    "checkpoint_every_steps": 2,
    "seed": 7,
}
EVERY_DRAWING: dict[str, Any] = {
    "width": 32,
    "height": 64,
    "inference_steps": 3,
    "guidance_scale": 2.5,
    "sampler": "euler_a",
    "negative_prompt": "lowres, blurry",
    "clip_skip": 1,
    "batch_size": 3,
    "precision": "fp32",
}
EVERY_SCORING: dict[str, Any] = {
    "scorer": "plain",
    "min_score": -0.5,
    "min_view_score": -0.25,
    "near_duplicate_bits": 2,
}
EVERY_PARAMETER: dict[str, Any] = {
    "caption_policy": "mixed",
    "views": ["front", "behind", "side"],
    "framings": {"full_body": 2, "portrait": 1},
    "prompt_tags": ["sketch", "grey background"],
    "candidates_per_pick": 2.5,
    "max_generations": 2,
    "lora_weight": 0.8,
    "enough": 4,
    "train": EVERY_TRAINING,
    "generate": EVERY_DRAWING,
    "score": EVERY_SCORING,
}


def check_that_all_differ() -> None:
    default = plans.resolve(None, catalog.BASE_MODELS["chibi"])["rounds"][0]
    assert set(EVERY_PARAMETER) == set(default) - {"kind", "target"}
    for params, said in ((TrainParams, "train"), (GenerateParams, "generate"), (ScoreParams, "score")):
        assert set(EVERY_PARAMETER[said]) == {field.name for field in fields(params)}
    for name, value in EVERY_PARAMETER.items():
        usual = default[name]
        alike = [key for key in value if value[key] == usual[key]] if name in plans.PARAMS else value == usual
        assert not alike, (name, alike)


class Killed(BaseException):
    """The worker's process ends here, as by `kill -9`: nothing catches it, and nothing is written after it."""


class OpenFolder(FolderStorage):
    """A folder as store that signs forms, so that clients can post files to it."""

    def presigned_post(self, key: str, content_type: str, max_bytes: int, expires: timedelta) -> PresignedPost:
        return PresignedPost(url="http://store", fields={"key": key})


class Installation:
    """The service at 7a09abe in one process: an API, a store, a broker, and workers that do what they are told."""

    def __init__(self, folder: Path, broker_url: str):
        self.settings = Settings(
            database_url=f"sqlite:///{folder}/bootlora.db",
            broker_url=broker_url,
            storage_url=f"file://{folder}/objects",
            secret_key=SECRET_KEY,
            scratch_dir=folder / "scratch",
            heartbeat_seconds=HEARTBEAT_SECONDS,
            lease_seconds=3600,
            max_running_jobs=1000,
            max_queued_jobs=1000,
            requests_per_minute=1_000_000,
            submits_per_minute=1_000_000,
            webhook_allow_http=True,
            webhook_allow_networks=("127.0.0.1/32",),
        )
        upgrade(self.settings.database_url)
        self.runtime = Runtime.from_settings(self.settings)
        self.runtime.storage = OpenFolder(folder / "objects")
        self.runtime.storage.prepare()
        self.client = create_app(self.runtime).test_client()
        self.keys: dict[str, str] = {}
        self.webhook_secrets: dict[str, str] = {}
        self.caller = "ada"

    # --- over HTTP

    def ask(self, method: str, path: str, json: Any = None, **given: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.keys[self.caller]}", "If-Match": "*", **given.pop("headers", {})}
        if json is not None:
            given["json"] = json
        answer = self.client.open(f"/v1{path}", method=method, headers=headers, **given)
        assert answer.status_code < 300, (method, path, answer.json)
        return answer.json if answer.data else None

    def get(self, path: str) -> Any:
        return self.ask("GET", path)

    def post(self, path: str, json: Any = None, **given: Any) -> Any:
        return self.ask("POST", path, json, **given)

    def user(self, name: str, role: str = "member", **limits: int) -> None:
        with self.runtime.db.transaction() as session:
            user = users.create(session, name, role)
            users.change(session, user, limits)
            _, self.keys[name] = users.create_key(session, user, SECRET_KEY, name="first key")

    def project(self, name: str, plan: Any = None, references: int = 4, **more: Any) -> str:
        """A draft with references, which come in a zip."""
        given = {
            "name": name,
            "trigger_word": "eiei21girl",
            "subject_tags": ["1girl"],
            "feature_tags": FEATURES,
            "curation": "manual",
            **({"plan": plan} if plan else {}),
            **more,
        }
        project = self.post("/projects", given)["id"]
        if references:
            form = {"file": (io.BytesIO(zipped(references)), "references.zip")}
            self.post(f"/projects/{project}/imports", data=form)
        return project

    def started(self, name: str, plan: Any, **more: Any) -> str:
        project = self.project(name, plan, **more)
        self.post(f"/projects/{project}/start")
        return project

    def upload(self, project: str, number: int) -> str:
        form = {"file": (io.BytesIO(picture(number)), "a.png"), "view": VIEWS[number % 4], "framing": "full_body"}
        return self.post(f"/projects/{project}/images", data=form)["id"]

    def posted(self, project: str, content: bytes) -> str:
        """An upload job: for a file that has been posted to the store."""
        wanted = {"content_type": "image/png", "view": "side", "framing": "portrait", "tags": ["smile"]}
        offer = self.post(f"/projects/{project}/uploads", wanted)
        self.runtime.storage.put_bytes(offer["fields"]["key"], content)
        return self.post(f"/projects/{project}/uploads/complete", {"slip": offer["slip"]})["id"]

    def crop(self, image: str, mode: str = "quadrants", **given: Any) -> str:
        return self.post(f"/images/{image}/crops", {"mode": mode, "keep_source": True, **given})["id"]

    def draw(self, project: str, loras: list[dict[str, Any]], **given: Any) -> str:
        pictures = [{"prompt": "eiei21girl, 1girl, from side", "seed": 7, "count": 2, "view": "side"}]
        body = {"pictures": pictures, "loras": loras, "params": DRAWING, **given}
        return self.post(f"/projects/{project}/generations", body)["id"]

    def waiting(self, project: str) -> str:
        """The project's only job that waits."""
        (job,) = self.get(f"/jobs?project_id={project}&state=queued")["items"]
        return job["id"]

    def curate(self, project: str, number: int = 1) -> None:
        """Accept one candidate, reject the others, and end the curation."""
        accepted, *rejected = self.candidates(project, number)
        body = {"accepted": [accepted], "rejected": rejected}
        self.ask("PUT", f"/projects/{project}/rounds/{number}/decisions", body)
        self.post(f"/projects/{project}/rounds/{number}/finish")

    def candidates(self, project: str, number: int = 1) -> list[str]:
        return [each["id"] for each in self.get(f"/projects/{project}/rounds/{number}/candidates")["items"]]

    # --- in a worker

    def work(self, job: str, state: str = "succeeded") -> dict[str, Any]:
        """Run a job to its end, with its real handler."""
        shown = self.get(f"/jobs/{job}")
        worker = f"{catalog.JOB_KINDS[shown['kind']].queue}@old"
        run_job(self.runtime, job, shown["attempt"], worker, lambda: False)
        ended = self.get(f"/jobs/{job}")
        assert ended["state"] == state, ended
        return ended

    def work_next(self, project: str, state: str = "succeeded") -> dict[str, Any]:
        return self.work(self.waiting(project), state)

    def leave_running(self, job: str, stage: str, when: Callable[[dict[str, Any]], bool] = lambda seen: True) -> None:
        """Begin a job, and kill its worker at a step of a stage."""
        with at_step(stage, when, die):
            try:
                self.work(job)
            except Killed:
                assert self.get(f"/jobs/{job}")["state"] == "running"
                return
        raise AssertionError(f"job {job} came to its end")

    def leave_next_running(self, project: str, stage: str, when: Any = lambda seen: True) -> str:
        job = self.waiting(project)
        self.leave_running(job, stage, when)
        return job

    def lose(self, job: str) -> None:
        """The lease of a running job ends (a plain update), and the clock notices."""
        with self.runtime.db.transaction() as session:
            session.execute(update(Job).where(Job.id == job).values(lease_until=clock(-1)))
        assert self.runtime.reap() == 1

    def lose_for_good(self, job: str, *stages: str) -> None:
        """Its worker is killed in each of the three attempts."""
        for stage in stages:
            self.leave_running(job, stage)
            self.lose(job)
        assert self.get(f"/jobs/{job}")["error"]["code"] == "worker_lost"

    def hand_out(self) -> None:
        """Send the messages of all jobs that wait. Nobody takes them out of the broker."""
        with self.runtime.db.transaction() as session:
            self.check_in(session)
        assert self.runtime.dispatch() > 0
        with self.runtime.db.transaction() as session:
            for name in ("gpu@old", "io@old"):
                jobs.check_out(session, name)

    def check_in(self, session: Any) -> None:
        jobs.check_in(session, "gpu@old", "gpu", 500)
        jobs.check_in(session, "io@old", "io", 500)


def die(work: Work) -> None:
    raise Killed


@contextmanager
def at_step(stage: str, when: Callable[[dict[str, Any]], bool], act: Callable[[Work], None]) -> Iterator[None]:
    """Do something once at a step of a running handler, when its progress has been written."""
    original = Work.step

    def step(work: Work, now: str, done: int, total: int, **more: Any) -> None:
        original(work, now, done, total, **more)
        if now == stage and when({"step": done, **more}):
            time.sleep(10 * HEARTBEAT_SECONDS)
            act(work)
            time.sleep(10 * HEARTBEAT_SECONDS)
            work.pulse.check()

    with mock.patch.object(Work, "step", step):
        yield


def zipped(count: int) -> bytes:
    """Pictures with their captions, as a client imports them."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for number in range(count):
            archive.writestr(f"{number}.png", picture(number))
            archive.writestr(f"{number}.txt", CAPTIONS[number])
    return target.getvalue()


def raises(error: Exception) -> Callable[[Work], None]:
    def act(work: Work) -> None:
        raise error

    return act


def picture(number: int) -> bytes:
    """A figure, as small as can be: a head and a body in the colours of its number."""
    pixels = Pixels.new("RGB", (48, 48), "white")
    pen = ImageDraw.Draw(pixels)
    pen.ellipse((16, 4, 31, 19), fill=COLORS[number % 4])
    pen.rectangle((14 + number % 3, 20, 33, 43), fill=COLORS[(number + 1) % 4])
    target = io.BytesIO()
    pixels.save(target, "PNG")
    return target.getvalue()


# --- the scenes


def make_users(it: Installation) -> None:
    it.user("root", "admin")
    it.user("ada")
    it.user("bob", max_running_jobs=3, max_queued_jobs=30)
    made = it.post("/keys", {"name": "viewer", "scopes": ["projects:read"]})
    it.keys["ada, viewer"] = made["key"]
    revoked = it.post("/keys", {"name": "old laptop"})
    it.ask("DELETE", f"/keys/{revoked['id']}")


def make_webhooks(it: Installation) -> None:
    """One endpoint that hears of ends, with a new secret and an old one; one that fails; one that will be disabled."""
    ends = ["project.completed", "project.failed", "project.cancelled"]
    first = listen(it, "ends", ends)
    listen(it, "fails", ["round.completed"])
    listen(it, "disabled", ["project.cancelled"])
    it.webhook_secrets[first] = it.post(f"/webhooks/{first}/rotate-secret", {})["secret"]


def listen(it: Installation, description: str, event_types: list[str], **given: Any) -> str:
    body = {"url": NOWHERE, "description": description, "event_types": event_types, **given}
    made = it.post("/webhooks", body)
    it.webhook_secrets[made["id"]] = made["secret"]
    return made["id"]


def tell_webhooks(it: Installation) -> None:
    """Of what waits, a little is told: well by the first endpoint, badly by the second; the third is switched off."""
    found = {each["description"]: each["id"] for each in it.get("/webhooks")["items"]}
    heard = Answer(at=utcnow(), seconds=0.1, status=200, text="ok")
    refused = Answer(at=utcnow(), seconds=0.2, status=503, text="not now")
    with it.runtime.db.transaction() as session:
        telling = webhooks.take(session, found["ends"], "a token", it.settings)
        assert telling
        webhooks.delivered(session, telling, heard)
        webhooks.release(session, found["ends"], "a token")
        telling = webhooks.take(session, found["fails"], "a token", it.settings)
        assert telling
        webhooks.failed_try(session, telling, refused, it.settings)
        webhooks.release(session, found["fails"], "a token")
    it.ask("PATCH", f"/webhooks/{found['disabled']}", {"enabled": False})
    with it.runtime.db.reading() as session:
        assert {each.failures for each in session.scalars(select(Webhook))} == {0, 1}


def make_drafts(it: Installation) -> None:
    """Every kind of job that a draft has, in every state but those that wait for their message."""
    it.project("nothing yet", ONE_ROUND, references=0, subject_tags=["1boy", "chibi"], feature_tags=[], curation="auto")
    draft = it.project("draft", references=1, curation="auto")
    second = it.upload(draft, 1)
    first, _ = (each["id"] for each in it.get(f"/projects/{draft}/images")["items"])
    form = {"file": (io.BytesIO(picture(5)), "edited.png")}
    it.post(f"/images/{second}/versions", data=form)

    it.work(it.posted(draft, picture(6)))
    it.work(it.posted(draft, b"no picture"), "failed")
    it.post(f"/jobs/{it.posted(draft, picture(7))}/cancel")
    boxes = [{"box": [8, 0, 40, 24], "view": "front", "framing": "portrait", "tags": ["smile"]}]
    it.work(it.crop(first, "boxes", boxes=boxes))
    with at_step("cropping", lambda seen: True, raises(OSError(errno.ENOSPC, "No space left on device"))):
        it.work(it.crop(first), "failed")
    it.post(f"/jobs/{it.crop(first)}/cancel")

    it.leave_running(it.crop(first), "cropping")
    job = it.posted(draft, picture(8))
    with mock.patch.object(runner, "finish"):  # killed when all was stored and nothing published
        run_job(it.runtime, job, 1, "io@old", lambda: False)
    assert it.get(f"/jobs/{job}")["state"] == "running"


def make_unfinished(it: Installation) -> None:
    """A project in each stage whose worker has died in the middle."""
    project = it.started("trains", TWO_ROUNDS)
    it.leave_next_running(project, "training")

    project = it.started("trains, again", TWO_ROUNDS)
    job = it.leave_next_running(project, "training")
    it.lose(job)

    project = it.started("draws", TWO_ROUNDS)
    it.work_next(project)
    it.leave_next_running(project, "generating", lambda seen: seen.get("images_done") == 1)

    project = it.started("scores", with_scores(TWO_ROUNDS, scorer="plain"), curation="auto")
    it.work_next(project)
    it.work_next(project)
    it.leave_next_running(project, "scoring")

    project = it.started("trains a character", ONE_ROUND)
    it.leave_next_running(project, "training")

    project = it.started("evaluates", ONE_ROUND)
    it.work_next(project)
    it.leave_next_running(project, "generating", lambda seen: seen.get("images_done") == 2)

    project = it.started("cancelled while it trains", TWO_ROUNDS)
    it.leave_next_running(project, "training")
    it.post(f"/projects/{project}/cancel")


def make_curating(it: Installation) -> None:
    """Rounds that wait for a person."""
    project = it.started("curates", TWO_ROUNDS)
    it.work_next(project)
    it.work_next(project)
    job = it.post(f"/projects/{project}/rounds/1/candidates", {"count": 2, "views": ["behind", "above"]})["id"]
    it.work(job)
    accepted, rejected, replaced, *_ = it.candidates(project)
    body = {"accepted": [accepted], "rejected": [rejected]}
    it.ask("PUT", f"/projects/{project}/rounds/1/decisions", body)
    form = {"file": (io.BytesIO(picture(9)), "edited.png")}
    edited = it.post(f"/images/{replaced}/versions", data=form)["id"]
    it.ask("PATCH", f"/images/{edited}", {"decision": "pending", "tags": ["fox ears", "smile", "from behind"]})
    with it.runtime.db.reading() as session:
        it.runtime.storage.delete(session.get_one(Image, rejected).key)
    assert reconcile.repair(it.runtime, reconcile.compare(it.runtime, grace_seconds=1e6)) == 1

    picky = {"rounds": [{**STYLE, "enough": 5, "score": {"min_score": 1}}, CHARACTER]}
    project = it.started("needs a person", picky, curation="auto")
    for _ in range(3):
        it.work_next(project)
    assert it.get(f"/projects/{project}/rounds/1")["needs_attention"]


def make_failed(it: Installation) -> None:
    """A failure in each stage, each of another kind."""
    project = it.started("failed in training", TWO_ROUNDS)
    it.lose_for_good(it.waiting(project), "training", "loading the base model", "loading the base model")

    project = it.started("failed in generating", TWO_ROUNDS)
    it.work_next(project)
    job = it.waiting(project)
    with at_step("generating", lambda seen: seen.get("images_done") == 1, lambda work: it.post(f"/jobs/{job}/cancel")):
        it.work(job, "cancelled")

    project = it.started("failed in curating", with_scores(TWO_ROUNDS, scorer="plain"), curation="auto")
    it.work_next(project)
    it.work_next(project)
    it.lose_for_good(it.waiting(project), "scoring", "scoring", "scoring")

    project = it.started("failed in evaluating", ONE_ROUND)
    it.work_next(project)
    with at_step("generating", lambda seen: seen.get("images_done") == 3, raises(MemoryError())):
        it.work_next(project, "failed")
    with it.runtime.db.reading() as session:
        states = list(session.scalars(text("SELECT failed_in FROM rounds WHERE state = 'failed' ORDER BY id")))
    assert states == ["training", "generating", "curating", "evaluating"]


def make_ended(it: Installation) -> None:
    """Projects that are completed or cancelled, and jobs that draw with what they have learned."""
    draft = it.project("cancelled draft", ONE_ROUND, references=0)
    it.post(f"/projects/{draft}/cancel")
    project = it.started("cancelled before it trains", None, metadata={"asset": "npc-0042", "studio": "north"})
    it.post(f"/projects/{project}/cancel")

    project = it.project("completed", TWO_ROUNDS)
    listen(it, "of one project", [], project_id=project)
    it.post(f"/projects/{project}/start")
    it.work_next(project)
    it.work_next(project)
    it.curate(project)
    it.work_next(project)
    it.work_next(project)
    assert it.get(f"/projects/{project}")["state"] == "completed"
    found = [each["id"] for each in it.get(f"/projects/{project}/loras")["items"]]
    both = [{"lora_id": found[0], "weight": 0.4}, {"lora_id": found[1], "weight": 0.8}]
    it.work(it.draw(project, both, metadata={"asset": "with both"}))
    with at_step("generating", lambda seen: True, raises(MemoryError())):
        it.work(it.draw(project, both[1:]), "failed")
    it.post(f"/jobs/{it.draw(project, [])}/cancel")
    it.leave_running(it.draw(project, both[:1]), "generating", lambda seen: seen.get("images_done") == 1)


def make_sent(it: Installation) -> dict[str, Any]:
    """A job of each kind that waits, and whose message lies in the broker. Returns a request that can be repeated."""
    project = it.project("message to crop and upload", ONE_ROUND, references=1)
    (image,) = (each["id"] for each in it.get(f"/projects/{project}/images")["items"])
    it.crop(image, "auto")
    it.posted(project, picture(10))

    project = it.started("message to score", TWO_ROUNDS, curation="auto")
    it.work_next(project)
    it.work_next(project)
    assert it.waiting(project)

    project = it.started("message to draw", TWO_ROUNDS)
    it.work_next(project)

    styles = [{"kind": "style", "target": target, **EVERY_PARAMETER} for target in (5, 6)]
    it.started("message to train with every parameter", {"rounds": [*styles, {"kind": "character", **EVERY_PARAMETER}]})
    request = draw_with_lora(it, "message")
    it.hand_out()
    return request


def make_waiting(it: Installation) -> None:
    """Jobs for which no message has been sent."""
    project = it.project("waits to crop and upload", ONE_ROUND, references=1)
    (image,) = (each["id"] for each in it.get(f"/projects/{project}/images")["items"])
    it.crop(image, "auto")
    it.posted(project, picture(11))

    it.started("waits to train a character", ONE_ROUND)
    draw_with_lora(it, "no message")


def draw_with_lora(it: Installation, asset: str) -> dict[str, Any]:
    """Pictures for a pipeline, from the project that is completed. Returns the request and its answer."""
    (project,) = (each["id"] for each in it.get("/projects?state=completed")["items"])
    found = [each["id"] for each in it.get(f"/projects/{project}/loras")["items"]]
    body = {
        "pictures": [{"prompt": "eiei21girl, 1girl, from side", "seed": 7, "count": 2, "view": "side"}],
        "loras": [{"lora_id": found[1]}],
        "params": DRAWING,
        "priority": 5,
        "metadata": {"asset": asset},
    }
    key = f"draw-{asset}".replace(" ", "-")
    answer = it.post(f"/projects/{project}/generations", body, headers={"Idempotency-Key": key})
    return {"path": f"/projects/{project}/generations", "json": body, "key": key, "answer": answer}


def with_scores(plan: dict[str, Any], **score: Any) -> dict[str, Any]:
    return {"rounds": [each | {"score": score} if each["kind"] == "style" else each for each in plan["rounds"]]}


def make_stale_message(it: Installation) -> None:
    """A message for a job that has been done: of two that were sent, the other was read first."""
    it.caller = "bob"
    project = it.project("of bob", ONE_ROUND, references=1)
    (image,) = (each["id"] for each in it.get(f"/projects/{project}/images")["items"])
    job = it.crop(image)
    it.hand_out()
    it.work(job)
    it.caller = "ada"


# --- the files


def write_files(it: Installation, about: dict[str, Any]) -> None:
    database = it.settings.database_url.removeprefix("sqlite:///")
    with it.runtime.db.transaction() as session:
        it.check_in(session)
        # The last sign of life of all workers is now, not an hour from now (a plain update).
        session.execute(update(Job).where(Job.state == "running").values(lease_until=clock()))
        # What would be too much of the same in the file (a plain delete).
        kept = select(AuditEntry.id).order_by(AuditEntry.id.desc()).limit(MOST_AUDITED)
        session.execute(delete(AuditEntry).where(AuditEntry.id.not_in(kept)))
    # A day later the collector has taken away what nobody needs: old checkpoints and archives.
    reconcile.collect(it.runtime, grace_seconds=0)
    it.runtime.close()
    with closing(sqlite3.connect(database)) as connection:
        (HERE / f"{COMMIT}.sql").write_text("".join(f"{line}\n" for line in connection.iterdump()))
    write_objects(it, HERE / f"{COMMIT}-objects.tar.xz")
    with redis.Redis.from_url(it.settings.broker_url) as client:
        lists = {queue: [json.loads(each) for each in client.lrange(queue, 0, -1)] for queue in catalog.QUEUES}
    (HERE / f"{COMMIT}-messages.json").write_text(json.dumps(lists, indent=1) + "\n")
    (HERE / f"{COMMIT}.json").write_text(json.dumps(about, indent=2) + "\n")
    for file in sorted(HERE.glob(f"{COMMIT}*")):
        print(f"{file.stat().st_size:9,} {file.name}")


def write_objects(it: Installation, target: Path) -> None:
    """All objects by their keys. Many are alike, which xz sees across files."""
    with lzma.open(target, "wb", preset=9) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        for prefix in reconcile.PREFIXES:
            for each in sorted(it.runtime.storage.list(prefix), key=lambda found: found.key):
                content = it.runtime.storage.get_bytes(each.key)
                entry = tarfile.TarInfo(each.key)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))


def main() -> None:
    check_that_all_differ()
    with tempfile.TemporaryDirectory() as folder, Supervisor(Path(folder) / "servers") as supervisor:
        it = Installation(Path(folder), servers.start_valkey(supervisor))
        make_users(it)
        make_webhooks(it)
        make_drafts(it)
        make_unfinished(it)
        make_curating(it)
        make_failed(it)
        make_ended(it)
        make_stale_message(it)
        request = make_sent(it)
        make_waiting(it)
        tell_webhooks(it)
        about = {
            "commit": COMMIT,
            "secret_key": SECRET_KEY,
            "api_keys": it.keys,
            "webhook_secrets": it.webhook_secrets,
            "request": request,
        }
        write_files(it, about)


if __name__ == "__main__":
    sys.exit(main())
