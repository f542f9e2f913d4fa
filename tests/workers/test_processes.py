"""The three types of worker: what each process imports, and how each starts and ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from embedded.stack import ROOT
from shared.admin import main as admin
from shared.queue import jobs
from shared.runtime import Runtime
from tests.domain import make_runtime
from workers.io import Keeper

pytestmark = pytest.mark.slow

TORCH = {"torch", "diffusers", "transformers", "peft", "accelerate", "onnxruntime"}
NO_ONE_LISTENS = "redis://127.0.0.1:1/0"


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    runtime = make_runtime(tmp_path)
    yield runtime
    runtime.close()


@pytest.fixture
def environment(runtime: Runtime) -> dict[str, str]:
    return os.environ | {
        "BOOTLORA_DATABASE_URL": runtime.settings.database_url,
        "BOOTLORA_BROKER_URL": NO_ONE_LISTENS,
        "BOOTLORA_STORAGE_URL": runtime.settings.storage_url,
        "BOOTLORA_SECRET_KEY": runtime.settings.secret_key,
        "BOOTLORA_SCRATCH_DIR": str(runtime.settings.scratch_dir),
    }


@pytest.mark.parametrize(
    ("module", "heavy"), [("workers.io", {*TORCH, "PIL.Image", "numpy", "safetensors"}), ("workers.tasks", TORCH)]
)
def test_a_worker_s_process_starts_without_torch(environment: dict[str, str], module: str, heavy: set[str]) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert module in loaded
    assert loaded & heavy == set()


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel which libraries a process has loaded")
def test_worker_io_checks_in_without_slots_loads_no_torch_and_checks_out_at_sigterm(
    runtime: Runtime, environment: dict[str, str]
) -> None:
    name = Keeper(runtime.settings).name
    process = subprocess.Popen([sys.executable, "-m", "workers.io"], cwd=ROOT, env=environment)
    try:
        while not is_alive(runtime, name):
            assert process.poll() is None
        mapped = {Path(each.path).name for each in psutil.Process(process.pid).memory_maps()}
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
    assert any(file.startswith("orjson") for file in mapped), "it shows which libraries are loaded"
    assert not any(file.startswith(("libtorch", "libonnxruntime", "_imaging")) for file in mapped)
    assert not is_alive(runtime, name)


def test_an_operator_can_ask_whether_a_worker_is_alive(runtime: Runtime, environment: dict[str, str]) -> None:
    ask: Callable[[], int] = lambda: CliRunner(env=environment).invoke(admin, ["alive", "cpu@one"]).exit_code  # noqa: E731
    assert ask() == 1
    with runtime.transaction() as session:
        jobs.check_in(session, "cpu@one", "cpu", 1)
    assert ask() == 0


def test_a_worker_with_several_children_is_refused(environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "celery", "-A", "workers.tasks", "worker", "-Q", "cpu", "-c", "2", "-n", "cpu@%h"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert "a worker runs one job at a time" in done.stderr


def is_alive(runtime: Runtime, name: str) -> bool:
    with runtime.db.reading() as session:
        return jobs.is_alive(session, name, 30)
