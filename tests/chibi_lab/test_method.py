"""What the bench of the method counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.method import Judgement, figures, judged, quicker, true_pictures
from chibi_lab.labels import UNKNOWN
from chibi_lab.old_world import Shot, draw
from chibi_lab.old_world.heroine import HEROINE
from chibi_lab.old_world.labels import HEADS, Record, label
from shared import catalog, plans
from shared.catalog.params import Picture

VIEWS = tuple(catalog.VIEWS)


class Seer:
    """A judge that sees the same drawing in every picture."""

    def __init__(self, character, shot: Shot):
        self.record = Record(character, shot, draw(character, shot).seen)

    def read(self, pictures: np.ndarray) -> dict[str, torch.Tensor]:
        found = {head: label(self.record, head) for head in HEADS}
        rows = {head: torch.zeros(len(pictures), len(HEADS[head])) for head in HEADS}
        for head, value in found.items():
            rows[head][:, 0 if value == UNKNOWN else value] = 1.0
        return rows


def judge_as(character, shown: str, asked: str) -> float:
    blank = Image.new("RGB", (32, 32))
    seer = Seer(character, Shot(view=shown))
    return judged(seer, HEROINE, [Picture(prompt="", seed=0, view=asked)], [blank]).views[asked]


@pytest.mark.parametrize("view", VIEWS)
def test_a_true_drawing_scores_everything(view):
    assert judge_as(HEROINE, view, view) == 1.0


def test_a_picture_of_another_view_scores_nothing():
    assert judge_as(HEROINE, "front", "behind") == 0.0


def test_wrong_attributes_cost_their_share():
    stranger = replace(HEROINE, hair="blue", outfit_color="green")
    assert 0.5 < judge_as(stranger, "front", "front") < 1.0


def judgement(front: float, others: float) -> Judgement:
    return Judgement({view: front if view == "front" else others for view in VIEWS})


def test_the_figures_of_the_bench():
    measured = {
        "method": judgement(1.0, 0.8),
        "method_untriggered": judgement(0.3, 0.3),
        "four_crops": judgement(1.0, 0.3),
        "upper_bound": judgement(1.0, 0.9),
        "base": judgement(0.2, 0.1),
        "true_renders": judgement(1.0, 0.9),
    }
    by_name = {line["name"]: line["value"] for line in figures([measured])}
    assert by_name["trigger_only_attributes"] == 0.8  # the worst view
    assert by_name["unseen_views_vs_four_crops"] == pytest.approx(0.7 / 0.2, abs=0.001)
    assert by_name["bootstrap_vs_upper_bound"] == pytest.approx(0.7 / 0.8, abs=0.001)
    assert by_name["attributes_without_trigger"] == pytest.approx(0.3)
    assert by_name["attributes_in_true_renders"] == pytest.approx(0.9)


def test_a_ratio_is_spread_as_the_ratio_is():
    others = {
        "method_untriggered": judgement(0.3, 0.3),
        "four_crops": judgement(1.0, 0.3),
        "upper_bound": judgement(1.0, 0.9),
        "base": judgement(0.2, 0.1),
        "true_renders": judgement(1.0, 0.9),
    }
    measured = [others | {"method": judgement(1.0, share)} for share in (0.7, 0.9)]
    by_name = {line["name"]: line for line in figures(measured)}
    assert by_name["unseen_views_vs_four_crops"]["spread"] == [3, 4]  # .6 and .8 above the base, over .2
    assert by_name["bootstrap_vs_upper_bound"]["spread"] == [0.75, 1]


def test_the_upper_bound_learns_from_every_view():
    known = true_pictures(HEROINE, 32, count=12)
    tags = [tag for _, its in known for tag in its]
    assert all(tags.count(tag) == 2 for tag in catalog.VIEWS.values())


def test_the_quick_form_is_the_same_plan_in_little():
    plan = plans.resolve(None, catalog.base_models()["chibi"])
    assert [each.kind for each in quicker(plan).rounds] == ["style", "character"]
