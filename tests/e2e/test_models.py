"""A base model is dropped into the folder of a running service, and is used without a restart."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bootlora import Bootlora
from bootlora.http import ApiError
from embedded.stack import ROOT, Stack
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


def named(bootlora: Bootlora, name: str, *, sha256: bool = False) -> dict[str, Any] | None:
    """A base model of the service; with `sha256`, once its hash has been computed."""
    found = [each for each in bootlora.base_models() if each["name"] == name and (each["sha256"] or not sha256)]
    return found[0] if found else None
