"""States and their legal moves, as tables. No database."""

from __future__ import annotations

from enum import StrEnum


class ProjectState(StrEnum):
    DRAFT = "draft"  # images, tags and plan are being prepared
    RUNNING = "running"  # its rounds are under way
    COMPLETED = "completed"  # the character LoRA is ready; another round may reopen the project
    FAILED = "failed"  # a job failed for good; a retry resumes from there
    CANCELLED = "cancelled"


class RoundKind(StrEnum):
    STYLE = "style"  # features stay in the captions; makes candidates
    CHARACTER = "character"  # features are removed from the captions; makes the character LoRA


class RoundState(StrEnum):
    PENDING = "pending"  # waits for the round before it
    TRAINING = "training"
    GENERATING = "generating"  # style rounds: candidates are being drawn
    CURATING = "curating"  # uses no worker; ends when a client or the scorer has chosen
    EVALUATING = "evaluating"  # character rounds: test pictures from every side are being drawn
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobState(StrEnum):
    QUEUED = "queued"  # waits for a worker to claim it or a client to cancel it
    RUNNING = "running"  # one worker holds its lease
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ImageRole(StrEnum):
    REFERENCE = "reference"  # uploaded, imported or cropped
    CANDIDATE = "candidate"  # drawn by a style round, to be chosen from
    EVALUATION = "evaluation"  # drawn by a character round, to show its LoRA
    OUTPUT = "output"  # drawn because a client asked


class ImageSource(StrEnum):
    UPLOAD = "upload"
    CROP = "crop"
    GENERATED = "generated"
    EDITED = "edited"  # a new version that a client has sent


class Decision(StrEnum):
    PENDING = "pending"
    ACCEPTED = "accepted"
    REJECTED = "rejected"


class Curation(StrEnum):
    MANUAL = "manual"  # waits for a person, without a time limit
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
    """The state after training: a style LoRA draws candidates, a character LoRA is evaluated."""
    return RoundState.GENERATING if kind == RoundKind.STYLE else RoundState.EVALUATING


def caption_policy(kind: RoundKind) -> str:
    """Captions keep the features in a style round (`full`) and drop them in a character round (`prune`)."""
    return "full" if kind == RoundKind.STYLE else "prune"
