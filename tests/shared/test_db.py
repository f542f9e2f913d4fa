"""`Database.row`."""

from __future__ import annotations

from sqlalchemy import bindparam, select

from shared.models import Job, Project
from shared.runtime import Runtime
from tests.factories import make_job

JOB = select(Job.id, Job.params, Job.created_at, Job.started_at, Project.name.label("whose")).where(
    Job.id == bindparam("wanted"), Project.id == Job.project_id
)


def test_a_row_reads_as_one_of_a_session(runtime: Runtime, project: Project) -> None:
    with runtime.transaction() as session:
        job = make_job(session, project, params={"prompts": ["ä", 1.5, None]})
    with runtime.db.reading() as session:
        expected = session.execute(JOB, {"wanted": job.id}).one()
    found = runtime.db.row(JOB, wanted=job.id)
    assert vars(found) == expected._asdict()
    assert found.params == {"prompts": ["ä", 1.5, None]}
    assert found.created_at.tzinfo is not None


def test_there_is_no_row_of_an_unknown_id(runtime: Runtime) -> None:
    assert runtime.db.row(JOB, wanted="job_of_nobody") is None


def test_a_row_shows_what_is_committed(runtime: Runtime, project: Project) -> None:
    with runtime.transaction() as session:
        job = make_job(session, project)
    before = job.params
    assert runtime.db.row(JOB, wanted=job.id).params == before
    with runtime.transaction() as session:
        session.get_one(Job, job.id).params = {"changed": True}
        session.flush()
        assert runtime.db.row(JOB, wanted=job.id).params == before
    assert runtime.db.row(JOB, wanted=job.id).params == {"changed": True}
