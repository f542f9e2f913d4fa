"""Score candidates and choose among them automatically."""

from __future__ import annotations

from shared.catalog import SCORERS, kinds, resolve
from shared.catalog.kinds import ScoreInputs, ScoreResult
from shared.catalog.params import ScoreParams
from shared.errors import JobFailed
from workers.scorers.base import Score, Scorer
from workers.scorers.choice import Candidate, choose, dhash
from workers.work import ENOUGH, Work


def run(work: Work[ScoreParams, ScoreInputs]) -> ScoreResult:
    """Score the candidates. Returns all scores and the ids of the accepted candidates."""
    params, inputs = work.params, work.inputs
    if params.scorer not in SCORERS:
        raise JobFailed(
            "unknown_scorer", f"this worker has no scorer {params.scorer!r}; use one of {', '.join(SCORERS)}"
        )
    scorer: Scorer = resolve(SCORERS[params.scorer])
    work.step(kinds.SCORE.verb, 0, len(inputs.candidates))
    most = ENOUGH * work.base_model.resolution
    references = [work.image(each, most) for each in inputs.references]
    candidates = [work.image(each, most) for each in inputs.candidates]
    asked = [
        Candidate(each.view, each.framing, dhash(image))
        for each, image in zip(inputs.candidates, candidates, strict=True)
    ]
    scores = scorer(references, candidates, [each.view for each in asked])
    accepted = choose(asked, scores, inputs.quota, params, taken=[dhash(image) for image in references])
    ids = [each.id for each in inputs.candidates]
    return ScoreResult(
        scores={image_id: _shown(score) for image_id, score in zip(ids, scores, strict=True)},
        accepted=[ids[index] for index in accepted],
    )


def _shown(score: Score) -> dict[str, float]:
    shown = {"identity": score.identity, "shows_view": score.shows_view, **score.details}
    return {name: round(value, 4) for name, value in shown.items()}
