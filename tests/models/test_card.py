"""The model card is correct."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.diffusion.tiny import ROOT


@pytest.mark.slow
def test_the_example_draws_as_it_stands(monkeypatch):
    card = (ROOT / "models/chibi/base/README.md").read_text()
    found = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert found
    monkeypatch.chdir(ROOT)
    names: dict[str, Any] = {}
    exec(found[1].replace("\npipeline(", "\nimage = pipeline("), names)
    assert names["image"].size == (128, 128)
    assert len(names["image"].getcolors(128 * 128)) > 100
