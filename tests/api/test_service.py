"""Base models, limits, health, readiness and metrics."""

import re
import shutil
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import text, update

from api import readiness
from api.routes import docs
from embedded.stack import ROOT
from shared import inventory
from shared.admin import upgrade
from shared.catalog import BASE_MODELS, BaseModel
from shared.models import Worker
from shared.outside.db import Database, clock, utcnow
from shared.outside.storage import FolderStorage
from shared.queue import jobs
from shared.settings import Settings
from tests.factories import make_job, make_project
from tests.waiting import eventually


def test_a_caller_sees_who_they_are(ada):
    answer = ada.get("/v1/me")
    assert answer.status_code == 200
    assert answer.json["user"]["name"] == "ada"
    assert "admin" not in answer.json["scopes"]
    assert answer.json["usage"]["projects"] == 0


def test_base_models_and_limits_are_shown(ada):
    assert [each["name"] for each in ada.get("/v1/base-models").json["items"]] == ["chibi"]
    assert ada.get("/v1/limits").json["max_upload_bytes"] == 20_000_000


def test_the_base_models_of_workers_are_shown_with_what_is_wrong_with_them(ada, session_of):
    bad = BaseModel(name="broken", family="", path="/secret", resolution=0, problem="the file is truncated")
    large = replace(BASE_MODELS["chibi"], name="large", path="/secret", size_bytes=7, sha256="a" * 64, notes=("x",))
    with session_of() as session:
        jobs.check_in(session, "gpu@one", "gpu", 1)
        inventory.report(session, "gpu@one", {"broken": bad, "large": large})
    answer = ada.get("/v1/base-models")
    assert "/secret" not in answer.text
    shown = {each["name"]: each for each in answer.json["items"]}
    assert shown["broken"] | {"problem": "the file is truncated", "available": False} == shown["broken"]
    said = {"problem": None, "available": True, "size_bytes": 7, "sha256": "a" * 64, "notes": ["x"]}
    assert shown["large"] | said | {"commercial_use": "yes", "hosting": "yes"} == shown["large"]
    assert shown["chibi"]["available"] is False  # this worker has not reported it


@pytest.mark.parametrize("what", ["start", "start?dry_run=true", "retry", "generations"])
def test_what_needs_a_bad_base_model_is_refused_with_the_reason(ada, session_of, what):
    bad = BaseModel(name="mine", family="", path="/x", resolution=0, problem="the file is truncated; copy it again")
    with session_of() as session:
        project = make_project(session, ada.user_id)
        project.base_model = "mine"
        inventory.report(session, "gpu@one", {"mine": bad})
    body = {"pictures": [{"prompt": "1girl"}]} if what == "generations" else None
    answer = ada.post(f"/v1/projects/{project.id}/{what}", body)
    assert (answer.status_code, answer.json["code"]) == (422, "base_model_unusable")
    assert "the file is truncated; copy it again" in answer.json["detail"]


def test_a_project_whose_base_model_is_bad_can_be_renamed_and_given_another(ada, session_of):
    with session_of() as session:
        project = make_project(session, ada.user_id)
        project.base_model = "mine"
        inventory.report(session, "gpu@one", {"mine": replace(BASE_MODELS["chibi"], name="mine", problem="bad")})
    path = f"/v1/projects/{project.id}"
    assert ada.patch(path, {"metadata": {"a": "b"}}).status_code == 200
    assert ada.patch(path, {"trigger_word": "x21"}).json["code"] == "base_model_unusable"
    assert ada.patch(path, {"base_model": "chibi"}).json["base_model"] == "chibi"


def test_a_job_that_waits_for_its_base_model_says_so(ada, session_of):
    with session_of() as session:
        inputs = {"base_model": "x", "pictures": [], "loras": []}
        job = make_job(session, make_project(session, ada.user_id), inputs=inputs)
        jobs.check_in(session, "gpu@one", "gpu", 1)
        inventory.report(session, "gpu@one", {"chibi": BASE_MODELS["chibi"]})
    shown = ada.get(f"/v1/jobs/{job.id}").json
    assert "has the base model 'x'" in shown["waits_for"]
    assert shown["seconds_to_start"] is None
    with session_of() as session:
        inventory.report(session, "gpu@one", {"x": replace(BASE_MODELS["chibi"], name="x")})
    eventually(lambda: ada.get(f"/v1/jobs/{job.id}").json["waits_for"] is None)


def test_every_limit_that_a_client_can_meet_is_shown(ada):
    ours = {"max_lost_attempts", "max_worker_bytes"}
    names = {name for name in Settings.__dataclass_fields__ if name.startswith(("max_", "min_"))} - ours
    names |= {"requests_per_minute", "submits_per_minute", "download_seconds"}
    assert set(ada.get("/v1/limits").json) == names


def test_without_a_key_there_is_no_answer(app):
    answer = app.test_client().get("/v1/me")
    assert answer.status_code == 401
    assert answer.json["code"] == "no_api_key"
    assert answer.content_type == "application/problem+json"
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_health_needs_no_key(app):
    client = app.test_client()
    assert client.get("/healthz").json == {"status": "ok"}
    assert client.get("/readyz").json["status"] == "ok"


def test_metrics_count_waiting_jobs(app, ada, session_of):
    with session_of() as session:
        make_job(session, make_project(session, ada.user_id))
    ada.get("/v1/projects")
    text = app.test_client().get("/metrics").text
    assert 'bootlora_jobs{queue="gpu",state="queued"} 1.0' in text
    assert 'bootlora_projects{state="draft"} 1.0' in text
    assert 'bootlora_http_requests_total{method="GET",route="/v1/projects",status="200"}' in text
    assert "bootlora_webhook_backlog 0.0" in text


