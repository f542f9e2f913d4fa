"""What goes straight to the driver says the same as what goes through SQLAlchemy."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import bindparam, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from shared import prepared
from shared.models import AuditEntry, Job, Project, User
from tests.factories import make_job

JOB = select(Job.id, Job.params, Job.created_at, Job.started_at, Project.name.label("whose")).where(
    Job.id == bindparam("wanted"), Project.id == Job.project_id
)
CHANGED = (
    update(Job.__table__)
    .where(Job.__table__.c.id == bindparam("wanted"))
    .returning(Job.__table__.c.params, Job.__table__.c.started_at)
)
WORK = {"queue": "gpu", "params": {}, "inputs": {}}
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


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


def test_a_statement_writes_and_reads_as_one_of_a_session(runtime, project):
    with runtime.transaction() as session:
        session.add(Job(id="job_0", user_id=project.user_id, project_id=project.id, kind="generate", **WORK))
        (changed,) = prepared.run(session, CHANGED, wanted="job_0", params={"a": ["ä"]}, started_at=NOON)
        assert changed == ({"a": ["ä"]}, NOON)
        assert session.get_one(Job, "job_0", populate_existing=True).params == {"a": ["ä"]}
        assert prepared.one(session, CHANGED, wanted="job_1", params={}, started_at=None) is None


def test_a_value_that_is_not_given_is_missed(session):
    with pytest.raises(KeyError):
        prepared.run(session, insert(AuditEntry.__table__), action="without an id")
    with pytest.raises(KeyError):
        prepared.run(session, JOB, wnated="job_1")


def test_an_error_of_the_driver_is_told_as_sqlalchemy_tells_it(session, user):
    row = {
        "user_id": user.id,
        "name": user.name,
        "served_at": NOON,
        "created_at": NOON,
        "gpu_seconds": 0.0,
        "in_line": True,
    }
    with pytest.raises(IntegrityError):
        prepared.run(session, insert(User.__table__), id=user.id, role="member", **row)


def test_a_row_is_added_as_a_session_adds_it(runtime, project):
    given = {"user_id": project.user_id, "project_id": project.id, "kind": "generate", **WORK, "checkpoint": None}
    with runtime.transaction() as session:
        session.add(Job(id="job_0", **given))
        job = Job(id="job_1", **given)
        prepared.add(session, job)
        assert job in session
        assert job.progress is None
        assert not session.dirty
        job.priority = 7
    with runtime.db.reading() as session:
        ours, theirs = (plain(session, id_) for id_ in ("job_1", "job_0"))
    assert ours == theirs | {"id": "job_1", "priority": 7}


def plain(session, id_):
    """A row as the database has it, but for when it came."""
    row = session.execute(text("SELECT * FROM jobs WHERE id = :id"), {"id": id_}).one()
    return {name: value for name, value in row._mapping.items() if name not in ("queued_at", "created_at")}
