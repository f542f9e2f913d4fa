# ruff: noqa: S608  (nothing in these statements comes from outside)
"""Fills the tables like a busy installation's: a thousand users, most jobs ended, many waiting.

The database generates the rows itself. Thousands take seconds, a million takes a minute.
"""

from __future__ import annotations

import json

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared import users
from shared.models import User
from shared.outside.db import Database
from shared.queue import jobs, turns

USERS = 1000
WAITING = 100  # of them have jobs that wait: every tenth
RUNNING = 4
SLOTS = 1000  # of live workers
# The records of every job kind can be read from these: each kind ignores the fields of the others.
PARAMS = json.dumps({"train_steps": 100, "mode": "auto"})
INPUTS = json.dumps(
    {
        "base_model": "chibi",
        "pictures": [{"prompt": "a", "seed": 1}],
        "loras": [],
        "dataset": [],
        "name": "x",
        "trigger_word": "x",
        "subject_tags": [],
        "prompt_tags": [],
        "views": [],
        "image": {"id": "img_0", "key": "k", "sha256": "0"},
    }
)
STAGES = json.dumps([["working", 10, 20.0]])
BUSY = "user 70"  # has the oldest jobs of each kind, so that the small table also has a full page of them
BUSY_JOBS = 400

# Expressions in SQLite and in Postgres.
NUMBERED = {"sqlite": "printf('{0}_%026d', {1})", "postgresql": "'{0}_' || lpad(({1})::text, 26, '0')"}
AGO = {
    "sqlite": "strftime('%Y-%m-%d %H:%M:%f000', 'now', '-' || ({0}) || ' seconds')",
    "postgresql": "now() - ({0}) * interval '1 second'",
}


def fill(database: Database, count: int) -> None:
    """Write `count` jobs. A tenth of them wait, a twentieth have failed, a twentieth are cancelled."""
    with database.transaction() as session:
        for statement in _statements(database.engine.dialect.name, count):
            session.execute(text(statement))
        turns.repair_in_line(session)  # as the clock does each minute
        jobs.check_in(session, "gpu@one", "gpu", SLOTS)
        jobs.check_in(session, "cpu@one", "cpu", 1)
    if database.engine.dialect.name == "postgresql":  # autovacuum would do it later
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")


def busy_user(session: Session) -> User:
    return users.by_name(session, BUSY)


def _statements(dialect: str, count: int) -> list[str]:
    def id_(prefix: str, number: str) -> str:
        return NUMBERED[dialect].format(prefix, number)

    def ago(seconds: str) -> str:
        return AGO[dialect].format(seconds)

    spread = f"CASE WHEN i % 10 = 5 THEN i / 10 % {WAITING} * {USERS // WAITING} ELSE i % {USERS} END"
    owner = f"(CASE WHEN i < {BUSY_JOBS} THEN {BUSY.split()[1]} ELSE {spread} END)"
    began, ended = (f"CASE WHEN i % 10 = 5 THEN NULL ELSE {ago(f'{count} - i - {shift}')} END" for shift in (0, 20))
    return [
        f"""{_numbers(USERS)} INSERT INTO users (id, name, role, gpu_seconds, served_at, created_at)
        SELECT {id_("usr", "i")}, 'user ' || i, 'member', 0, {ago("i * 7919 % 1000")}, {ago("i")} FROM n""",
        f"""{_numbers(USERS)} INSERT INTO projects (id, user_id, name, trigger_word, subject_tags, feature_tags,
            base_model, plan, curation, state, metadata, seq, gpu_seconds, created_at, updated_at)
        SELECT {id_("prj", "i")}, {id_("usr", "i")}, 'project', 'eiei21girl', '[]', '[]',
            'chibi', '{{"rounds": []}}', 'auto', 'running', '{{}}', 0, 0, {ago("i")}, {ago("i")} FROM n""",
        f"""{_numbers(count)} INSERT INTO jobs (id, user_id, project_id, kind, queue, state, priority, params, inputs,
            base_model, stages, metadata, attempt, lost_attempts, queued_at, created_at, started_at, finished_at,
            dispatched_at, lease_until)
        SELECT {id_("job", "i")}, {id_("usr", owner)}, {id_("prj", owner)},
            CASE WHEN i % 7 = 1 THEN 'crop' WHEN i % 2 = 1 THEN 'generate' ELSE 'train' END,
            CASE WHEN i % 7 = 1 THEN 'cpu' ELSE 'gpu' END,
            CASE WHEN i >= {count - RUNNING} THEN 'running' WHEN i % 10 = 5 THEN 'queued' WHEN i % 20 = 1 THEN 'failed'
                 WHEN i % 20 = 2 THEN 'cancelled' ELSE 'succeeded' END,
            i / 100 % 3, '{PARAMS}', '{INPUTS}', 'chibi', '{STAGES}', '{{}}', 1, 0,
            {ago(f"{count} - i")}, {ago(f"{count} - i")}, {began}, {ended}, {began}, {ago("-3600")}
        FROM n""",
    ]


def _numbers(count: int) -> str:
    return f"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {count - 1})"
