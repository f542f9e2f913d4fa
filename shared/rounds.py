"""Rounds: train, generate, curate, then the next round. `shared/lifecycle.py` has the legal moves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared import captions, events, images, loras, plans, prompts
from shared.catalog import kinds
from shared.catalog.kinds import (
    KINDS,
    DatasetEntry,
    GenerateInputs,
    GenerateResult,
    LoraInput,
    ScoreInputs,
    ScoreResult,
    TrainInputs,
    TrainResult,
)
from shared.catalog.params import WantedPicture
from shared.errors import Conflict, NotFound
from shared.lifecycle import (
    OPEN_ROUND_STATES,
    PROJECT_MOVES,
    ROUND_MOVES,
    Curation,
    Decision,
    ImageRole,
    JobState,
    ProjectState,
    RoundKind,
    RoundState,
    after_training,
)
from shared.models import Image, Job, Lora, Project, Round
from shared.outside.db import utcnow
from shared.queue import jobs

EVALUATION_PICTURES = 12
# The job kind of each stage. The round stays in the stage until the job ends.
STAGE_KINDS: dict[RoundState, str] = {
    RoundState.TRAINING: kinds.TRAIN.name,
    RoundState.GENERATING: kinds.GENERATE.name,
    RoundState.CURATING: kinds.SCORE.name,
    RoundState.EVALUATING: kinds.GENERATE.name,
}


def get(session: Session, project_id: str, number: int) -> Round:
    query = select(Round).where(Round.project_id == project_id, Round.number == number)
    round_ = session.scalar(query)
    if round_ is None:
        raise NotFound(f"the project has no round {number}")
    return round_


def of_project(session: Session, project_id: str) -> list[Round]:
    return list(session.scalars(select(Round).where(Round.project_id == project_id).order_by(Round.number)))


def move(round_: Round, state: RoundState) -> None:
    """Change the state of a round. Raises `Conflict` if the move is not legal."""
    if state not in ROUND_MOVES[RoundState(round_.state)]:
        raise Conflict(f"round {round_.number} is {round_.state} and can't become {state}", code="illegal_move")
    round_.state = state
    if state in (RoundState.COMPLETED, RoundState.FAILED, RoundState.CANCELLED):
        round_.finished_at = utcnow()


def move_project(project: Project, state: ProjectState) -> None:
    if state not in PROJECT_MOVES[ProjectState(project.state)]:
        raise Conflict(f"the project is {project.state} and can't become {state}", code="illegal_move")
    project.state = state


# --- the stages, in their order -------------------------------------------------------------------------------


def begin(session: Session, round_: Round) -> Job:
    """Freeze the dataset with its exact captions, and train on it."""
    project = round_.project
    round_.dataset = present_dataset(session, project, round_.plan.caption_policy)
    round_.started_at = utcnow()
    move(round_, RoundState.TRAINING)
    job = jobs.enqueue(
        session, project, kinds.TRAIN, round_id=round_.id, params=round_.plan.train, inputs=_train_inputs(round_)
    )
    events.of_round(session, round_, "round.training_started", job_id=job.id, images=len(round_.dataset))
    return job


def generate(session: Session, round_: Round, *, count: int | None = None, views: list[str] | None = None) -> Job:
    """Draw candidates; curation follows when they are ready."""
    move(round_, RoundState.GENERATING)
    return _draw_candidates(session, round_, count, views)


def _draw_candidates(
    session: Session, round_: Round, count: int | None, views: list[str] | None, more: Sequence[LoraInput] = ()
) -> Job:
    """Draw with the round's LoRA, cycling through the views that still lack pictures. Prompts name the features."""
    project, plan = round_.project, round_.plan
    if count is None:
        count = plans.candidates(missing(session, round_), plan)
    pictures = plans.pictures(
        trigger_word=project.trigger_word,
        subject_tags=project.subject_tags,
        feature_tags=project.feature_tags,
        views=views or list(quota(session, round_)) or plan.views,
        framings=plan.framings,
        prompt_tags=plan.prompt_tags,
        count=count,
        seed=_seed(round_),
        name_features=True,
    )
    round_.generations += 1
    round_.needs_attention = None
    job = _enqueue_pictures(session, round_, pictures, plan.lora_weight, more)
    events.of_round(session, round_, "round.generating_started", job_id=job.id, images=len(pictures))
    return job


