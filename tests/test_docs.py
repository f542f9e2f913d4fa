"""What the documents say must be there, and what is there must be said."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from shared import catalog, events
from shared.settings import Settings

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("name", [field.name for field in fields(Settings)])
def test_every_setting_is_in_the_readme(name: str) -> None:
    assert f"| `BOOTLORA_{name.upper()}` |" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("type_", list(events.TYPES))
def test_every_event_is_in_the_page_on_webhooks(type_: str) -> None:
    assert f"`{type_}`" in (ROOT / "docs" / "webhooks.md").read_text()


def test_every_test_and_file_that_the_page_on_reliability_names_is_there() -> None:
    named = re.findall(r"`(test_\w+|tests/[\w/]+(?:\.py)?/?)`", (ROOT / "docs" / "reliability.md").read_text())
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert named
    assert [name for name in named if not ((ROOT / name).exists() or f"def {name}(" in tests)] == []


@pytest.mark.parametrize("code", [*catalog.SCORERS.values(), *(kind.code for kind in catalog.JOB_KINDS.values()),
                                  *(family.code for family in catalog.FAMILIES.values())])  # fmt: skip
def test_every_path_of_the_catalog_leads_somewhere(code: str) -> None:
    assert callable(catalog.resolve(code))


@pytest.mark.parametrize("package", ["torchvision", "cv2", "timm", "httpx"])
def test_what_would_replace_our_torch_is_not_installed(package: str) -> None:
    import importlib.util

    assert importlib.util.find_spec(package) is None
