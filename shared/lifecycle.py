"""States, who may move them, and what comes next. Pure: tables and functions, no database."""

from __future__ import annotations

from enum import StrEnum


class ProjectState(StrEnum):
    DRAFT = "draft"  # being prepared: images, tags, plan
    RUNNING = "running"  # its rounds are under way
    COMPLETED = "completed"  # the character LoRA is there; another round may reopen it
    FAILED = "failed"  # a job failed for good; retry goes on from there
    CANCELLED = "cancelled"


class RoundKind(StrEnum):
    STYLE = "style"  # features stay in the captions; makes candidates
    CHARACTER = "character"  # features are taken out of the captions; makes the LoRA that is the aim


class RoundState(StrEnum):
    PENDING = "pending"  # waits for the round before it
    TRAINING = "training"
    GENERATING = "generating"  # style rounds: candidates are being drawn
    CURATING = "curating"  # holds no worker and no message; ends when a client or the scorer has chosen
    EVALUATING = "evaluating"  # character rounds: the LoRA is being tried from every side
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobState(StrEnum):
    QUEUED = "queued"  # a row that waits; a worker claims it, a client cancels it
    RUNNING = "running"  # one worker holds its lease
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Decision(StrEnum):
    PENDING = "pending"
    ACCEPTED = "accepted"
    REJECTED = "rejected"


class Curation(StrEnum):
    MANUAL = "manual"  # waits for a person, for as long as it takes
    AUTO = "auto"  # the scorer chooses


JOB_MOVES = {
    JobState.QUEUED: {JobState.RUNNING, JobState.CANCELLED, JobState.FAILED},
    JobState.RUNNING: {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.QUEUED},
    JobState.SUCCEEDED: set(),
    JobState.FAILED: set(),
    JobState.CANCELLED: set(),
}

ROUND_MOVES = {
    RoundState.PENDING: {RoundState.TRAINING, RoundState.CANCELLED},
    RoundState.TRAINING: {RoundState.GENERATING, RoundState.EVALUATING, RoundState.FAILED, RoundState.CANCELLED},
    RoundState.GENERATING: {RoundState.CURATING, RoundState.FAILED, RoundState.CANCELLED},
    RoundState.CURATING: {RoundState.GENERATING, RoundState.COMPLETED, RoundState.FAILED, RoundState.CANCELLED},
    RoundState.EVALUATING: {RoundState.COMPLETED, RoundState.FAILED, RoundState.CANCELLED},
    RoundState.COMPLETED: set(),
    # a retry goes back to the stage whose job failed
    RoundState.FAILED: {RoundState.TRAINING, RoundState.GENERATING, RoundState.CURATING, RoundState.EVALUATING},
    RoundState.CANCELLED: set(),
}

PROJECT_MOVES = {
    ProjectState.DRAFT: {ProjectState.RUNNING, ProjectState.CANCELLED},
    ProjectState.RUNNING: {ProjectState.COMPLETED, ProjectState.FAILED, ProjectState.CANCELLED},
    ProjectState.COMPLETED: {ProjectState.RUNNING},
    ProjectState.FAILED: {ProjectState.RUNNING, ProjectState.CANCELLED},
    ProjectState.CANCELLED: set(),
}

TERMINAL_JOB_STATES = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
OPEN_ROUND_STATES = frozenset({RoundState.TRAINING, RoundState.GENERATING, RoundState.CURATING, RoundState.EVALUATING})


def after_training(kind: RoundKind) -> RoundState:
    """A style LoRA draws candidates; a character LoRA is tried out."""
    return RoundState.GENERATING if kind == RoundKind.STYLE else RoundState.EVALUATING


def caption_policy(kind: RoundKind) -> str:
    """Features stay in the captions of a style round. They leave those of a character round."""
    return "full" if kind == RoundKind.STYLE else "prune"