def evaluate(session: Session, round_: Round) -> Job:
    """Draw test pictures of the character LoRA from every side. Prompts have the trigger word but no features."""
    project, plan = round_.project, round_.plan
    pictures = plans.pictures(
        trigger_word=project.trigger_word,
        subject_tags=project.subject_tags,
        feature_tags=project.feature_tags,
        views=plan.views,
        framings={"full_body": 1},
        prompt_tags=plan.prompt_tags,
        count=EVALUATION_PICTURES,
        seed=_seed(round_),
        name_features=False,
    )
    job = _enqueue_pictures(session, round_, pictures, 1.0)
    events.of_round(session, round_, "round.evaluating_started", job_id=job.id, lora_id=round_.lora_id)
    return job


def curate(session: Session, round_: Round) -> None:
    """Start the curation of the candidates, by a person or by the scorer."""
    move(round_, RoundState.CURATING)
    _announce_candidates(session, round_)
    if round_.project.curation == Curation.AUTO:
        score(session, round_)


def _announce_candidates(session: Session, round_: Round) -> None:
    waiting = images.pending(session, round_.id)
    events.of_round(
        session,
        round_,
        "round.candidates_ready",
        candidates=len(waiting),
        target=round_.target,
        missing=missing(session, round_),
        curation=round_.project.curation,
    )


def score(session: Session, round_: Round) -> Job:
    """Let the scorer choose among the undecided candidates, with a quota per view."""
    chosen = images.dataset(session, round_.project_id)
    candidates = images.pending(session, round_.id)
    inputs = ScoreInputs(
        references=[images.as_input(image) for image in chosen],
        candidates=[images.as_input(image) for image in candidates],
        quota=quota(session, round_),
        feature_tags=round_.project.feature_tags,
        base_model=round_.project.base_model,
    )
    return jobs.enqueue(
        session, round_.project, kinds.SCORE, round_id=round_.id, params=round_.plan.score, inputs=inputs
    )


def complete(session: Session, round_: Round) -> None:
    """Complete the round and cancel its open jobs. Then start the next round or complete the project."""
    for job in _stage_jobs(session, round_):
        jobs.cancel(session, job)
    for image in images.pending(session, round_.id):
        image.decision = Decision.REJECTED
    round_.needs_attention = None
    move(round_, RoundState.COMPLETED)
    accepted = len(images.dataset(session, round_.project_id))
    events.of_round(session, round_, "round.completed", lora_id=round_.lora_id, images=accepted)
    following = session.scalar(
        select(Round).where(Round.project_id == round_.project_id, Round.number == round_.number + 1)
    )
    if following is not None:
        begin(session, following)
        return
    move_project(round_.project, ProjectState.COMPLETED)
    events.record(session, round_.project, "project.completed", lora_id=round_.lora_id, metadata=round_.project.labels)


# --- what a client may do while a round is being curated ------------------------------------------------------


def finish(session: Session, round_: Round, *, accept_fewer: bool) -> None:
    """End the curation. Undecided candidates count as rejected."""
    check_curating(round_)
    lacking = missing(session, round_)
    if lacking > 0 and not accept_fewer:
        raise Conflict(
            f"{lacking} of {round_.target} pictures are missing; accept more, ask for more "
            "candidates, or finish with `accept_fewer`",
            code="too_few_accepted",
        )
    complete(session, round_)


def ask_for_more(
    session: Session, round_: Round, count: int, views: list[str] | None, more: Sequence[LoraInput] = ()
) -> Job:
    """Draw more candidates, with more LoRAs than the round's. Present ones are kept; the round stays in `curating`.

    A scorer that is at work is cancelled: it scores all of them when the new ones are there.
    """
    check_curating(round_)
    for job in _stage_jobs(session, round_):
        if job.kind == kinds.SCORE.name:
            jobs.cancel(session, job)
    return _draw_candidates(session, round_, count, views, more)


