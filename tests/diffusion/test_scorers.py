"""Scoring and choosing: the scorers recognise the character, and the choice follows its rules."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chibi_lab.old_world import Shot, held_out_characters, render
from shared import catalog
from shared.catalog.params import ScoreParams
from workers import pictures
from workers.scorers import plain, reader
from workers.scorers.base import Score, Scorer
from workers.scorers.choice import Candidate, choose, dhash

KENNEY = sorted((Path(__file__).resolve().parents[1] / "data/kenney").glob("femaleAdventurer_*.png"))


def pose(name: str) -> Image.Image:
    (path,) = (path for path in KENNEY if name in path.name)
    return pictures.prepare(Image.open(path), 192)


def scores_of(references: list[Image.Image], candidates: list[Image.Image]) -> list[Score]:
    return plain.score(references, candidates, [None] * len(candidates))


def recoloured(image: Image.Image) -> Image.Image:
    """Someone else in the same pose: her colours changed round."""
    return Image.merge("RGB", [image.getchannel(channel) for channel in "GBR"])


@pytest.fixture
def references() -> list[Image.Image]:
    idle = pose("idle")
    return [pictures.cut(idle, crop.box) for crop in pictures.auto(idle)]


@pytest.mark.parametrize("name", catalog.SCORERS)
class TestScorer:
    """What every scorer must do."""

    def test_every_score_is_between_0_and_1_whatever_the_picture(self, name, references):
        scorer: Scorer = catalog.resolve(catalog.SCORERS[name])
        odd = [Image.new("RGB", (64, 64), "white"), Image.new("RGBA", (5, 90), (0, 0, 0, 0)), Image.new("L", (300, 20))]
        for known in (references, odd):
            scores = scorer(known, [*odd, pose("jump")], ["front", "behind", None, "side"])
            assert len(scores) == 4
            assert all(0 <= number <= 1 for score in scores for number in (score.identity, score.shows_view))
            assert all(math.isfinite(detail) for score in scores for detail in score.details.values())

    def test_it_scores_no_candidates_but_needs_references(self, name, references):
        scorer: Scorer = catalog.resolve(catalog.SCORERS[name])
        assert scorer(references, [], []) == []
        with pytest.raises(ValueError, match="no references"):
            scorer([], references, [None] * len(references))


def test_she_is_told_from_others_in_any_pose(references):
    hers = [pose("jump"), pose("walk0"), pose("climb0")]
    others = [recoloured(image) for image in [pose("idle"), *hers]]
    scores = [score.identity for score in scores_of(references, hers + others)]
    assert min(scores[:3]) > 1.5 * max(scores[3:])
    assert all(0 <= score <= 1 for score in scores)


def test_her_own_picture_scores_highest(references):
    (score,) = scores_of(references, references[:1])
    assert score.identity == 1.0


def test_the_background_doesn_t_count(references):
    (path,) = (path for path in KENNEY if "jump" in path.name)
    on_green = pictures.upscale(pictures.flatten(Image.open(path), (40, 160, 90)), 192)
    theirs, hers = scores_of(references, [recoloured(pose("jump")), on_green])
    assert hers.identity > 2 * theirs.identity


def test_one_reference_is_enough(references):
    assert scores_of(references[:1], [pose("walk0")])[0].identity > 0.3


def test_near_duplicates_share_most_bits():
    image = pose("idle")
    noisy = np.asarray(image).astype(int) + np.random.default_rng(0).integers(-6, 7, (image.height, image.width, 3))
    noisy = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    assert (dhash(image) ^ dhash(noisy.resize((64, 85)))).bit_count() <= 8
    assert (dhash(image) ^ dhash(pose("jump"))).bit_count() > 8


# reading


def test_the_reader_knows_her_and_her_views():
    girl, other = held_out_characters(2)
    shown = Image.fromarray(render(girl, Shot(), 512))
    crops = [pictures.cut(shown, crop.box) for crop in pictures.auto(shown, view="front")]
    views = ["front", "side", "behind"]
    hers, others = ([Image.fromarray(render(each, Shot(view=view), 128)) for view in views] for each in (girl, other))
    scores = reader.score(crops, hers + others, views * 2)
    assert min(score.identity for score in scores[:3]) > 2 * max(score.identity for score in scores[3:])
    assert min(score.shows_view for score in scores) > 0.5
    (front,) = reader.score(crops, hers[:1], ["behind"])
    assert front.shows_view < 0.1


# choosing


def scored(*identities: float) -> list[Score]:
    return [Score(identity) for identity in identities]


def asked(*views: str, same: int | None = None) -> list[Candidate]:
    """Candidates with hashes far apart, unless they are the `same`."""
    rng = np.random.default_rng(0)
    return [Candidate(view, hash=int(rng.integers(0, 2**63)) if same is None else same) for view in views]


def test_the_best_of_each_view_are_taken():
    candidates = asked("front", "front", "front", "behind", "behind")
    scores = scored(0.9, 0.5, 0.7, 0.2, 0.3)
    assert choose(candidates, scores, {"front": 2, "behind": 1}, ScoreParams()) == [0, 2, 4]


def test_a_bad_candidate_is_never_taken():
    candidates = asked("front", "front", "front")
    assert choose(candidates, scored(0.9, 0.1, 0.05), {"front": 3}, ScoreParams(min_score=0.2)) == [0]


def test_a_view_that_is_bad_as_a_whole_is_left_out():
    candidates = asked("front", "behind", "behind")
    params = ScoreParams(min_view_score=0.4)
    assert choose(candidates, scored(0.9, 0.5, 0.1), {"front": 1, "behind": 2}, params) == [0]


def test_a_view_that_was_not_asked_for_is_worth_nothing():
    candidates = asked("behind", "behind")
    scores = [Score(0.9, shows_view=0.1), Score(0.6, shows_view=0.9)]
    assert choose(candidates, scores, {"behind": 2}, ScoreParams(min_score=0.2)) == [1]


def test_near_duplicates_are_taken_once():
    candidates = asked("front", "front", "front", same=42)
    assert choose(candidates, scored(0.5, 0.9, 0.7), {"front": 3}, ScoreParams()) == [1]
    assert choose(candidates, scored(0.5, 0.9, 0.7), {"front": 3}, ScoreParams(), taken=[43]) == []


def test_framings_take_turns():
    framings = ["full_body", "full_body", "full_body", "portrait"]
    candidates = [Candidate("front", framing, hash=5**n * 10**15) for n, framing in enumerate(framings)]
    assert choose(candidates, scored(0.9, 0.8, 0.7, 0.3), {"front": 2}, ScoreParams()) == [0, 3]


def test_views_without_a_quota_are_not_taken():
    assert choose([Candidate("side")], scored(0.9), {"front": 1}, ScoreParams()) == []
