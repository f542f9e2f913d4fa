"""A runtime with nothing behind it: enough to build the routes and write the spec."""

from __future__ import annotations

from pathlib import Path

from shared import catalog
from shared.outside.db import Database
from shared.outside.secrets import Vault
from shared.outside.storage import FolderStorage
from shared.runtime import Runtime
from shared.settings import Settings


class _Silent:
    def send(self, queue: str, job_id: str, attempt: int) -> None:
        raise NotImplementedError

    def ping(self) -> None:
        raise NotImplementedError


def blank_runtime() -> Runtime:
    settings = Settings(
        database_url="sqlite:////nowhere/bootlora.db",
        broker_url="memory://",
        storage_url="file:///nowhere",
        secret_key="-" * 32,
    )
    return Runtime(
        settings=settings,
        db=Database(settings.database_url),
        storage=FolderStorage(Path("/nowhere")),
        broker=_Silent(),
        vault=Vault(settings.secret_key),
        base_models=catalog.base_models(),
    )
