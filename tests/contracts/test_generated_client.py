"""A client that a foreign tool makes from openapi.yaml is good for a whole project."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from embedded.stack import ROOT
from tests.factories import png
from tests.faults.service import Service

pytestmark = pytest.mark.servers

VENV = ROOT / ".venv-client"
REQUIREMENTS = ROOT / "requirements" / "generated-client.txt"
PROGRAM = Path(__file__).with_name("generated.py")


@pytest.fixture(scope="module")
def python() -> Path:
    """The Python of an environment in which the generator is, made when its pins have changed."""
    installed = VENV / "installed.txt"
    if not installed.exists() or installed.read_text() != REQUIREMENTS.read_text():
        subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True)
        pip = [VENV / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "install", "-qq", "--no-input"]
        subprocess.run([*pip, "-r", REQUIREMENTS], check=True)
        installed.write_text(REQUIREMENTS.read_text())
    return VENV / "bin" / "python"


@pytest.fixture(scope="module")
def generated(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the client is in. The generator warns where it must leave something out, and that won't do."""
    folder = tmp_path_factory.mktemp("generated")
    config = folder / "config.yaml"
    config.write_text("post_hooks: []\n")  # nobody reads it
    command = [python.with_name("openapi-python-client"), "generate", "--fail-on-warning", "--meta", "none"]
    command += ["--path", ROOT / "openapi.yaml", "--output-path", folder / "bootlora_client", "--config", config]
    subprocess.run(command, check=True)
    return folder


def test_a_generated_client_runs_a_whole_project(python: Path, generated: Path, tmp_path: Path) -> None:
    picture = tmp_path / "fox.png"
    picture.write_bytes(png(128, 128))
    with Service(tmp_path / "service") as service:
        command = [python, PROGRAM, service.url, service.api_key, picture]
        done = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": str(generated)}, capture_output=True, text=True, timeout=240
        )
    assert done.returncode == 0, done.stderr
    came_to = json.loads(done.stdout)
    assert came_to["project"]["state"] == "completed"
    assert came_to["project"]["metadata"] == {"asset": "npc-0042"}
    assert (came_to["lora"]["kind"], came_to["lora"]["trigger_word"]) == ("character", "eiei21girl")
    assert came_to["seqs"] == list(range(1, len(came_to["seqs"]) + 1))
    assert came_to["refused"] == "project_not_draft"