def decide_all(session: Session, round_: Round, decisions: dict[str, Decision]) -> None:
    """Decide about many candidates. Either all decisions are taken or none."""
    check_curating(round_)
    query = select(Image).where(Image.round_id == round_.id, Image.role == ImageRole.CANDIDATE)
    candidates = {image.id: image for image in session.scalars(query)}
    for image_id, decision in decisions.items():
        if image_id not in candidates:
            raise NotFound(f"round {round_.number} has no candidate {image_id}; list its candidates and decide again")
        images.check_present(candidates[image_id], decision)
        candidates[image_id].decision = decision
    session.flush()


def standing(session: Session, round_: Round) -> dict[str, Any]:
    """The decisions about a round's candidates, and how many pictures are missing."""
    query = select(Image.id, Image.decision).where(Image.round_id == round_.id, Image.role == ImageRole.CANDIDATE)
    decisions: dict[str, list[str]] = {str(decision): [] for decision in Decision}
    for image_id, decision in session.execute(query.order_by(Image.created_at, Image.id)):
        decisions[decision].append(image_id)
    in_dataset = len(images.dataset(session, round_.project_id))
    counts = {name: len(ids) for name, ids in decisions.items()}
    return {
        "decisions": decisions,
        "counts": counts | {"dataset": in_dataset, "missing": max(0, round_.target - in_dataset)},
    }


def follow_curation(session: Session, project: Project) -> None:
    """Apply a change of the project's `curation` to the round that is being curated."""
    for round_ in of_project(session, project.id):
        if round_.state == RoundState.CURATING:
            _curate_as_wanted(session, round_)


def _curate_as_wanted(session: Session, round_: Round) -> None:
    at_work = [job for job in _stage_jobs(session, round_) if job.cancel_requested_at is None]
    scoring = [job for job in at_work if job.kind == kinds.SCORE.name]
    if round_.project.curation == Curation.MANUAL:
        for job in scoring:
            jobs.cancel(session, job)
    elif images.pending(session, round_.id):
        if not scoring:
            score(session, round_)
    elif not at_work:
        _go_on(session, round_)


def cancel_job(session: Session, job: Job) -> Job:
    """Cancel a job for a client. If it was queued or scores, its round fails now; else when the job stops."""
    jobs.lock(session, job)
    round_ = _awaiting(session, job)
    ends_now = job.state == JobState.QUEUED or job.kind == kinds.SCORE.name
    jobs.cancel(session, job)
    if round_ and ends_now:
        _fail(session, round_, job)
    elif job.state == JobState.CANCELLED:
        _go_on_without(session, job)
    return job


def check_curating(round_: Round) -> None:
    if round_.state != RoundState.CURATING:
        raise Conflict(f"round {round_.number} is {round_.state}, not curating", code="round_not_curating")


def missing(session: Session, round_: Round) -> int:
    """How many accepted pictures are missing to reach the round's target."""
    return max(0, round_.target - len(images.dataset(session, round_.project_id)))


def quota(session: Session, round_: Round) -> dict[str, int]:
    """How many pictures of each view the scorer may accept, so that views are balanced."""
    accepted = Counter(image.view for image in images.dataset(session, round_.project_id))
    return plans.quota(round_.plan.views, accepted, missing(session, round_))


# --- what the end of a job means ------------------------------------------------------------------------------


def take_lora(session: Session, job: Job, result: TrainResult) -> None:
    """Add the LoRA of a training. A style LoRA then draws candidates; a character LoRA is evaluated."""
    round_ = _awaiting(session, job)
    if round_ is None:
        return
    loras.add(session, job, round_, result)
    if after_training(RoundKind(round_.kind)) == RoundState.GENERATING:
        generate(session, round_)
    else:
        move(round_, RoundState.EVALUATING)
        evaluate(session, round_)


def take_drawn(session: Session, job: Job, result: GenerateResult) -> None:
    """Add drawn pictures: outputs for a client, or candidates or evaluations of a round."""
    if job.round_id is None:
        images.add_drawn(session, job, result, ImageRole.OUTPUT)
        return
    round_ = _awaiting(session, job)
    if round_ is None:
        _take_more(session, job, result)
    elif round_.state == RoundState.GENERATING:
        images.add_drawn(session, job, result, ImageRole.CANDIDATE)
        curate(session, round_)
    else:
        images.add_drawn(session, job, result, ImageRole.EVALUATION)
        complete(session, round_)


