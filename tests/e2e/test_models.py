"""A base model is dropped into the folder of a running service, and is used without a restart."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bootlora import Bootlora
from bootlora.http import ApiError
from embedded.stack import ROOT, Stack
from embedded.supervisor import Program
from shared.models import Job
from shared.outside.db import Database
from shared.queue import jobs
from tests.diffusion import tiny
from tests.waiting import eventually

pytestmark = [pytest.mark.servers, pytest.mark.slow]

SIDECAR = f'family = "sd15"\nresolution = {tiny.RESOLUTION}\nlicense = "MIT"\n'
DRAWING = {"inference_steps": 2, "batch_size": 1, "negative_prompt": ""}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("stack"), settings={"BOOTLORA_MODELS_DIR": str(models)}) as stack:
        yield stack


def test_a_model_that_is_dropped_into_the_folder_draws_and_a_bad_one_says_why(
    stack: Stack, bootlora: Bootlora, models: Path, tmp_path: Path
) -> None:
    assert [each["name"] for each in bootlora.base_models()] == ["chibi"]
    (models / "page.safetensors").write_text("<!DOCTYPE html><title>Log in</title>")
    tiny.make_base_model(tmp_path / "mine")
    (models / "mine.toml").write_text(SIDECAR)
    shutil.move(tmp_path / "mine", models / "mine")

    mine = eventually(lambda: named(bootlora, "mine", sha256=True), 60)
    assert (mine["family"], mine["resolution"], mine["prediction_type"]) == ("sd15", tiny.RESOLUTION, "epsilon")
    assert (mine["problem"], mine["available"], mine["commercial_use"]) == (None, True, "yes")
    page = named(bootlora, "page")
    assert page is not None
    assert (page["available"], "web page" in page["problem"]) == (False, True)

    given: dict[str, Any] = {"name": "fox", "trigger_word": "eiei21girl", "feature_tags": ["fox ears"]}
    with pytest.raises(ApiError, match="web page") as refused:
        bootlora.projects.create(**given, base_model="page")
    assert refused.value.code == "base_model_unusable"

    project = bootlora.projects.create(**given, base_model="mine")
    job = bootlora.projects.generate(project["id"], [{"prompt": "eiei21girl, 1girl"}], params=DRAWING)
    assert bootlora.jobs.wait(job["id"], 120)["state"] == "succeeded"

    shown = subprocess.run(
        [sys.executable, "-m", "shared.admin", "models"],
        env=os.environ | stack.environment, cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert f"mine  sd15  epsilon  {tiny.RESOLUTION} px" in shown
    assert mine["sha256"] in shown
    assert "page  can't be used: this is a web page" in shown

    shutil.rmtree(models / "mine")
    (models / "mine.toml").unlink()
    eventually(lambda: named(bootlora, "mine") is None, 60)
    with pytest.raises(ApiError) as unknown:
        bootlora.projects.generate(project["id"], [{"prompt": "eiei21girl, 1girl"}], params=DRAWING)
    assert unknown.value.code == "unknown_base_model"


def test_a_job_goes_only_to_the_worker_that_has_its_base_model(
    stack: Stack, bootlora: Bootlora, models: Path, tmp_path: Path
) -> None:
    tiny.make_base_model(tmp_path / "far")
    (tmp_path / "far.toml").write_text(SIDECAR)
    stack.supervisor.start(second_worker(stack, tmp_path))
    assert eventually(lambda: named(bootlora, "far"), 60)["available"]
    project = bootlora.projects.create(
        name="fox", trigger_word="eiei21girl", feature_tags=["fox ears"], base_model="far"
    )
    pictures: Any = [{"prompt": "eiei21girl, 1girl"}]
    made = [bootlora.projects.generate(project["id"], pictures, params=DRAWING)["id"] for _ in range(4)]
    ended = [bootlora.jobs.wait(job_id, 120) for job_id in made]
    assert [(job["state"], job["attempt"]) for job in ended] == [("succeeded", 1)] * 4
    database = Database(stack.database_url)
    with database.reading() as session:
        workers = {session.get_one(Job, job_id).worker for job_id in made}
    database.dispose()
    assert workers == {f"second@{socket.gethostname()}"}

    stack.supervisor.stop("worker-second")
    waiting = bootlora.projects.generate(project["id"], pictures, params=DRAWING)
    assert eventually(lambda: "base model 'far'" in (bootlora.jobs.get(waiting["id"])["waits_for"] or ""), 60)
    shutil.move(tmp_path / "far", models / "far")
    (tmp_path / "far.toml").rename(models / "far.toml")
    assert bootlora.jobs.wait(waiting["id"], 120)["state"] == "succeeded"


def second_worker(stack: Stack, folder: Path) -> Program:
    """Another worker-gpu, with a folder of its own."""
    command = [
        *(sys.executable, "-m", "celery", "-A", "workers.tasks", "worker", "-Q", "gpu", "-c", "1", "-P", "prefork"),
        *("-n", "second@%h", "--without-gossip", "--without-mingle"),
    ]

    def has_checked_in() -> bool:
        database = Database(stack.database_url)
        with database.reading() as session:
            found = jobs.is_alive(session, f"second@{socket.gethostname()}", 30)
        database.dispose()
        return found

    environment = {**stack.environment, "BOOTLORA_MODELS_DIR": str(folder), "OMP_NUM_THREADS": "1"}
    return Program(name="worker-second", command=command, environment=environment, is_ready=has_checked_in, folder=ROOT)


def named(bootlora: Bootlora, name: str, *, sha256: bool = False) -> dict[str, Any] | None:
    """A base model of the service; with `sha256`, once its hash has been computed."""
    found = [each for each in bootlora.base_models() if each["name"] == name and (each["sha256"] or not sha256)]
    return found[0] if found else None
