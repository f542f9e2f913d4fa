"""The owner of a store: several installations on one bucket can't harm each other."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from alembic import command
from sqlalchemy import delete
from structlog.testing import capture_logs

from embedded.stack import ROOT
from shared import ownership, reconcile
from shared.admin import migrations, upgrade
from shared.models import Image, Installation, Project
from shared.outside.db import Database
from shared.outside.storage import FolderStorage
from shared.ownership import MARK, WrongStore
from shared.runtime import Runtime, open_storage
from tests.domain import make_project, make_runtime, make_user
from tests.servers import S3

STRANGE = f"projects/prj_{'0' * 26}/images/img_{'0' * 26}.png"
SECRET = "a secret for tests, 32 characters and more"

Install = Callable[..., Runtime]


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.servers)])
def install(request: pytest.FixtureRequest, tmp_path: Path) -> Install:
    """Makes installations with a database of their own each, at one store."""
    place = {"storage_url": f"file://{tmp_path}/store"}
    if request.param == "s3":
        place = request.getfixturevalue("s3").settings(f"test-{uuid4().hex}")
    return lambda name: at(tmp_path / name, place)


def at(folder: Path, place: dict[str, str]) -> Runtime:
    folder.mkdir()
    runtime = make_runtime(folder, f"sqlite:///{folder}/bootlora.db")  # migrated anew: the id must be its own
    runtime.settings = replace(runtime.settings, **place)
    runtime.storage = open_storage(runtime.settings)
    runtime.storage.prepare()
    return runtime


def add_project(runtime: Runtime) -> Project:
    """One with pictures that are in the store."""
    with runtime.transaction() as session:
        project = make_project(session, make_user(session, uuid4().hex))
        for image in session.query(Image).where(Image.project_id == project.id):
            image.key = f"projects/{project.id}/images/{image.id}.png"
            image.sha256 = runtime.storage.put_bytes(image.key, image.id.encode()).sha256
    return project


def leave_orphan(runtime: Runtime, project: Project) -> str:
    key = f"projects/{project.id}/images/img_{'0' * 26}.png"
    runtime.storage.put_bytes(key, b"no row names it")
    return key


def keys(runtime: Runtime) -> set[str]:
    return {found.key for found in runtime.storage.list("projects/")}


@pytest.mark.servers
def test_an_installation_deletes_nothing_of_others_on_its_bucket(tmp_path: Path, s3: S3) -> None:
    bucket = f"test-{uuid4().hex}"
    addresses = ["", "/team-a", "/team-b", "/team-a/nested"]
    installed = [at(tmp_path / str(i), s3.settings(bucket + address)) for i, address in enumerate(addresses)]
    for runtime in installed:
        reconcile.collect(runtime, grace_seconds=0)  # the first start
    for runtime in installed:
        runtime.storage.put_bytes(STRANGE, runtime.settings.storage_url.encode())
    for number, runtime in enumerate(installed):
        assert reconcile.collect(runtime, grace_seconds=0) == 1
        for other in installed[number + 1 :]:
            assert other.storage.get_bytes(STRANGE) == other.settings.storage_url.encode()


def test_the_first_start_marks_an_empty_store(install: Install) -> None:
    ours = install("ours")
    ownership.check_at_start(ours)
    assert not ownership.check(ours)
    assert reconcile.collect(ours, grace_seconds=0) == 0
    assert ownership.check(ours)


def test_an_installation_of_before_the_mark_marks_the_store_with_its_own_objects(install: Install) -> None:
    ours = install("ours")
    orphan = leave_orphan(ours, add_project(ours))
    ownership.check_at_start(ours)
    assert reconcile.collect(ours, grace_seconds=0) == 1
    assert ownership.check(ours)
    assert orphan not in keys(ours)
    assert len(keys(ours)) == 4


def test_a_store_without_a_mark_that_has_objects_of_others_is_left_alone(install: Install) -> None:
    ours, others = install("ours"), install("others")
    theirs = leave_orphan(others, add_project(others))
    for _ in range(2):
        with capture_logs() as logs:
            assert reconcile.collect(ours, grace_seconds=0) == 0
        (line,) = logs
        assert (line["event"], line["log_level"]) == ("orphans.not_collected", "error")
        assert "another installation may keep them there" in line["error"]
    assert not ownership.check(ours)
    assert theirs in keys(others)
    ownership.check_at_start(ours)  # it may go on with its own objects


def test_a_second_installation_at_the_same_place_neither_starts_nor_deletes(install: Install) -> None:
    first, second = install("first"), install("second")
    reconcile.collect(first, grace_seconds=0)
    theirs = leave_orphan(first, add_project(first))
    with pytest.raises(WrongStore, match="give each installation a bucket or a prefix of its own"):
        ownership.check_at_start(second)
    with capture_logs() as logs:
        assert reconcile.collect(second, grace_seconds=0) == 0
    assert [line["event"] for line in logs] == ["orphans.not_collected"]
    with pytest.raises(WrongStore):
        reconcile.repair(second, reconcile.compare(second, grace_seconds=0))
    assert theirs in keys(first)
    assert ownership.check(first)


def test_a_second_installation_at_the_same_place_is_not_ready(install: Install) -> None:
    from api import readiness

    first, second = install("first"), install("second")
    reconcile.collect(first, grace_seconds=0)
    assert readiness.check(first)["store"] == "ok"
    assert readiness.check(second) == {"database": "ok", "broker": "ok", "store": "unavailable"}


def test_of_installations_that_start_at_once_one_has_the_store(install: Install) -> None:
    installed = [install(str(number)) for number in range(6)]
    ready = threading.Barrier(len(installed))

    def start(runtime: Runtime) -> None:
        ready.wait()
        reconcile.collect(runtime, grace_seconds=0)

    threads = [threading.Thread(target=start, args=[runtime]) for runtime in installed]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    def owns(runtime: Runtime) -> bool:
        try:
            return ownership.check(runtime)
        except WrongStore:
            return False

    assert [owns(runtime) for runtime in installed].count(True) == 1


def test_processes_of_one_installation_that_start_at_once_agree(install: Install) -> None:
    ours = install("ours")
    threads = [threading.Thread(target=ownership.ensure, args=[ours]) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ownership.check(ours)


def test_a_restored_database_still_has_its_store(install: Install, tmp_path: Path) -> None:
    ours = install("ours")
    project = add_project(ours)
    reconcile.collect(ours, grace_seconds=0)
    ours.db.dispose()
    shutil.copytree(tmp_path / "ours", tmp_path / "backup")
    later = add_project(ours)
    ours.db = Database(f"sqlite:///{tmp_path}/backup/bootlora.db")
    ownership.check_at_start(ours)
    assert ownership.check(ours)
    assert {f"projects/{each.id}" for each in (project, later)} == {key.rpartition("/images")[0] for key in keys(ours)}


def test_an_operator_makes_a_store_that_of_a_new_database(install: Install) -> None:
    old, new = install("old"), install("new")
    reconcile.collect(old, grace_seconds=0)
    theirs = leave_orphan(old, add_project(old))
    own = ownership.adopt(new)
    assert new.storage.get_bytes(MARK).decode() == own
    ownership.check_at_start(new)
    reconcile.collect(new, grace_seconds=0)
    assert theirs not in keys(new)
    with pytest.raises(WrongStore):
        ownership.check_at_start(old)


def test_a_store_that_lacks_the_pictures_of_the_database_is_the_wrong_one(install: Install, tmp_path: Path) -> None:
    """As after an update from a version that ignored the prefix: objects lie outside of it."""
    ours = install("ours")
    add_project(ours)
    ours.storage = FolderStorage(tmp_path / "elsewhere")
    ours.storage.prepare()
    with pytest.raises(WrongStore, match="none of the latest pictures"):
        ownership.check_at_start(ours)
    assert reconcile.collect(ours, grace_seconds=0) == 0
    assert not ownership.check(ours)


def test_what_is_away_at_the_start_keeps_nobody_from_starting(install: Install, tmp_path: Path) -> None:
    ours = install("ours")
    reconcile.collect(ours, grace_seconds=0)
    ours.db = Database(f"sqlite:///{tmp_path}/without-tables.db")
    ownership.check_at_start(ours)
    ours.storage = open_storage(replace(ours.settings, storage_url="s3://none", s3_endpoint="http://127.0.0.1:9"))
    ownership.check_at_start(ours)


def test_tables_without_an_id_delete_nothing(install: Install) -> None:
    ours = install("ours")
    orphan = leave_orphan(ours, add_project(ours))
    with ours.transaction() as session:
        session.execute(delete(Installation))
    with pytest.raises(Exception, match="bootlora-admin migrate"):
        reconcile.collect(ours, grace_seconds=0)
    assert orphan in keys(ours)


def test_each_database_has_an_id_of_its_own_that_stays(tmp_path: Path) -> None:
    ids = set()
    for name in ("a", "b", "a"):
        url = f"sqlite:///{tmp_path}/{name}.db"
        upgrade(url)
        command.downgrade(migrations(url), "0006")  # back to an earlier version, and forth again
        upgrade(url)
        database = Database(url)
        with database.reading() as session:
            (installation,) = session.query(Installation)
            ids.add(installation.id)
        database.dispose()
    assert len(ids) == 2


@pytest.mark.servers
@pytest.mark.parametrize(
    "command",
    [
        ["-c", "import api.wsgi"],
        *(["-m", "celery", "-A", "workers.tasks", "worker", "-Q", queue, "-c", "1"] for queue in ("gpu", "cpu")),
        ["-m", "workers.io"],
        ["-m", "shared.admin", "reconcile", "--repair"],
    ],
    ids=["api", "worker-gpu", "worker-cpu", "worker-io", "reconcile --repair"],
)  # fmt: skip
def test_no_process_begins_at_the_store_of_another_installation(
    tmp_path: Path, s3: S3, valkey_url: str, command: list[str]
) -> None:
    place = s3.settings(f"test-{uuid4().hex}")
    first, second = at(tmp_path / "first", place), at(tmp_path / "second", place)
    reconcile.collect(first, grace_seconds=0)
    settings = {**place, "database_url": second.settings.database_url, "broker_url": valkey_url, "secret_key": SECRET}
    environment = {f"BOOTLORA_{name.upper()}": value for name, value in settings.items()}
    done = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, **environment, "BOOTLORA_SCRATCH_DIR": str(tmp_path / "scratch")},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "give each installation a bucket or a prefix of its own" in done.stdout + done.stderr


@pytest.mark.servers
def test_a_command_makes_the_store_ours(tmp_path: Path, s3: S3) -> None:
    place = s3.settings(f"test-{uuid4().hex}")
    first, second = at(tmp_path / "first", place), at(tmp_path / "second", place)
    reconcile.collect(first, grace_seconds=0)
    settings = {**place, "database_url": second.settings.database_url, "broker_url": "memory://", "secret_key": SECRET}
    environment = {f"BOOTLORA_{name.upper()}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "shared.admin", "adopt-store"]
    done = subprocess.run(command, env={**os.environ, **environment}, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert place["storage_url"] in done.stdout
    assert ownership.check(second)
