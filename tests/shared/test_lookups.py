"""Look-ups that go past SQLAlchemy say the same as those that don't."""

from __future__ import annotations

from sqlalchemy import bindparam, select

from shared.models import Job, Project
from tests.factories import make_job

JOB = select(Job.id, Job.params, Job.created_at, Job.started_at, Project.name.label("whose")).where(
    Job.id == bindparam("wanted"), Project.id == Job.project_id
)


def test_a_row_reads_as_one_of_a_session(runtime, project):
    with runtime.transaction() as session:
        job = make_job(session, project, params={"prompts": ["ä", 1.5, None]})
    with runtime.db.reading() as session:
        expected = session.execute(JOB, {"wanted": job.id}).one()
    found = runtime.db.row(JOB, wanted=job.id)
    assert tuple(found) == tuple(expected)
    assert found.params == {"prompts": ["ä", 1.5, None]}
    assert found.created_at.tzinfo is not None
    assert runtime.db.row(JOB, wanted="job_of_nobody") is None


def test_a_row_is_what_has_been_committed_by_now(runtime, project):
    with runtime.transaction() as session:
        job = make_job(session, project)
    assert runtime.db.row(JOB, wanted=job.id).params == job.params
    with runtime.transaction() as session:
        session.get_one(Job, job.id).params = {"changed": True}
        session.flush()
        assert runtime.db.row(JOB, wanted=job.id).params != {"changed": True}
    assert runtime.db.row(JOB, wanted=job.id).params == {"changed": True}


def test_a_connection_that_has_gone_is_replaced(runtime, project):
    with runtime.transaction() as session:
        job = make_job(session, project)
    assert runtime.db.row(JOB, wanted=job.id).id == job.id
    (connection,) = runtime.db._lookups._idle
    connection.close()
    assert runtime.db.row(JOB, wanted=job.id).id == job.id
    assert connection not in runtime.db._lookups._idle
