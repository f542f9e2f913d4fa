"""Which base models the workers have. Each worker reports its own with its heartbeat; the API shows all of them.

What a worker had is remembered after it has gone, so that projects can still be shown and jobs can wait for it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam, delete, exists, select, update
from sqlalchemy.orm import Session

from shared import catalog, figures
from shared.catalog import QUEUES, BaseModel
from shared.lifecycle import JobState
from shared.models import Job, Worker, WorkerModel
from shared.outside.db import clock
from shared.settings import Settings

MOST_NOTED = 5  # unusable copies in the notes of a base model
KEEP_SECONDS = 2.0  # how long the base models at hand are kept before they are looked up again

_models, _workers = WorkerModel.__table__, Worker.__table__


def report(session: Session, worker: str, models: Mapping[str, BaseModel]) -> None:
    """Record what a worker has. Writes only what has changed since its last report."""
    known = {row.name: row.model for row in session.execute(_REPORTED, {"reporter": worker})}
    gone = [name for name in known if name not in models]
    if gone:
        session.execute(delete(_models).where(_models.c.worker == worker, _models.c.name.in_(gone)))
    for name, model in models.items():
        values = {"model": _public(model), "usable": not model.problem, "reported_at": clock()}
        if name not in known:
            session.execute(_models.insert().values(worker=worker, name=name, **values))
        elif known[name] != values["model"]:
            session.execute(update(_models).where(_models.c.worker == worker, _models.c.name == name).values(**values))


def known(session: Session, settings: Settings) -> dict[str, BaseModel]:
    """Every base model by name: those that ship, and those of the workers that are alive or were lately."""
    found: dict[str, list[Any]] = {}
    for row in session.execute(_known(settings)):
        found.setdefault(row.name, []).append(row)
    models = {name: replace(model, path="") for name, model in catalog.base_models().items()}
    return models | {name: _joined(rows) for name, rows in sorted(found.items())}


def copies(session: Session, settings: Settings) -> dict[str, dict[str, BaseModel]]:
    """What each worker has reported, by the model's name and the worker. For operators: it names the workers' hosts."""
    found: dict[str, dict[str, BaseModel]] = {}
    for row in session.execute(_known(settings)):
        found.setdefault(row.name, {})[row.worker] = row.model
    return found


def of_workers(session: Session, workers: Collection[str]) -> dict[str, set[str]]:
    """The names of the base models that workers can load. A worker of an earlier version reports none."""
    found: dict[str, set[str]] = {}
    for row in session.execute(_USABLE, {"names": list(workers)}):
        found.setdefault(row.worker, set())
        if row.usable:
            found[row.worker].add(row.name)
    return found


def at_hand(session: Session, settings: Settings) -> set[str] | None:
    """The names of the base models that a live worker can load now. None: any, since an older worker reports none."""
    live = session.scalars(_live_workers(settings)).all()
    having = of_workers(session, live)
    return None if any(worker not in having for worker in live) else set().union(*having.values())


def lack(session: Session, job: Job, settings: Settings) -> str | None:
    """What a waiting job lacks, if no live worker can load its base model."""
    name = job.inputs.get("base_model")
    if job.state != JobState.QUEUED or not QUEUES[job.queue].uses_device or name is None:
        return None
    names = _at_hand_lately(session, settings)
    if names is None or name in names:
        return None
    model = known(session, settings).get(name)
    if model is not None and model.problem:
        return f"the base model {name!r} can't be used: {model.problem}"
    return f"no worker that is alive has the base model {name!r}; start one, or put the model into its folder"


def forget(session: Session, days: int) -> int:
    """Delete what workers had that have not been there for so many days. Returns how many rows were deleted."""
    there = exists().where(_workers.c.name == _models.c.worker)
    old = delete(_models).where(_models.c.reported_at < clock(-days * 86_400.0), ~there)
    return session.execute(old).rowcount  # type: ignore[attr-defined,no-any-return]


def _at_hand_lately(session: Session, settings: Settings) -> set[str] | None:
    """`at_hand`, kept for a moment: every answer about a waiting job asks for it."""
    return figures.kept(session, "models at hand", KEEP_SECONDS, lambda: at_hand(session, settings))


def _public(model: BaseModel) -> BaseModel:
    """A base model without the places on its worker's disk."""
    return replace(model, path="", vae="", config="")


def _joined(rows: list[Any]) -> BaseModel:
    """One base model for what several workers report under a name. All users read it, so it names no worker.

    Reports of live workers count; if there are none, the latest report does.
    """
    live = [row for row in rows if row.live] or [max(rows, key=lambda row: row.reported_at)]
    good = [row for row in live if row.usable] or live
    model: BaseModel = good[0].model
    if len({row.model.sha256 for row in good} - {""}) > 1:
        problem = "two workers have different files of this name; give both the same file, or rename one"
        return replace(model, problem=problem)
    bad = dict.fromkeys(f"another worker can't use its copy: {row.model.problem}" for row in live if row not in good)
    return replace(model, notes=(*model.notes, *list(bad)[:MOST_NOTED]))


_REPORTED = select(_models.c.name, _models.c.model).where(_models.c.worker == bindparam("reporter"))
_USABLE = select(_models.c.worker, _models.c.name, _models.c.usable).where(
    _models.c.worker.in_(bindparam("names", expanding=True))
)


@cache
def _known(settings: Settings) -> Select[Any]:
    alive = exists().where(_workers.c.name == _models.c.worker, *_live(settings))
    columns = (_models.c[name] for name in ("worker", "name", "model", "usable", "reported_at"))
    return select(*columns, alive.label("live")).order_by(_models.c.worker)


@cache
def _live_workers(settings: Settings) -> Select[str]:
    queues = [name for name, queue in QUEUES.items() if queue.uses_device]
    return select(_workers.c.name).where(_workers.c.queue.in_(queues), *_live(settings))


def _live(settings: Settings) -> tuple[ColumnElement[bool], ...]:
    return (_workers.c.seen_at > clock(-settings.worker_seen_seconds),)
