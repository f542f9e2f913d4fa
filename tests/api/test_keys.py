"""Revoking a key with all keys that it created, and disabling a user with all of the user's keys."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from sqlalchemy import select

from api import auth
from shared import admin as commands
from shared.models import ApiKey, Event, Job, Project, Round
from tests.api.bodies import PROJECT
from tests.api.conftest import SECRET, Caller
from tests.factories import make_job, make_project, make_round


@pytest.fixture
def mint(app):
    """Make a key with a key."""

    def make(caller: Caller, **given) -> Caller:
        made = caller.post("/v1/keys", {"name": "minted", **given})
        assert made.status_code == 201, made.json
        return Caller(app.test_client(), made.json["key"], caller.user_id)

    return make


@pytest.fixture
def command(runtime, monkeypatch):
    """Run `bootlora-admin` on the tables of the test."""
    for name in ("database_url", "storage_url"):
        monkeypatch.setenv(f"BOOTLORA_{name.upper()}", getattr(runtime.settings, name))
    monkeypatch.setenv("BOOTLORA_BROKER_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("BOOTLORA_SECRET_KEY", SECRET)

    def run(*words: str) -> str:
        done = CliRunner().invoke(commands.main, words)
        assert done.exit_code == 0, done
        return done.output

    return run


def id_of(caller: Caller) -> str:
    return caller.get("/v1/me").json["key"]["id"]


def test_an_admin_lists_and_revokes_a_leaked_key_with_all_that_it_made(admin, ada, mint):
    child = mint(ada, scopes=["keys:write", "projects:read"])
    grandchild = mint(child)
    leaked, other = id_of(ada), mint(admin)
    listed = admin.get(f"/v1/users/{ada.user_id}/keys").json["items"]
    assert {each["id"]: each["parent_id"] for each in listed} == {
        leaked: None,
        id_of(child): leaked,
        id_of(grandchild): id_of(child),
    }
    assert admin.delete(f"/v1/users/{ada.user_id}/keys/{leaked}").status_code == 204
    assert [each.get("/v1/me").status_code for each in (ada, child, grandchild, other)] == [401, 401, 401, 200]
    seen = admin.get("/v1/audit?action=revoke_user_key").json["items"]
    assert [each["target"] for each in seen] == [f"/v1/users/{ada.user_id}/keys/{leaked}"]


def test_a_revoked_child_leaves_its_parent(ada, mint):
    child = mint(ada)
    assert ada.delete(f"/v1/keys/{id_of(child)}").status_code == 204
    assert child.get("/v1/me").status_code == 401
    assert ada.get("/v1/me").status_code == 200


def test_a_revoked_key_that_another_process_still_takes_makes_no_key(ada, session_of):
    key_id = id_of(ada)
    ada.get("/v1/me")  # the first one notes that the key is in use, and forgets it
    with session_of() as session:  # as another process does it, whose cache is another one
        session.get_one(ApiKey, key_id).revoked_at = session.get_one(ApiKey, key_id).created_at
    assert ada.get("/v1/me").status_code == 200, "this process remembers it for two seconds"
    assert ada.post("/v1/keys", {"name": "x"}).status_code == 401


def test_an_admin_reaches_a_key_only_through_its_user(admin, ada, bob):
    path = f"/v1/users/{bob.user_id}/keys/{id_of(ada)}"
    assert admin.get(path).status_code == admin.delete(path).status_code == 404
    assert ada.get("/v1/me").status_code == 200


def test_keys_create_no_keys_without_the_scope(app, admin, ada, mint):
    assert "keys:write" not in mint(ada).get("/v1/me").json["scopes"]
    made = admin.post(f"/v1/users/{ada.user_id}/keys", {"name": "plain"})
    assert "keys:write" not in made.json["scopes"]
    assert admin.get(made.headers["Location"]).json["id"] == made.json["id"]
    assert mint(ada, scopes=["keys:write"]).get("/v1/me").json["scopes"] == ["keys:write"]


def test_an_admin_who_is_one_no_more_makes_the_keys_of_a_member(admin, make_caller, mint):
    second = make_caller("second", role="admin")
    assert admin.patch(f"/v1/users/{second.user_id}", {"role": "member"}).status_code == 200
    scopes = mint(second).get("/v1/me").json["scopes"]
    assert "admin" not in scopes
    assert "projects:write" in scopes
    assert second.post("/v1/keys", {"name": "x", "scopes": ["admin"]}).json["code"] == "not_an_admin"


def test_a_disabled_user_is_refused_and_their_jobs_end_while_their_data_stays(admin, ada, bob, runtime, session_of):
    with session_of() as session:
        waits, runs = (make_job(session, make_project(session, ada.user_id), state=state) for state in STATES)
        others = make_job(session, make_project(session, bob.user_id))
    shown = admin.patch(f"/v1/users/{ada.user_id}", {"enabled": False}).json
    assert (shown["enabled"], shown["disabled_at"] is None) == (False, False)
    refused = ada.get("/v1/projects")
    assert (refused.status_code, refused.json["code"]) == (401, "user_disabled")
    assert runtime.stop_disabled() == 2
    assert runtime.stop_disabled() == 0
    with runtime.db.reading() as session:
        assert session.get_one(Job, waits.id).state == "cancelled"
        assert session.get_one(Job, runs.id).cancel_requested_at is not None
        assert session.get_one(Job, others.id).state == "queued"
        assert len(session.scalars(select(Project).where(Project.user_id == ada.user_id)).all()) == len(STATES)
    assert admin.patch(f"/v1/users/{ada.user_id}", {"enabled": True}).json["disabled_at"] is None
    assert len(ada.get("/v1/projects").json["items"]) == len(STATES)


STATES = ("queued", "running")


def test_a_job_of_a_disabled_user_that_cannot_end_stays_whole_and_the_others_end(admin, ada, runtime, session_of):
    with session_of() as session:
        done = make_project(session, ada.user_id, state="completed")  # a round of it can't fail any more
        round_ = make_round(session, done, state="training")
        stuck = make_job(session, done, kind="train", round_id=round_.id)
        other = make_job(session, make_project(session, ada.user_id))
    admin.patch(f"/v1/users/{ada.user_id}", {"enabled": False})
    assert runtime.stop_disabled() == 1
    with runtime.db.reading() as session:
        states = [
            session.get_one(row, id_).state for row, id_ in ((Job, stuck.id), (Round, round_.id), (Job, other.id))
        ]
        assert states == ["queued", "training", "cancelled"]
        told = select(Event.type).where(Event.project_id == done.id)
        assert "job.cancelled" not in session.scalars(told).all()


def test_the_last_admin_who_is_enabled_stays(admin, make_caller):
    assert admin.patch(f"/v1/users/{admin.user_id}", {"enabled": False}).json["code"] == "last_admin"
    second = make_caller("second", role="admin")
    assert admin.patch(f"/v1/users/{second.user_id}", {"enabled": False}).status_code == 200
    assert admin.patch(f"/v1/users/{admin.user_id}", {"role": "member"}).json["code"] == "last_admin"


@pytest.mark.parametrize("named_by", ["id", "prefix", "the key itself"])
def test_an_operator_finds_a_leaked_key_and_revokes_it(command, admin, ada, mint, named_by):
    child, (line,) = mint(ada), [line for line in command("list-keys", "ada").splitlines() if "minted" not in line]
    names = dict(zip(("id", "prefix"), line.split(), strict=False)) | {"the key itself": ada.key}
    command("revoke-key", names[named_by])
    auth.forget()  # as two seconds do
    assert [each.get("/v1/me").status_code for each in (ada, child)] == [401, 401]
    assert command("list-keys", "ada") == ""
    (entry,) = admin.get("/v1/audit?action=revoke_user_key").json["items"]
    assert (entry["user_id"], entry["api_key_id"]) == ("bootlora-admin", None)


def test_an_operator_disables_and_enables_a_user(command, app, ada):
    command("disable-user", "ada")
    assert ada.get("/v1/me").json["code"] == "user_disabled"
    assert ada.post("/v1/projects", PROJECT).json["code"] == "user_disabled"
    command("enable-user", "ada")
    assert ada.get("/v1/me").status_code == 200
