"""A job kind is its records, its handler, its row and what takes its result: here are all four of a new one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from shared.catalog.kinds import KINDS, JobKind
from shared.models import Job, Project
from shared.queue import jobs
from shared.records import field
from tests.domain import make_project, make_runtime, make_user
from workers.runner import run_job
from workers.work import Work


@dataclass(frozen=True, kw_only=True, slots=True)
class CountParams:
    letter: str = field("e", length=(1, 1))


@dataclass(frozen=True, kw_only=True, slots=True)
class CountInputs:
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CountResult:
    found: int


def run(work: Work[CountParams, CountInputs]) -> CountResult:
    work.step("counting", 1, 1)
    return CountResult(found=work.inputs.text.count(work.params.letter))


def take(session: Session, job: Job, result: CountResult) -> None:
    session.get_one(Project, job.project_id).name = f"{result.found} letters"


COUNT = JobKind(
    name="count",
    verb="counting letters",
    queue="cpu",
    timeout_seconds=10,
    handler="tests.workers.test_new_kind:run",
    taken_by="tests.workers.test_new_kind:take",
    params=CountParams,
    inputs=CountInputs,
    result=CountResult,
)


def test_a_new_kind_is_queued_run_and_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, COUNT.name, COUNT)
    runtime = make_runtime(tmp_path)
    with runtime.transaction() as session:
        project = make_project(session, make_user(session))
        job = jobs.enqueue(session, project, COUNT, params=CountParams(), inputs=CountInputs(text="three letters"))
    run_job(runtime, job.id, 1, "cpu@one", lambda: False)
    with runtime.db.reading() as session:
        assert session.get_one(Job, job.id).result == {"found": 4}
        assert session.get_one(Project, job.project_id).name == "4 letters"
    runtime.close()


def test_a_job_is_not_queued_with_the_records_of_another_kind(tmp_path: Path) -> None:
    runtime = make_runtime(tmp_path)
    with runtime.transaction() as session:
        project = make_project(session, make_user(session))
        with pytest.raises(TypeError, match="a count job has a CountInputs, not a CountParams"):
            jobs.enqueue(session, project, COUNT, params=CountParams(), inputs=CountParams())  # type: ignore[arg-type]
    runtime.close()
