"""A small setting for tests of the domain: a user, a project with references, and a scripted worker."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared import catalog, images, projects, records, users
from shared.admin import upgrade
from shared.catalog.kinds import KINDS, DrawnImage, GenerateResult, ScoreResult, StoredFile, TrainMetrics, TrainResult
from shared.models import Job, Project, User
from shared.outside.db import Database
from shared.outside.secrets import Vault
from shared.outside.storage import storage_from_url
from shared.queue import jobs
from shared.runtime import Runtime
from shared.settings import Settings
from tests.factories import job_inputs

NOTHING = GenerateResult(images=[])  # drawn
FILE: dict[str, Any] = {"key": "k", "sha256": "0" * 64, "size_bytes": 1}


class RecordingBroker:
    """Stands where Redis would: keeps what was sent, or is down."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, int]] = []
        self.down = False

    def send(self, queue: str, job_id: str, attempt: int) -> None:
        from shared.errors import Unavailable

        if self.down:
            raise Unavailable("down", code="broker_unavailable")
        self.sent.append((queue, job_id, attempt))

    def ping(self) -> None:
        pass


def make_runtime(folder: Path, database_url: str | None = None, **settings: Any) -> Runtime:
    """A runtime on a fresh database, a folder as store, and a broker that remembers.

    Without a `database_url` the database is a copy of one file, so that all of them have the same installation id.
    """
    values = Settings(
        database_url=database_url or f"sqlite:///{folder}/bootlora.db",
        broker_url="memory://",
        storage_url=f"file://{folder}/objects",
        secret_key="a test's own secret, long enough",
        scratch_dir=folder / "scratch",
        **settings,
    )
    if database_url is None:
        (folder / "bootlora.db").write_bytes(_migrated())
    else:
        upgrade(database_url)
    storage = storage_from_url(values.storage_url)
    storage.prepare()
    return Runtime(
        settings=values,
        db=Database(values.database_url),
        storage=storage,
        broker=RecordingBroker(),
        vault=Vault(values.secret_key),
        base_models=catalog.base_models(),
    )


@cache
def _migrated() -> bytes:
    """A database file with empty tables, made once: the migrations take longer than most tests."""
    with TemporaryDirectory() as folder:
        upgrade(f"sqlite:///{folder}/bootlora.db")
        return Path(folder, "bootlora.db").read_bytes()


def make_user(session: Session, name: str = "ann", **over: Any) -> User:
    user = users.create(session, name)
    for field, value in over.items():
        setattr(user, field, value)
    return user


def make_project(session: Session, user: User, *, references: int = 4, **over: Any) -> Project:
    given = {
        "name": "fox girl",
        "trigger_word": "eiei21girl",
        "subject_tags": ["1girl", "solo"],
        "feature_tags": ["fox ears", "blonde hair", "red eyes", "fox tail"],
        "base_model": "chibi",
        "curation": "auto",
        **over,
    }
    project = projects.create(session, user, given, catalog.base_models())
    for _ in range(references):
        stored = {**FILE, "width": 64, "height": 64}
        images.add_upload(session, project, stored, view="front", framing="full_body", max_images=100)
    return project


def make_job(session: Session, project: Project, kind: str = "generate", **over: Any) -> Job:
    row = KINDS[kind]
    inputs = records.read(row.inputs, job_inputs(kind, project))
    params = records.read(row.params, {"mode": "auto"} if kind == "crop" else {})
    return jobs.enqueue(session, project, row, params=params, inputs=inputs, **over)


def claim(runtime: Runtime, job: Job, worker: str = "gpu@one") -> jobs.ClaimedJob | None:
    with runtime.transaction() as session:
        current = session.get_one(Job, job.id)
        return jobs.claim(session, job.id, current.attempt, worker, runtime.settings.lease_seconds)


def result_of(held: jobs.ClaimedJob, taken: int | None = None) -> Any:
    """What a handler would give back. A score accepts `taken` candidates, or as many as its quota asks for."""
    if held.kind == "train":
        file = StoredFile(**FILE, filename="x.safetensors")
        metrics = TrainMetrics(loss=0.1, curve=[(3, 0.1)], seconds=1.0, images=4)
        return TrainResult(train_steps=3, metrics=metrics, files={"kohya": file, "diffusers": file})
    if held.kind == "generate":
        told = ("prompt", "seed", "view", "framing")
        wanted = [{name: each.get(name) for name in told} for each in held.inputs["pictures"]]
        return GenerateResult(images=[DrawnImage(**FILE, width=64, height=64, **each) for each in wanted])
    assert held.kind == "score"
    quota = dict(held.inputs["quota"])
    accepted = []
    for each in held.inputs["candidates"]:
        if quota.get(each["view"], 0) > 0:
            quota[each["view"]] -= 1
            accepted.append(each["id"])
    return ScoreResult(scores={}, accepted=accepted[:taken])


def work_off(runtime: Runtime, *, taken: int | None = None, until: str | None = None) -> None:
    """Do every job that is there, in its turn, until none is left or one of kind `until` comes up."""
    with runtime.transaction() as session:
        jobs.check_in(session, "gpu@one", "gpu", 1)
        jobs.check_in(session, "cpu@one", "cpu", 4)
        jobs.wake(session, "gpu")
        jobs.wake(session, "cpu")
    broker = runtime.broker
    assert isinstance(broker, RecordingBroker)
    while broker.sent:
        _, job_id, attempt = broker.sent.pop(0)
        with runtime.db.reading() as session:
            if session.scalar(select(Job.kind).where(Job.id == job_id)) == until:
                return
        with runtime.transaction() as session:
            held = jobs.claim(session, job_id, attempt, "gpu@one", 90)
        if held is None:
            continue
        with runtime.transaction() as session:
            jobs.succeed(session, held, result_of(held, taken))
