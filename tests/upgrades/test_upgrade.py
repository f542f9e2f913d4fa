"""The API shows what an installation of 7a09abe holds, and every value is as it was."""

from __future__ import annotations

import hashlib
import json
import urllib.request
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import JSON, select

from shared.models import Base
from shared.outside.db import Database
from tests.upgrades.conftest import ABOUT, DATABASES, Installation, Row, copy, load

# Columns that no answer shows.
HIDDEN = {
    "projects": {"user_id", "seq"},
    "rounds": {"failed_in"},
    "images": {"key"},
    "jobs": {
        *("user_id", "queue", "inputs", "checkpoint", "result", "lost_attempts"),
        *("lease_token", "lease_until", "worker", "dispatched_at"),
    },
    "loras": set(),
    "webhooks": {
        *("user_id", "sealed_secret", "sealed_old_secret", "failures", "paused_until"),
        *("lease_token", "lease_until"),
    },
    "deliveries": {"due_at"},
    "api_keys": {"user_id", "digest"},
}
ADDRESSES = {
    "projects": "/projects/{id}",
    "rounds": "/projects/{project_id}/rounds/{number}",
    "images": "/images/{id}",
    "jobs": "/jobs/{id}",
    "loras": "/loras/{id}",
    "webhooks": "/webhooks/{id}",
    "deliveries": "/webhooks/{webhook_id}/deliveries/{id}",
}


def differences(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """Every value that has changed or is gone. New values are no difference; the API never shows keys of objects."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name, value in old.items():
            if name in new:
                yield from differences(value, new[name], f"{where}/{name}")
            elif name != "key":
                yield f"{where}/{name} is gone"
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, pair in enumerate(zip(old, new, strict=True)):
            yield from differences(*pair, f"{where}/{number}")
    elif isinstance(old, datetime):
        if datetime.fromisoformat(new) != old:
            yield f"{where} was {old} and is {new}"
    elif (None if old is JSON.NULL else old) != new:
        yield f"{where} was {old!r} and is {new!r}"


@pytest.mark.parametrize("table", ADDRESSES)
def test_every_row_is_shown_with_the_values_that_it_had(installation: Installation, table: str) -> None:
    rows = installation.old[table]
    assert rows
    for row in rows:
        shown = installation.get(ADDRESSES[table].format(**row), caller=owner(installation, row))
        visible = {name: value for name, value in row.items() if name not in HIDDEN[table]}
        assert list(differences(visible, shown)) == [], row["id"]


def owner(installation: Installation, row: Row) -> str:
    """The name of the user to whom a row belongs."""
    if "user_id" not in row:
        of = {row["id"]: row for name in ("projects", "webhooks") for row in installation.old[name]}
        row = of[row.get("project_id") or row["webhook_id"]]
    return installation.caller(row["user_id"])


def test_every_event_is_listed_in_its_order(installation: Installation) -> None:
    for project in installation.old["projects"]:
        rows = [row for row in installation.old["events"] if row["project_id"] == project["id"]]
        shown: list[Any] = []
        while page := installation.get(
            f"/projects/{project['id']}/events?limit=100&after={len(shown)}", caller=owner(installation, project)
        )["items"]:
            shown += page
        assert [event["data"]["seq"] for event in shown] == list(range(1, project["seq"] + 1))
        for row, event in zip(sorted(rows, key=lambda row: row["seq"]), shown, strict=True):
            assert list(differences(row["data"] | {"id": row["id"]}, event["data"])) == []
            assert (event["type"], datetime.fromisoformat(event["timestamp"])) == (row["type"], row["created_at"])


def test_lists_hold_what_they_held(installation: Installation) -> None:
    for name in ("ada", "bob"):
        (user,) = (row["id"] for row in installation.old["users"] if row["name"] == name)
        for table in ("projects", "jobs", "webhooks"):
            rows = {row["id"] for row in installation.old[table] if row["user_id"] == user}
            assert {each["id"] for each in installation.all(f"/{table}", caller=name)} == rows
    for project in installation.old["projects"]:
        rows = [row for row in installation.old["images"] if row["project_id"] == project["id"]]
        caller = owner(installation, project)
        shown = installation.all(f"/projects/{project['id']}/images", caller=caller)
        assert {each["id"] for each in shown} == {row["id"] for row in rows}


def test_every_round_shows_what_was_decided(installation: Installation) -> None:
    for row in installation.old["rounds"]:
        shown = installation.get(ADDRESSES["rounds"].format(**row))
        candidates = [
            image
            for image in installation.old["images"]
            if image["round_id"] == row["id"] and image["role"] == "candidate"
        ]
        for decision in ("accepted", "rejected", "pending"):
            expected = {image["id"] for image in candidates if image["decision"] == decision}
            assert set(shown["decisions"][decision]) == expected


def test_every_file_can_be_downloaded(installation: Installation) -> None:
    ready = [row for row in of_ada(installation, "images") if row["state"] == "ready"]
    files = [installation.get(f"/images/{row['id']}") for row in ready]
    for row in of_ada(installation, "loras"):
        files += installation.get(f"/loras/{row['id']}")["files"].values()
    for file in files:
        assert hashlib.sha256(content_of(file["url"])).hexdigest() == file["sha256"]


def content_of(url: str) -> bytes:
    with urllib.request.urlopen(url) as opened:
        return opened.read()


def of_ada(installation: Installation, table: str) -> list[Row]:
    return [row for row in installation.old[table] if owner(installation, row) == "ada"]


def test_both_keys_of_a_user_go_on_with_their_scopes(installation: Installation) -> None:
    assert installation.ask("GET", "/projects", caller="ada, viewer").status_code == 200
    refused = installation.ask("POST", "/projects", {"name": "x", "trigger_word": "y"}, caller="ada, viewer")
    assert refused.json["code"] == "missing_scope"
    shown = {key["id"]: key for key in installation.all("/keys")}
    for row in of_ada(installation, "api_keys"):
        hidden = HIDDEN["api_keys"] | {"last_used_at"}  # which this test changes
        visible = {name: value for name, value in row.items() if name not in hidden}
        assert list(differences(visible, shown[row["id"]])) == []


def test_a_repeated_request_gets_the_answer_that_it_got(installation: Installation) -> None:
    request = ABOUT["request"]
    answer = installation.ask("POST", request["path"], request["json"], Idempotency_Key=request["key"])
    assert answer.headers["Idempotent-Replayed"] == "true"
    assert json.loads(answer.get_data()) == request["answer"]


@pytest.mark.parametrize("kind", DATABASES)
def test_what_a_process_of_7a09abe_writes_after_the_migrations_is_read(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """While the processes are replaced one by one, the old ones go on writing."""
    old, url = load(tmp_path / "old.db"), f"sqlite:///{tmp_path}/new.db"
    if kind == "postgres":
        url = request.getfixturevalue("postgres").make_database()
    copy(old, url, revision="head")
    database = Database(url)
    with database.reading() as session:
        for mapper in Base.registry.mappers:
            table = str(mapper.local_table)
            if table in old:
                assert len(session.scalars(select(mapper.class_)).all()) == len(old[table]), table
    database.dispose()