def _take_more(session: Session, job: Job, result: GenerateResult) -> None:
    """Add more candidates to the curation that they were drawn for, also if it has failed and may be retried."""
    round_ = _drawing_more_for(session, job)
    if round_ is None or job.cancel_requested_at is not None:
        return
    images.add_drawn(session, job, result, ImageRole.CANDIDATE)
    if round_.state == RoundState.CURATING:
        _announce_candidates(session, round_)
        _curate_as_wanted(session, round_)


def take_scores(session: Session, job: Job, result: ScoreResult) -> None:
    """Apply the scores: accept or reject each scored candidate, then continue the curation."""
    round_ = _awaiting(session, job)
    if round_ is None:
        return
    scored, accepted = {each.id for each in kinds.SCORE.inputs_of(job).candidates}, set(result.accepted)
    for image in images.pending(session, round_.id):
        if image.id in scored:
            image.scores = result.scores.get(image.id)
            image.decision = Decision.ACCEPTED if image.id in accepted else Decision.REJECTED
    session.flush()
    _curate_as_wanted(session, round_)


def job_ended_badly(session: Session, job: Job) -> None:
    """Handle a failed or cancelled job. If a round was waiting for it, round and project fail until a retry."""
    round_ = _awaiting(session, job)
    if round_ is not None:
        _fail(session, round_, job)
        return
    _go_on_without(session, job)


def _go_on_without(session: Session, job: Job) -> None:
    """Continue a curation if this job was to draw more candidates for it and no longer will."""
    round_ = _drawing_more_for(session, job)
    if round_ is not None and round_.state == RoundState.CURATING:
        _curate_as_wanted(session, round_)


def _fail(session: Session, round_: Round, job: Job) -> None:
    error = job.error or {"code": "cancelled", "message": "the round's job was cancelled", "retryable": True}
    round_.failed_in = round_.state
    round_.error = error
    move(round_, RoundState.FAILED)
    events.of_round(session, round_, "round.failed", job_id=job.id, error=error)
    round_.project.error = error
    move_project(round_.project, ProjectState.FAILED)
    events.record(
        session, round_.project, "project.failed", error=error, round_id=round_.id, metadata=round_.project.labels
    )


def _awaiting(session: Session, job: Job) -> Round | None:
    """The round that waits for this job; None if it has none or has moved on.

    No round waits for a cancelled scoring job, because another one may already be scoring the round.
    """
    round_ = session.get(Round, job.round_id) if job.round_id else None
    if round_ is None or STAGE_KINDS.get(RoundState(round_.state)) != job.kind:
        return None
    set_aside = job.cancel_requested_at is not None or round_.project.curation == Curation.MANUAL
    return None if job.kind == kinds.SCORE.name and set_aside else round_


def _drawing_more_for(session: Session, job: Job) -> Round | None:
    """The round for which this job draws more candidates, if it is in curation or has failed there."""
    round_ = session.get(Round, job.round_id) if job.round_id else None
    if round_ is None or job.kind != kinds.GENERATE.name:
        return None
    return round_ if RoundState.CURATING in (round_.state, round_.failed_in) else None


def retry(session: Session, project: Project) -> None:
    """Run the failed stage again, from its last checkpoint. If pictures were lost, train on the remaining ones."""
    if project.state != ProjectState.FAILED:
        raise Conflict(f"the project is {project.state}; only a failed project can be retried", code="not_failed")
    round_ = session.scalars(
        select(Round).where(Round.project_id == project.id, Round.state == RoundState.FAILED)
    ).one()
    last = session.get_one(Job, events.latest(session, project.id, "round.failed").data["job_id"])
    assert round_.failed_in is not None
    move(round_, RoundState(round_.failed_in))
    move_project(project, ProjectState.RUNNING)
    round_.error = round_.failed_in = round_.finished_at = project.error = None
    kind = KINDS[last.kind]
    if kind.name == kinds.SCORE.name:
        _curate_as_wanted(session, round_)
        return
    inputs, checkpoint = kind.inputs_of(last), last.checkpoint
    if kind.name == kinds.TRAIN.name and _has_lost_pictures(session, round_):
        round_.dataset = present_dataset(session, project, round_.plan.caption_policy)
        inputs, checkpoint = _train_inputs(round_), None
    jobs.enqueue(
        session,
        project,
        kind,
        round_id=round_.id,
        params=kind.params_of(last),
        inputs=inputs,
        labels=last.labels,
        checkpoint=checkpoint,
    )
    last.checkpoint = None  # the new job now owns its objects


