"""The whole service in one folder: it starts, restarts killed processes, stops, and starts again with the same data."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import requests
from requests import Session

from embedded.stack import ADMIN_KEY, Stack, known_secrets
from shared import users
from tests.factories import png
from tests.waiting import eventually

pytestmark = [pytest.mark.servers, pytest.mark.slow]


def is_healthy(stack: Stack) -> bool:
    return requests.get(f"{stack.url}/healthz", timeout=5).status_code == 200


def restarts(stack: Stack) -> Callable[[], dict[str, int]]:
    return lambda: {name: process.popen.pid for name, process in stack.supervisor.processes.items()}


def test_every_process_is_killed_and_comes_back(tmp_path: Path) -> None:
    with Stack(tmp_path / "data") as stack:
        assert is_healthy(stack)
        assert stack.api_key
        pids = restarts(stack)
        before = pids()
        for name in before:
            stack.kill(name)
        eventually(lambda: all(pids()[name] != before[name] for name in before))
        for name in before:
            stack.await_ready(name)
        assert is_healthy(stack)


def test_the_worker_uses_one_thread_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with Stack(tmp_path) as stack:
        assert {threads_of(stack, name) for name in ("worker-gpu", "worker-cpu")} == {"1"}
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with Stack(tmp_path) as stack:
        assert [threads_of(stack, name) for name in ("worker-gpu", "worker-cpu")] == ["3", "1"]


def threads_of(stack: Stack, name: str) -> str:
    return psutil.Process(stack.supervisor.processes[name].popen.pid).environ()["OMP_NUM_THREADS"]


def test_a_second_run_on_the_folder_has_the_same_key_and_tables(tmp_path: Path) -> None:
    with Stack(tmp_path) as stack:
        key = stack.api_key
    with Stack(tmp_path) as stack:
        assert stack.api_key == key


def test_the_printed_key_is_a_members_and_the_admins_is_in_a_private_file(tmp_path: Path) -> None:
    with Stack(tmp_path) as stack:
        member, admin = (signed_in(key) for key in (stack.api_key, (tmp_path / ADMIN_KEY).read_text().strip()))
        me = member.get(f"{stack.url}/v1/me").json()
        assert me["user"]["role"] == "member"
        assert me["scopes"] == users.scopes_of("member")
        assert member.get(f"{stack.url}/v1/users").status_code == 403
        assert admin.get(f"{stack.url}/v1/users").status_code == 200
        assert stat.S_IMODE((tmp_path / ADMIN_KEY).stat().st_mode) == 0o600
        store = stack.environment["BOOTLORA_S3_ENDPOINT"]
        refused = member.post(f"{stack.url}/v1/webhooks", json={"url": store, "event_types": []}).json()
        assert refused["code"] == "blocked_address"
    (tmp_path / ADMIN_KEY).unlink()
    with Stack(tmp_path):
        assert not (tmp_path / ADMIN_KEY).exists(), "it is written only once"


def signed_in(key: str) -> Session:
    client = Session()
    client.headers["Authorization"] = f"Bearer {key}"
    return client


def test_it_runs_on_postgres(tmp_path: Path, postgres_url: str) -> None:
    with Stack(tmp_path, database_url=postgres_url) as stack:
        assert is_healthy(stack)
        assert not (tmp_path / "bootlora.db").exists()


def test_a_file_posted_to_the_store_becomes_a_picture(tmp_path: Path) -> None:
    with Stack(tmp_path) as stack:
        client = Session()
        client.headers["Authorization"] = f"Bearer {stack.api_key}"
        given = {"name": "x", "trigger_word": "x21", "feature_tags": ["fox ears"], "base_model": "chibi"}
        uploads = client.post(f"{stack.url}/v1/projects", json=given).json()["links"]["self"] + "/uploads"
        offer = client.post(uploads, json={"content_type": "image/png", "view": "side"}).json()
        assert requests.post(offer["url"], data=offer["fields"], files={"file": png()}, timeout=10).ok
        job = client.post(offer["links"]["complete"], json={"slip": offer["slip"]}).json()
        ended = client.get(job["links"]["self"], headers={"Prefer": "wait=60"}).json()
        assert ended["state"] == "succeeded", ended["error"]
        (image,) = client.get(job["links"]["images"]).json()["items"]
        assert image["view"] == "side"
        assert requests.get(image["url"], timeout=10).content.startswith(b"\x89PNG")


def test_secrets_are_random_kept_and_private(tmp_path: Path) -> None:
    made = known_secrets(tmp_path / "secrets.json")
    assert stat.S_IMODE((tmp_path / "secrets.json").stat().st_mode) == 0o600
    assert known_secrets(tmp_path / "secrets.json") == made == json.loads((tmp_path / "secrets.json").read_text())
    assert known_secrets(tmp_path / "other.json")["secret_key"] != made["secret_key"]
    assert len(made["secret_key"]) >= 32
