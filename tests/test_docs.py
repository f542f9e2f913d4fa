"""The documents and the code agree."""

import re
from dataclasses import MISSING, Field, fields
from enum import StrEnum
from itertools import pairwise, product
from pathlib import Path

import pytest

from shared import catalog, events, lifecycle
from shared.catalog.kinds import KINDS
from shared.settings import Settings

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("setting", fields(Settings), ids=lambda setting: setting.name)
def test_every_setting_is_in_the_readme_with_its_default(setting: Field[object]) -> None:
    row = f"| `BOOTLORA_{setting.name.upper()}` | {shown(setting.default)} |"
    is_listed = row in (ROOT / "README.md").read_text()
    assert is_listed, f"add to the table of settings in README.md, with the meaning: {row}"


def shown(default: object) -> str:
    if default is MISSING:
        return "**required**"
    if default == Settings.scratch_dir:
        return "`bootlora` in the system's temporary folder"
    if default in (None, "", ()):
        return ""
    words = ", ".join(map(str, default)) if isinstance(default, tuple) else str(default)
    return f"`{words.lower() if isinstance(default, bool) else words}`"


@pytest.mark.parametrize("type_", list(events.TYPES))
def test_every_event_is_in_the_page_on_webhooks(type_: str) -> None:
    is_listed = f"`{type_}`" in (ROOT / "docs" / "webhooks.md").read_text()
    assert is_listed, f"add a row for {type_} to the table in docs/webhooks.md"


@pytest.mark.parametrize(
    ("name", "moves"),
    [("project", lifecycle.PROJECT_MOVES), ("round", lifecycle.ROUND_MOVES), ("job", lifecycle.JOB_MOVES)],
)
def test_the_page_on_architecture_shows_every_move(name: str, moves: dict[StrEnum, set[StrEnum]]) -> None:
    states = (ROOT / "docs" / "architecture.md").read_text().partition("## States")[2].partition("## ")[0]
    (part,) = re.findall(rf"(?ms)^{name}: (.*?)^(?:\w|`)", states)
    shown = set()
    for chain in re.split(r"\s{2,}", part):
        stages = [re.findall(r"\w+", stage) for stage in re.split("─[^─►]*─?►", chain)]
        shown |= {move for before, after in pairwise(stages) for move in product(before, after)}
    assert shown == {(before, after) for before, afters in moves.items() for after in afters}


def test_every_test_and_file_that_the_page_on_reliability_names_is_there() -> None:
    named = re.findall(r"`(test_\w+|tests/[\w/]+(?:\.py)?/?)`", (ROOT / "docs" / "reliability.md").read_text())
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert named
    assert [name for name in named if not ((ROOT / name).exists() or f"def {name}(" in tests)] == []


CODE = [
    *catalog.SCORERS.values(),
    *(family.code for family in catalog.FAMILIES.values()),
    *(code for kind in KINDS.values() for code in (kind.handler, kind.taken_by)),
]


@pytest.mark.parametrize("code", CODE)
def test_every_path_of_the_catalog_leads_somewhere(code: str) -> None:
    assert callable(catalog.resolve(code))