def _has_lost_pictures(session: Session, round_: Round) -> bool:
    ready = {image.id for image in images.dataset(session, round_.project_id)}
    return any(entry.image_id not in ready for entry in round_.dataset)


def cancel_all(session: Session, project: Project) -> None:
    """Cancel all open rounds of a project and their jobs."""
    for round_ in of_project(session, project.id):
        if round_.state in OPEN_ROUND_STATES or round_.state in (RoundState.PENDING,):
            move(round_, RoundState.CANCELLED)
    open_jobs = select(Job).where(Job.project_id == project.id, Job.state.in_(jobs.OPEN_STATES))
    for job in session.scalars(open_jobs):
        jobs.cancel(session, job)


def _go_on(session: Session, round_: Round) -> None:
    """All candidates of an `auto` round are decided: complete it, draw more, or ask for a person."""
    lacking = missing(session, round_)
    if lacking == 0:
        complete(session, round_)
    elif round_.generations < round_.plan.max_generations:
        generate(session, round_)
    elif round_.target - lacking >= round_.plan.enough:
        complete(session, round_)
    else:
        round_.needs_attention = (
            f"after {round_.generations} generations {lacking} of {round_.target} pictures are missing"
        )
        events.of_round(session, round_, "round.attention_needed", reason=round_.needs_attention, missing=lacking)


def present_dataset(session: Session, project: Project, policy: str = "full") -> list[DatasetEntry]:
    """The accepted pictures with their training captions."""
    entries = []
    for image in images.dataset(session, project.id):
        texts = [
            text
            for tags in (image.tags, *(image.variants or []))
            for text in captions.captions(
                policy=policy,
                trigger_word=project.trigger_word,
                subject_tags=project.subject_tags,
                feature_tags=project.feature_tags,
                image_tags=tags,
            )
        ]
        entries.append(
            DatasetEntry(
                image_id=image.id,
                key=image.key,
                sha256=image.sha256,
                captions=list(dict.fromkeys(texts)),
                repeats=image.repeats,
                original=images.original_size(image),
            )
        )
    return entries


def _train_inputs(round_: Round) -> TrainInputs:
    project = round_.project
    return TrainInputs(
        base_model=project.base_model,
        dataset=round_.dataset,
        name=f"{project.trigger_word}-{round_.number}-{round_.kind}",
        trigger_word=project.trigger_word,
        subject_tags=project.subject_tags,
        prompt_tags=round_.plan.prompt_tags,
        views=round_.plan.views,
    )


def _enqueue_pictures(
    session: Session,
    round_: Round,
    pictures: list[WantedPicture],
    lora_weight: float,
    more: Sequence[LoraInput] = (),
) -> Job:
    lora = session.get_one(Lora, round_.lora_id)
    if round_.plan.generate.prompt_syntax == "weighted":  # brackets in tags are not weights
        pictures = [replace(each, prompt=prompts.escape(each.prompt)) for each in pictures]
    inputs = GenerateInputs(
        base_model=round_.project.base_model,
        pictures=pictures,
        loras=[loras.as_input(lora, lora_weight), *more],
    )
    return jobs.enqueue(
        session, round_.project, kinds.GENERATE, round_id=round_.id, params=round_.plan.generate, inputs=inputs
    )


def _seed(round_: Round) -> int:
    """A seed that differs for each round and each generation, but is the same in every run of a plan."""
    return round_.plan.train.seed * 1_000_000 + round_.number * 10_000 + round_.generations * 1_000


def _stage_jobs(session: Session, round_: Round) -> list[Job]:
    query = select(Job).where(Job.round_id == round_.id, Job.state.in_(jobs.OPEN_STATES))
    return list(session.scalars(query))
