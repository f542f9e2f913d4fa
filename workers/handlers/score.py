"""Choose among candidates when nobody looks."""

from __future__ import annotations

from typing import Any

from shared.catalog import SCORERS
from shared.errors import JobFailed
from shared.params import ScoreParams
from workers.paths import resolve
from workers.work import Work


def run(work: Work) -> dict[str, Any]:
    """Returns the scores of every candidate and the ids of those that are taken."""
    params, inputs = ScoreParams(**work.job.params), work.job.inputs
    if params.scorer not in SCORERS:
        raise JobFailed("unknown_scorer", f"this worker has no scorer {params.scorer!r}")
    scorer = resolve(SCORERS[params.scorer])()
    references = [work.image(each) for each in inputs["references"]]
    images = [work.image(each) for each in inputs["candidates"]]
    scores = scorer.score(references, images)
    return {"scores": scores, "accepted": []}
