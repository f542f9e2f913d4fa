"""The container set-up, checked as far as possible without running containers."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from embedded.stack import ROOT, Stack
from shared.outside import pictures
from shared.settings import Settings

TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ["api", "worker-gpu", "worker-cpu", "worker-io", "migrate", "create-bucket"]
MONITORING = ["prometheus", "grafana"]
ENVIRONMENT = dict(re.findall(r"(?m)^(\w+)=(.*)$", (ROOT / ".env.example").read_text()))
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
# Of the Compose specification: what we use. A misspelt key is none of them.
KEYS = {
    *("image", "build", "command", "environment", "restart", "init", "user", "read_only", "tmpfs", "cap_drop"),
    *("security_opt", "networks", "ports", "volumes", "depends_on", "healthcheck", "deploy", "stop_grace_period"),
    *("profiles", "env_file", "entrypoint"),
}


def variables() -> list[tuple[str, str, str]]:
    """Each `${NAME<operator>rest}` of the file."""
    return re.findall(r"(?<!\$)\$\{(\w+)(:\?|:-|)([^}]*)\}", TEXT)


def is_secret(name: str) -> bool:
    return re.search("PASSWORD|SECRET|ACCESS_KEY", name) is not None


def test_every_process_of_the_design_is_a_service() -> None:
    assert set(SERVICES) == {*OURS, *MONITORING, "postgres", "redis", "s3"}
    for name, service in SERVICES.items():
        assert set(service) <= KEYS, name


def test_no_secret_has_a_default() -> None:
    for name, operator, default in variables():
        if name == "GRAFANA_PASSWORD":
            assert default == ""
        elif is_secret(name):
            assert operator == ":?", f"{name} must be asked for"
        else:
            assert operator == ":-", f"{name} needs a default"


def test_the_example_names_all_that_is_asked_for_and_fills_in_nothing() -> None:
    assert set(ENVIRONMENT) == {name for name, _, _ in variables() if is_secret(name)}
    assert set(ENVIRONMENT.values()) == {""}


def test_the_example_names_every_variable() -> None:
    named = re.findall(r"(?m)^#?(\w+)=", (ROOT / ".env.example").read_text())
    assert {name for name, _, _ in variables()} <= set(named)


def test_the_readme_names_the_settings_that_the_file_itself_makes() -> None:
    asked = {name for name, _, _ in variables()}
    made = {name for name in COMPOSE["x-places"] if name not in asked}
    told = (ROOT / "README.md").read_text().partition("## Settings")[2].partition("<!-- settings -->")[0]
    assert made == set(re.findall(r"`(BOOTLORA_\w+)`", told)) - {"BOOTLORA_VALKEY_BINARY", "BOOTLORA_WEED_BINARY"}


def test_make_env_fills_in_fresh_secrets() -> None:
    command = ["python3", str(ROOT / "docker" / "environment.py")]
    first, second = (subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2))
    made = dict(re.findall(r"(?m)^(\w+)=(.*)$", first))
    assert set(made) == set(ENVIRONMENT)
    assert all(re.fullmatch("[0-9a-f]{48}", value) for value in made.values())
    assert len(set(made.values())) == len(made)
    assert first != second


def test_every_image_is_pinned_to_a_version() -> None:
    images = [service["image"] for service in SERVICES.values()]
    images += re.findall(r"(?m)^ARG PYTHON_IMAGE=(.*)$", "\n".join(file.read_text() for file in DOCKERFILES))
    for image in images:
        name = re.sub(r"\$\{\w+:-(.*)\}", r"\1", image)
        assert re.search(r":v?\d+\.\d+", name), f"{name} may change under us"


def test_every_setting_is_one_that_the_service_reads() -> None:
    known = {f"BOOTLORA_{name.upper()}" for name in Settings.__dataclass_fields__}
    for name in OURS:
        given = {key for key in SERVICES[name]["environment"] if key.startswith("BOOTLORA_")}
        assert given <= known, name


@pytest.mark.parametrize("name", OURS)
def test_any_setting_can_be_made_in_the_file_that_make_env_writes(name: str) -> None:
    assert SERVICES[name]["env_file"] == [{"path": ".env", "required": False}]


@pytest.mark.parametrize("name", OURS)
def test_our_containers_can_do_little(name: str) -> None:
    service = SERVICES[name]
    assert service["user"] == "10001:10001"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_only_the_api_the_store_and_the_dashboard_are_reached_from_outside() -> None:
    open_ = {"api", "s3", "grafana"}
    assert {name for name, service in SERVICES.items() if "ports" in service} == open_
    assert COMPOSE["networks"]["core"] == {"internal": True}
    assert {name for name, service in SERVICES.items() if "edge" in service["networks"]} == {*open_, "worker-io"}
    for name in open_:
        assert "127.0.0.1" in SERVICES[name]["ports"][0], "somebody else's network is for the operator to open"


def test_the_gpu_worker_reserves_a_card_and_has_time_to_lay_down_its_work() -> None:
    worker = SERVICES["worker-gpu"]
    (card,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert card == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert worker["stop_grace_period"] == "60s"


def test_a_gpu_worker_without_its_card_does_not_train_on_the_cpu() -> None:
    assert SERVICES["worker-gpu"]["environment"]["BOOTLORA_DEVICE"] == "${BOOTLORA_DEVICE:-cuda}"


def test_a_worker_has_time_to_finish_the_picture_or_the_webhook_at_hand() -> None:
    grace = {name: int(SERVICES[name]["stop_grace_period"].removesuffix("s")) for name in ("worker-cpu", "worker-io")}
    assert grace["worker-cpu"] > pictures.WALL_SECONDS
    assert grace["worker-io"] > Settings.webhook_timeout_seconds


def test_workers_run_as_in_the_embedded_stack(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    for program in (stack._gpu_worker(), stack._cpu_worker(), stack._io_worker()):
        command = shlex.split(SERVICES[program.name]["command"].removeprefix("python -m "))
        assert program.command == [sys.executable, "-m", *command]


def test_a_worker_that_takes_no_jobs_needs_no_image_with_torch() -> None:
    images = {name: SERVICES[name]["image"] for name in ("api", "worker-gpu", "worker-cpu", "worker-io")}
    assert images["worker-io"] == images["api"] != images["worker-gpu"] == images["worker-cpu"]


@pytest.mark.parametrize("name", ["gpu", "cpu", "io"])
def test_a_worker_s_health_is_its_sign_of_life(name: str) -> None:
    assert SERVICES[f"worker-{name}"]["healthcheck"]["test"][1] == f"python -m shared.admin alive {name}@$$HOSTNAME"


def test_workers_compute_with_one_thread_as_in_the_embedded_stack_and_the_gpu_worker_with_more_if_told() -> None:
    (dockerfile,) = [file.read_text() for file in DOCKERFILES if file.name.startswith("worker")]
    assert "OMP_NUM_THREADS=1" in dockerfile
    assert SERVICES["worker-cpu"]["environment"]["OMP_NUM_THREADS"] == "1"
    assert "OMP_NUM_THREADS" not in SERVICES["worker-gpu"]["environment"]  # it would hide what .env says
    assert re.search(r"(?m)^#OMP_NUM_THREADS=", (ROOT / ".env.example").read_text())


def test_the_worker_that_loads_base_models_has_their_folder_and_tells_the_others() -> None:
    mount = "${MODELS_DIR:-./base-models}:/models:ro"
    assert [name for name, service in SERVICES.items() if mount in service.get("volumes", [])] == ["worker-gpu"]
    assert SERVICES["worker-gpu"]["environment"]["BOOTLORA_MODELS_DIR"] == "/models"


def test_the_processes_of_the_api_have_a_place_to_count_together() -> None:
    assert SERVICES["api"]["environment"]["PROMETHEUS_MULTIPROC_DIR"] in SERVICES["api"]["tmpfs"]


def test_what_clients_send_to_the_api_goes_to_a_disk_and_not_to_memory() -> None:
    api = SERVICES["api"]
    folder = api["environment"]["TMPDIR"]
    assert folder not in api["tmpfs"]
    assert [volume for volume in api["volumes"] if volume.split(":")[1] == folder] == [f"spool:{folder}"]
    assert f"-o bootlora -g bootlora {folder}" in (ROOT / "docker" / "api.Dockerfile").read_text()  # it can write there


def test_monitoring_starts_only_when_it_is_asked_for() -> None:
    assert [name for name, service in SERVICES.items() if service.get("profiles") == ["monitoring"]] == MONITORING
    assert not any("profiles" in SERVICES[name] for name in SERVICES if name not in MONITORING)


@pytest.mark.parametrize(("password", "starts"), [("", False), ("x" * 48, True)])
def test_the_dashboard_does_not_start_without_a_password(tmp_path: Path, password: str, starts: bool) -> None:
    grafana, started = tmp_path / "run.sh", tmp_path / "started"
    grafana.write_text(f"#!/bin/sh\n: > {started}\n")
    grafana.chmod(0o700)
    command = [word.replace("$$", "$").replace("/run.sh", str(grafana)) for word in SERVICES["grafana"]["entrypoint"]]
    subprocess.run(command, env={"PATH": os.environ["PATH"], "GF_SECURITY_ADMIN_PASSWORD": password}, check=False)
    assert started.exists() == starts


@pytest.mark.parametrize("name", list(SERVICES))
def test_what_is_mounted_is_there(name: str) -> None:
    for mount in SERVICES[name].get("volumes", []):
        source = mount.removesuffix(":ro").rpartition(":/")[0]
        if source.startswith("./"):
            assert (ROOT / source).is_file(), source
        elif not source.startswith("${"):
            assert source in COMPOSE["volumes"]


def test_what_waits_for_a_service_can_wait_for_it() -> None:
    for service in SERVICES.values():
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other], other
            if how["condition"] == "service_completed_successfully":
                assert SERVICES[other]["restart"] != "unless-stopped", other


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.stem)
def test_images_are_made_of_what_is_there(file: Path) -> None:
    text = file.read_text()
    for source in re.findall(r"(?m)^COPY (?!--)(\S+) \S+$", text):
        assert (ROOT / source).exists(), source
    assert "USER 10001:10001" in text
    assert ("torch==2.13.0" in text) == (file.stem == "worker")


def compose_client() -> list[str] | None:
    if shutil.which("docker") and not subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else None


@pytest.mark.skipif(compose_client() is None, reason="there is no compose client here")
def test_compose_takes_the_file_and_refuses_to_start_without_secrets(tmp_path: Path) -> None:
    client = compose_client() or []
    command = [*client, "--env-file", os.devnull, "-f", str(ROOT / "docker-compose.yml"), "config", "-q"]
    clean = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    given = {name: "x" * 48 for name in ENVIRONMENT if name != "GRAFANA_PASSWORD"}
    assert subprocess.run(command, env={**clean, **given}).returncode == 0
    refused = subprocess.run(command, env=clean, capture_output=True, text=True)
    assert refused.returncode != 0
    assert "make env" in refused.stderr
