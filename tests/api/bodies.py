"""Request bodies for tests of the API."""

from __future__ import annotations

import io
import zipfile
from typing import Any

from tests.api.conftest import Caller
from tests.factories import png

PROJECT = {"name": "Eiei", "trigger_word": "eiei21girl", "feature_tags": ["fox ears", "yellow eyes"]}


def upload(caller: Caller, project_id: str, content: bytes | None = None, **form: str) -> Any:
    """Post a picture to a project."""
    data = {"file": (io.BytesIO(content or png()), "eiei.png"), **form}
    return caller.post(f"/v1/projects/{project_id}/images", data=data)


def zipped(entries: dict[str, bytes], **more: Any) -> bytes:
    """A zip of these files."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", **more) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return target.getvalue()