def test_metrics_count_live_workers_and_the_jobs_that_they_can_do(app, ada, session_of):
    with session_of() as session:
        jobs.check_in(session, "cpu@one", "cpu", 1)
        jobs.check_in(session, "cpu@two", "cpu", 1)
        jobs.check_in(session, "io@one", "io", 0)
        jobs.check_in(session, "gpu@one", "gpu", 1)
        session.execute(update(Worker).where(Worker.name == "gpu@one").values(seen_at=clock(-3600)))
    lines = app.test_client().get("/metrics").text.splitlines()
    assert [line for line in lines if line.startswith(("bootlora_workers{", "bootlora_worker_slots{"))] == [
        'bootlora_workers{queue="cpu"} 2.0',
        'bootlora_workers{queue="io"} 1.0',
        'bootlora_worker_slots{queue="cpu"} 2.0',
        'bootlora_worker_slots{queue="io"} 0.0',
    ]


def test_metrics_count_jobs_that_lost_a_worker_lately(app, ada, session_of):
    with session_of() as session:
        project = make_project(session, ada.user_id)
        long_ago = utcnow() - timedelta(hours=2)
        lost = {"code": "worker_lost", "message": "", "retryable": True}
        make_job(session, project, lost_attempts=1)
        make_job(session, project, lost_attempts=1, queued_at=long_ago)
        make_job(session, project, lost_attempts=1, queued_at=long_ago, finished_at=utcnow())
        make_job(session, project, lost_attempts=3, queued_at=long_ago, finished_at=utcnow(), error=lost)
        make_job(session, project)
    assert "bootlora_jobs_lost 2.0" in app.test_client().get("/metrics").text


def test_metrics_show_which_part_is_down(app, runtime, monkeypatch):
    monkeypatch.setattr(runtime, "storage", FolderStorage(runtime.storage.folder / "nowhere"))
    monkeypatch.setattr(runtime, "db", Database("sqlite:////nowhere/bootlora.db"))
    text = app.test_client().get("/metrics").text
    assert 'bootlora_ready{part="database"} 0.0' in text
    assert 'bootlora_ready{part="broker"} 1.0' in text
    assert 'bootlora_ready{part="store"} 0.0' in text


def test_readiness_shows_which_part_is_down(app, runtime, monkeypatch):
    monkeypatch.setattr(runtime, "storage", FolderStorage(runtime.storage.folder / "nowhere"))
    answer = app.test_client().get("/readyz")
    assert answer.status_code == 503
    assert answer.json == {"database": "ok", "broker": "ok", "store": "unavailable", "status": "unavailable"}


def test_readiness_says_that_a_file_can_only_be_read(app, runtime, monkeypatch):
    file = runtime.db.engine.url.database
    with runtime.db.transaction() as session:
        session.execute(text("SELECT 1"))
    read_only = Database(f"sqlite:///file:{file}?mode=ro&uri=true")
    monkeypatch.setattr(runtime, "db", read_only)
    with read_only.reading() as session:
        assert session.execute(text("SELECT count(*) FROM users")).scalar() == 0
    assert app.test_client().get("/readyz").json["database"] == "unavailable"


@pytest.mark.servers
def test_readiness_says_that_a_server_can_only_be_read(app, runtime, monkeypatch, postgres_url):
    owner, name = Database(postgres_url), postgres_url.partition("?")[0].rpartition("/")[2]
    monkeypatch.setattr(runtime, "db", Database(postgres_url))
    assert app.test_client().get("/readyz").json["database"] == "unavailable", "it has no tables yet"
    upgrade(postgres_url)
    assert app.test_client().get("/readyz").json["database"] == "ok"
    runtime.db.dispose()
    with owner.transaction() as session:
        session.execute(text(f"ALTER DATABASE {name} SET default_transaction_read_only = on"))
    assert app.test_client().get("/readyz").json["database"] == "unavailable"
    for database in (owner, runtime.db):
        database.dispose()


def test_a_part_that_hangs_takes_nobody_with_it(app, runtime, monkeypatch):
    hangs = threading.Event()
    monkeypatch.setattr(readiness, "CHECK_SECONDS", 0.3)
    monkeypatch.setattr(runtime.storage, "check", hangs.wait)
    try:
        answers = [app.test_client().get("/readyz").json for _ in range(8)]
    finally:
        hangs.set()
    assert {answer["store"] for answer in answers} == {"too slow"}
    assert {answer["database"] for answer in answers} == {"ok"}


def test_an_installed_service_has_its_docs(tmp_path):
    shutil.copytree(ROOT / "api", tmp_path / "api")
    for name in ("pyproject.toml", "README.md", "requirements/client.in"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    command = [sys.executable, "-m", "pip", "wheel", "-qq", "--no-deps", "--no-build-isolation", "--no-index", tmp_path]
    subprocess.run(command, cwd=tmp_path, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    there = set(zipfile.ZipFile(wheel).namelist())
    assert {f"api/docs/{file.name}" for file in docs.FOLDER.iterdir()} <= there


def test_the_docs_need_nothing_from_outside(app):
    client = app.test_client()
    page = client.get("/docs")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "unsafe" not in page.headers["Content-Security-Policy"]
    assert "http" not in page.text.replace("http-equiv", "")
    for name in re.findall(r'(?:src|href)="(docs/[^"]+)"', page.text):
        assert client.get(f"/{name}").status_code == 200, name
    assert client.get("/openapi.json").json["openapi"] == "3.1.0"
    assert client.get("/docs/index.html").status_code == 404
