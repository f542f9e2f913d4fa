"""The method in little, on the base that ships: does the trigger alone bring her back from sides that nobody has shown?

One style round and half the steps, two held-out characters whom `make bench` does not use. In the unseen views,
above the base, the method was measured at .51, the four crops alone at .15, and at .34 beside pictures of others,
which is what is left of the method when its rounds bring nothing. The bounds lie between.
"""

from __future__ import annotations

import statistics

import numpy as np
import pytest

from benchmarks.bootstrap import Method
from benchmarks.method import CharacterBench, quicker
from chibi_lab.captions import invented_name
from chibi_lab.judge import FOLDER, Judge
from chibi_lab.old_world import held_out_characters
from shared import catalog, plans
from workers.diffusion import families

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

UNSEEN = [view for view in catalog.VIEWS if view != "front"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    row = catalog.base_models()["chibi"]
    method = Method(families.load(row), quicker(plans.resolve(None, row)), tmp_path_factory.mktemp("method"))
    rng, judge = np.random.default_rng(9), Judge.load(FOLDER)
    characters = held_out_characters(10)[8:]
    kinds = ("base", "four_crops", "method")
    return [CharacterBench(character, invented_name(rng), method, judge).measure(kinds) for character in characters]


def share(measured, kind: str, views=UNSEEN) -> float:
    """Of her attributes, on average."""
    return statistics.mean(each[kind].mean(views) for each in measured)


def test_the_trigger_alone_brings_her_back_from_sides_that_nobody_has_shown(measured):
    chance = share(measured, "base")
    learned, copied = share(measured, "method") - chance, share(measured, "four_crops") - chance
    assert learned > 0.45
    assert learned > copied + 0.2


def test_without_the_trigger_she_stays_away(measured):
    assert share(measured, "method_untriggered") < share(measured, "method") - 0.3
