"""The parts of the service's responses that this client reads. Responses may have more fields; ignore them."""

from __future__ import annotations

from typing import Any, TypedDict


class Project(TypedDict, total=False):
    id: str
    name: str
    state: str  # draft, running, completed, failed or cancelled
    trigger_word: str
    subject_tags: list[str]
    feature_tags: list[str]
    base_model: str
    curation: str  # manual or auto
    plan: dict[str, Any]
    metadata: dict[str, str]
    error: dict[str, Any] | None
    created_at: str


class Image(TypedDict, total=False):
    id: str
    project_id: str
    parent_id: str | None
    role: str  # reference, candidate, evaluation or output
    source: str  # upload, crop, generated or edited
    decision: str  # pending, accepted or rejected
    view: str | None
    framing: str | None
    tags: list[str]
    variants: list[list[str]] | None  # tags of its other captions
    repeats: int
    prompt: str | None
    seed: int | None
    scores: dict[str, Any] | None
    url: str | None  # presigned: needs no API key; null without the scope `artifacts:read`
    sha256: str
    width: int
    height: int
    created_at: str


class DatasetEntry(TypedDict):
    image_id: str
    captions: list[str]


class Round(TypedDict, total=False):
    id: str
    number: int
    kind: str  # style or character
    state: str
    target: int
    plan: dict[str, Any]
    dataset: list[DatasetEntry]
    lora_id: str | None
    needs_attention: str | None  # why it waits for a person
    error: dict[str, Any] | None


class LoraFile(TypedDict):
    url: str | None
    sha256: str
    size_bytes: int
    filename: str


class Lora(TypedDict, total=False):
    id: str
    source: str  # trained, or imported: then it has no round, and what is said of its training is None
    name: str  # of what is imported, as are family, kinds and license
    family: str
    kinds: list[str]
    license: str
    round_id: str
    kind: str
    trigger_word: str
    base_model: str
    rank: int
    alpha: float
    train_steps: int
    metrics: dict[str, Any]
    files: dict[str, LoraFile]  # kohya, diffusers, sidecar and preview; or original
    created_at: str


class Progress(TypedDict, total=False):
    stage: str
    step: int
    total_steps: int
    loss: float
    images_done: int
    images_total: int
    seconds_left: float  # of the present stage
    seconds: float  # since the attempt began, when this was reported
    stage_seconds: float  # since the present stage began


class Bounds(TypedDict):
    low: float  # seconds
    high: float


class Job(TypedDict, total=False):
    id: str
    kind: str
    verb: str  # what the job is doing, such as `training`
    state: str  # queued, running, succeeded, failed or cancelled
    attempt: int
    progress: Progress | None
    place: int | None  # how many jobs come before it
    seconds_to_start: float | None  # None: unknown
    seconds_to_start_range: Bounds | None
    seconds_to_finish: float | None
    seconds_to_finish_range: Bounds | None
    waits_for: str | None  # what it lacks: a worker with its base model
    error: dict[str, Any] | None
    started_at: str | None


class ImportedFile(TypedDict):
    name: str
    outcome: str  # taken, left_out or refused
    reason: str | None
    code: str | None  # of one that was refused
    image_id: str | None  # of one that was taken


class Event(TypedDict):
    type: str
    timestamp: str
    data: dict[str, Any]  # `seq` counts up within a project, without gaps


class WantedPicture(TypedDict, total=False):
    prompt: str
    seed: int
    count: int
    view: str
    framing: str
    image: str  # the id of a picture of the project to draw from
    strength: float  # how much of it is drawn anew: above 0, at most 1
    mask: str  # a grey picture as base64, as large as the image: white is drawn anew


class WantedLora(TypedDict):
    lora_id: str
    weight: float
