"""What workers report of their base models, and which jobs each of them gets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import update

from shared import admin, inventory, retention
from shared.catalog import BASE_MODELS, BaseModel
from shared.models import Job, Project, Worker, WorkerModel
from shared.outside.db import clock
from shared.queue import jobs
from shared.runtime import Runtime
from shared.settings import Settings
from tests.domain import RecordingBroker, claim, make_job, make_project, make_runtime, make_user
from tests.waiting import eventually

CHIBI = BASE_MODELS["chibi"]
BROKEN = BaseModel(name="broken", family="", path="/x", resolution=0, problem="the file is truncated")


def other(name: str = "other", **over: Any) -> BaseModel:
    return replace(CHIBI, name=name, path="/secret/place", size_bytes=5, sha256="a" * 64, notes=("a note",), **over)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.servers)])
def runtime(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runtime]:
    url = request.getfixturevalue("postgres").make_database() if request.param == "postgres" else None
    runtime = make_runtime(tmp_path, url)
    yield runtime
    runtime.close()


@pytest.fixture
def project(runtime: Runtime) -> Project:
    with runtime.transaction() as session:
        return make_project(session, make_user(session, max_running_jobs=100))


def check_in(runtime: Runtime, worker: str, *models: BaseModel) -> None:
    with runtime.transaction() as session:
        jobs.check_in(session, worker, "gpu", 1)
        inventory.report(session, worker, {model.name: model for model in models})


def known(runtime: Runtime) -> dict[str, BaseModel]:
    with runtime.db.reading() as session:
        return inventory.known(session, runtime.settings)


def at_hand(runtime: Runtime) -> set[str] | None:
    with runtime.db.reading() as session:
        return inventory.at_hand(session, runtime.settings)


def make_silent(runtime: Runtime, worker: str) -> None:
    with runtime.transaction() as session:
        session.execute(update(Worker).where(Worker.name == worker).values(seen_at=clock(-3600)))


def needing(runtime: Runtime, project: Project, base_model: str) -> Job:
    """A waiting job that draws with a base model."""
    with runtime.transaction() as session:
        job = make_job(session, project)
        job.inputs = job.inputs | {"base_model": base_model}
        return job


def sent(runtime: Runtime) -> list[str]:
    runtime.dispatch()
    assert isinstance(runtime.broker, RecordingBroker)
    return [job_id for _, job_id, _ in runtime.broker.sent]


def lack_of(runtime: Runtime, job: Job) -> str | None:
    with runtime.db.reading() as session:
        return inventory.lack(session, session.get_one(Job, job.id), runtime.settings)


# --- what is known


def test_what_ships_is_known_without_any_worker(runtime: Runtime) -> None:
    assert list(known(runtime)) == ["chibi"]


def test_the_union_of_what_workers_have_is_known_without_their_places(runtime: Runtime) -> None:
    check_in(runtime, "gpu@one", CHIBI, other("a"))
    check_in(runtime, "gpu@two", CHIBI, other("b"), BROKEN)
    models = known(runtime)
    assert list(models) == ["chibi", "a", "b", "broken"]
    assert models["a"] == replace(other("a"), path="")
    assert models["broken"].problem == "the file is truncated"
    assert at_hand(runtime) == {"chibi", "a", "b"}


def test_a_report_takes_the_place_of_the_one_before(runtime: Runtime) -> None:
    check_in(runtime, "gpu@one", other("a"), other("b"))
    check_in(runtime, "gpu@one", other("a", resolution=256), other("c"))
    models = known(runtime)
    assert list(models) == ["chibi", "a", "c"]
    assert models["a"].resolution == 256


def test_a_report_without_news_writes_nothing(runtime: Runtime) -> None:
    check_in(runtime, "gpu@one", other("a"))

    def reported_at() -> Any:
        with runtime.db.reading() as session:
            return session.get_one(WorkerModel, ("gpu@one", "a")).reported_at

    before = reported_at()
    check_in(runtime, "gpu@one", other("a"))
    assert reported_at() == before
    check_in(runtime, "gpu@one", other("a", resolution=256))
    assert reported_at() > before


def test_what_a_worker_had_is_remembered_but_not_at_hand(runtime: Runtime) -> None:
    check_in(runtime, "gpu@one", CHIBI, other())
    check_in(runtime, "gpu@two", CHIBI)
    make_silent(runtime, "gpu@one")
    assert "other" in known(runtime)
    assert at_hand(runtime) == {"chibi"}
    with runtime.transaction() as session:
        jobs.check_out(session, "gpu@one")
    assert "other" in known(runtime)


def test_live_workers_count_before_those_that_have_gone(runtime: Runtime) -> None:
    check_in(runtime, "gpu@one", other(resolution=64))
    check_in(runtime, "gpu@two", other(resolution=256))
    make_silent(runtime, "gpu@one")
    assert known(runtime)["other"].resolution == 256


def test_two_files_of_one_name_on_two_workers_are_refused(runtime: Runtime) -> None:
    check_in(runtime, "gpu@one", other())
    check_in(runtime, "gpu@two", replace(other(), sha256="b" * 64))
    assert "different files of this name" in known(runtime)["other"].problem
    check_in(runtime, "gpu@two", replace(other(), sha256=""))  # not computed yet
    assert known(runtime)["other"].problem == ""


def test_a_copy_that_is_damaged_on_one_worker_is_noted(runtime: Runtime) -> None:
    check_in(runtime, "gpu@one", replace(BROKEN, name="other"))
    check_in(runtime, "gpu@two", other())
    found = known(runtime)["other"]
    assert (found.problem, found.notes) == ("", ("a note", "another worker can't use its copy: the file is truncated"))


def test_users_learn_no_worker_s_host_and_the_operator_does(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    check_in(runtime, "gpu@host-1", replace(BROKEN, name="half"), other(), other("lost"))
    check_in(runtime, "gpu@host-2", other("half"), replace(other(), sha256="b" * 64))
    assert not [model for model in known(runtime).values() if "host-" in f"{model.problem} {model.notes}"]
    monkeypatch.setattr(Settings, "from_env", lambda: runtime.settings)
    shown = CliRunner().invoke(admin.main, ["models"], catch_exceptions=False).output
    assert "    gpu@host-1: can't be used: the file is truncated" in shown
    assert f"    gpu@host-2: sha256 {'b' * 64}" in shown


def test_what_has_long_gone_is_forgotten(runtime: Runtime) -> None:
    check_in(runtime, "gpu@one", other("a"))
    check_in(runtime, "gpu@two", other("b"))
    with runtime.transaction() as session:
        jobs.check_out(session, "gpu@one")
        session.execute(update(WorkerModel).values(reported_at=clock(-8 * 86_400)))
    with runtime.transaction() as session:
        assert retention.forget(session, runtime.settings) == 1
    assert list(known(runtime)) == ["chibi", "b"]  # gpu@two is there, and has nothing new to report


# --- who gets which job


def test_a_job_waits_for_a_worker_that_has_its_base_model_and_says_so(runtime: Runtime, project: Project) -> None:
    check_in(runtime, "gpu@one", CHIBI)
    job = needing(runtime, project, "other")
    assert sent(runtime) == []
    assert "no worker that is alive has the base model 'other'" in (lack_of(runtime, job) or "")
    check_in(runtime, "gpu@one", CHIBI, other())
    assert sent(runtime) == [job.id]
    eventually(lambda: lack_of(runtime, job) is None)


def test_a_job_whose_base_model_is_bad_waits_and_says_the_reason(runtime: Runtime, project: Project) -> None:
    check_in(runtime, "gpu@one", CHIBI, BROKEN)
    job = needing(runtime, project, "broken")
    assert sent(runtime) == []
    assert lack_of(runtime, job) == "the base model 'broken' can't be used: the file is truncated"


def test_a_job_that_waits_for_a_base_model_holds_up_no_other(runtime: Runtime, project: Project) -> None:
    check_in(runtime, "gpu@one", CHIBI)
    needing(runtime, project, "other")
    later = needing(runtime, project, "chibi")
    assert sent(runtime) == [later.id]


def test_only_as_many_jobs_are_sent_as_workers_with_their_base_model_are_free(
    runtime: Runtime, project: Project
) -> None:
    check_in(runtime, "gpu@one", CHIBI, other())
    check_in(runtime, "gpu@two", CHIBI)
    first, _ = [needing(runtime, project, "other") for _ in range(2)]
    chibi = needing(runtime, project, "chibi")
    assert sent(runtime) == [first.id, chibi.id]


def test_a_running_job_takes_the_slot_of_its_worker(runtime: Runtime, project: Project) -> None:
    check_in(runtime, "gpu@one", CHIBI, other())
    check_in(runtime, "gpu@two", CHIBI)
    running = needing(runtime, project, "chibi")
    assert claim(runtime, running, "gpu@one") is not None
    needing(runtime, project, "other")
    chibi = needing(runtime, project, "chibi")
    assert sent(runtime) == [running.id, chibi.id]


def test_a_job_takes_the_worker_with_the_fewest_base_models(runtime: Runtime, project: Project) -> None:
    check_in(runtime, "gpu@one", CHIBI, other())
    check_in(runtime, "gpu@two", CHIBI)
    chibi = needing(runtime, project, "chibi")
    special = needing(runtime, project, "other")
    assert sent(runtime) == [chibi.id, special.id]


def test_a_worker_of_an_earlier_version_reports_none_and_may_have_any(runtime: Runtime, project: Project) -> None:
    check_in(runtime, "gpu@one", CHIBI)
    with runtime.transaction() as session:
        jobs.check_in(session, "gpu@old", "gpu", 1)
    assert at_hand(runtime) is None
    job = needing(runtime, project, "other")
    assert sent(runtime) == [job.id]
