"""Trainings that diverge or run out of memory: real steps of a tiny model, one of which fails."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from sqlalchemy import select
from torch import Tensor

from shared import records
from shared.catalog import BaseModel
from shared.catalog.kinds import GENERATE, TRAIN, DatasetEntry, JobKind, TrainInputs
from shared.catalog.params import GenerateParams, TrainParams
from shared.errors import JobFailed
from shared.models import Event, Job, Project
from shared.queue import jobs
from shared.runtime import Runtime
from tests.diffusion.tiny import RESOLUTION, make_base_model
from tests.domain import claim, make_project, make_runtime, make_user
from tests.factories import png
from workers.diffusion import families, generate, train
from workers.diffusion.families.sd15 import StableDiffusion15
from workers.diffusion.families.stable_diffusion import StableDiffusion
from workers.handlers.train import slug, weights
from workers.runner import work_on

FULL, HALF = 1e-3, 0.5e-3
PARAMS = TrainParams(
    learning_rate=FULL, train_steps=6, batch_size=1, checkpoint_every_steps=2, rank=2, lora_modules="attention",
    resolution=RESOLUTION, precision="fp32",
)  # fmt: skip

Diverging = Callable[..., list[float]]
FullCard = Callable[..., list[int]]


@pytest.fixture(scope="module")
def tiny_row(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BaseModel]:
    torch.set_num_threads(1)
    yield make_base_model(tmp_path_factory.mktemp("tiny"))
    families.unload()


@pytest.fixture
def runtime(tmp_path: Path, tiny_row: BaseModel) -> Iterator[Runtime]:
    runtime = make_runtime(tmp_path)
    runtime.base_models["tiny"] = tiny_row
    yield runtime
    runtime.close()


@pytest.fixture
def job(runtime: Runtime) -> Job:
    """A training that waits."""
    picture = png()
    runtime.storage.put_bytes("picture", picture)
    sha256 = hashlib.sha256(picture).hexdigest()
    entry = DatasetEntry(image_id="img_0", key="picture", sha256=sha256, captions=["eiei21girl, 1girl"])
    inputs = TrainInputs(
        base_model="tiny",
        dataset=[entry],
        name="eiei21girl-style",
        trigger_word="eiei21girl",
        subject_tags=["1girl"],
        prompt_tags=[],
        views=["front"],
    )
    with runtime.transaction() as session:
        project = make_project(session, make_user(session), references=0)
        return jobs.enqueue(session, project, TRAIN, params=PARAMS, inputs=inputs)


@pytest.fixture
def diverging(monkeypatch: pytest.MonkeyPatch) -> Diverging:
    """Have the losses be no numbers from a step on, at learning rates above a limit. Returns the rates of all steps."""

    def diverging(*, above: float, from_step: int) -> list[float]:
        batch_loss, rates, calls = train.batch_loss, list[float](), itertools.count(1)

        def lossy(base: Any, data: Any, indices: Any, params: TrainParams, generator: Any) -> Tensor:
            rates.append(params.learning_rate)
            loss = batch_loss(base, data, indices, params, generator)
            return loss * math.nan if params.learning_rate > above and next(calls) >= from_step else loss

        monkeypatch.setattr(train, "batch_loss", lossy)
        return rates

    return diverging


@pytest.fixture
def full_card(monkeypatch: pytest.MonkeyPatch) -> FullCard:
    """Have the card be too small for some batches, from a step on. Returns the sizes of all batches."""

    def full_card(too_much: Callable[[TrainParams], bool], *, from_batch: int = 1) -> list[int]:
        batch_loss, sizes = train.batch_loss, list[int]()

        def limited(base: Any, data: Any, indices: Any, params: TrainParams, generator: Any) -> Tensor:
            sizes.append(len(indices))
            if too_much(params) and len(sizes) >= from_batch:
                raise torch.OutOfMemoryError
            return batch_loss(base, data, indices, params, generator)

        monkeypatch.setattr(train, "batch_loss", limited)
        return sizes

    return full_card


def attempt(runtime: Runtime, job: Job) -> Any:
    held = claim(runtime, job)
    assert held is not None
    result, _ = work_on(runtime, held, lambda: False)
    return result


def with_params(runtime: Runtime, job: Job, **params: Any) -> None:
    with runtime.transaction() as session:
        session.get_one(Job, job.id).params = {**asdict(PARAMS), **params}


def lose(runtime: Runtime, job: Job) -> None:
    with runtime.transaction() as session:
        jobs.lose(session, session.get_one(Job, job.id), runtime.settings)


def test_it_goes_on_from_its_last_checkpoint_at_half_its_learning_rate(
    runtime: Runtime, job: Job, diverging: Diverging
) -> None:
    rates = diverging(above=HALF, from_step=6)
    result = attempt(runtime, job)
    assert rates == [FULL] * 6 + [HALF] * 2
    assert result.train_steps == 6
    assert all(math.isfinite(loss) for _, loss in result.metrics.curve)


def test_before_the_first_checkpoint_it_starts_over(runtime: Runtime, job: Job, diverging: Diverging) -> None:
    rates = diverging(above=HALF, from_step=2)
    attempt(runtime, job)
    assert rates == [FULL] * 2 + [HALF] * 6


def test_another_attempt_knows_that_it_diverged(runtime: Runtime, job: Job, diverging: Diverging) -> None:
    rates = diverging(above=HALF, from_step=4)
    attempt(runtime, job)
    lose(runtime, job)
    rates.clear()
    attempt(runtime, job)
    assert not rates, "its last checkpoint was its end"
    with runtime.transaction() as session:
        row = session.get_one(Job, job.id)
        assert row.checkpoint is not None
        row.checkpoint = {**row.checkpoint, "kept": row.checkpoint["kept"][1:]}
    lose(runtime, job)
    attempt(runtime, job)
    assert rates == [HALF] * 2


def test_one_that_diverges_again_fails_and_says_so(runtime: Runtime, job: Job, diverging: Diverging) -> None:
    rates = diverging(above=0.0, from_step=4)
    with pytest.raises(JobFailed) as failed:
        attempt(runtime, job)
    assert (failed.value.code, failed.value.retryable) == ("nan_loss", True)
    assert rates == [FULL] * 4 + [HALF]


def test_out_of_memory_it_takes_the_same_step_in_smaller_pieces(
    runtime: Runtime, job: Job, full_card: FullCard
) -> None:
    with_params(runtime, job, batch_size=6)
    sizes = full_card(lambda params: params.batch_size > 2)
    assert attempt(runtime, job).train_steps == 6
    assert sizes == [6, 3] + [1] * 6 * 6


def test_out_of_memory_on_the_way_it_goes_on_from_its_checkpoint(
    runtime: Runtime, job: Job, full_card: FullCard
) -> None:
    with_params(runtime, job, batch_size=2)
    sizes = full_card(lambda params: params.batch_size > 1, from_batch=6)
    attempt(runtime, job)
    assert sizes == [2] * 6 + [1] * 2 * 2, "steps 5 and 6 are left after the checkpoint of step 4"


def test_another_attempt_begins_with_what_fitted_into_memory(runtime: Runtime, job: Job, full_card: FullCard) -> None:
    with_params(runtime, job, batch_size=4)
    sizes = full_card(lambda params: not params.gradient_checkpointing)
    attempt(runtime, job)
    assert sizes == [4, 2, 1] + [1] * 4 * 6
    with runtime.transaction() as session:
        row = session.get_one(Job, job.id)
        assert row.checkpoint is not None
        row.checkpoint = {**row.checkpoint, "kept": []}
    lose(runtime, job)
    sizes.clear()
    attempt(runtime, job)
    assert sizes == [1] * 4 * 6


def test_a_card_that_is_too_small_for_anything_is_named(runtime: Runtime, job: Job, full_card: FullCard) -> None:
    with_params(runtime, job, batch_size=2)
    sizes = full_card(lambda params: True)
    for expected in ([2, 1, 1], [1]):
        with pytest.raises(JobFailed) as failed:
            attempt(runtime, job)
        assert (failed.value.code, failed.value.retryable) == ("gpu_oom", True)
        assert sizes == expected
        sizes.clear()
        lose(runtime, job)


@pytest.mark.parametrize("most", [3, 1, 0])
def test_pictures_of_others_are_drawn_in_batches_that_fit(
    runtime: Runtime, job: Job, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    with_params(runtime, job, prior_images=5, train_steps=1)
    with runtime.transaction() as session:
        row = session.get_one(Job, job.id)
        row.inputs = {**row.inputs, "subject_tags": ["1girl"], "views": ["front", "side"], "prompt_tags": []}
    draw, sizes = generate.draw, list[int]()

    def limited(base: Any, pictures: Any, *others: Any) -> Any:
        sizes.append(len(pictures))
        if len(pictures) > most:
            raise torch.OutOfMemoryError
        return draw(base, pictures, *others)

    monkeypatch.setattr(generate, "draw", limited)
    if most == 0:
        with pytest.raises(JobFailed) as failed:
            attempt(runtime, job)
        assert (failed.value.code, failed.value.retryable) == ("gpu_oom", True)
        return
    attempt(runtime, job)
    expected = {3: [4, 2, 2, 1], 1: [4, 2, 1, 1, 1, 1, 1]}[most]
    assert sizes == [*expected, 1], "the family draws four at once; the last is the preview"


@pytest.mark.parametrize("kind", [TRAIN, GENERATE])
def test_every_stage_that_a_kind_names_is_timed(runtime: Runtime, job: Job, kind: JobKind[Any, Any, Any]) -> None:
    drawing = GenerateParams(width=RESOLUTION, height=RESOLUTION, inference_steps=2, sampler="ddim", guidance_scale=1.0)
    params = replace(PARAMS, prior_images=2) if kind is TRAIN else drawing
    picture = {"prompt": "eiei21girl", "seed": 0, "view": None, "framing": None}
    given = {**job.inputs, "pictures": [picture], "loras": []}
    with runtime.transaction() as session:
        project = session.get_one(Project, job.project_id)
        mine = jobs.enqueue(session, project, kind, params=params, inputs=records.read(kind.inputs, given))
    held = claim(runtime, mine)
    assert held is not None
    _, seconds = work_on(runtime, held, lambda: False)
    assert mine.stages
    assert list(seconds) == [name for name, _ in mine.stages], "the handler's stages are those of its kind, in order"
    assert all(each > 0 for each in seconds.values())


@pytest.mark.parametrize("kind", ["train", "generate"])
def test_what_is_cut_off_a_prompt_is_told(
    runtime: Runtime, job: Job, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StableDiffusion, "cut_off", lambda self, text: text[300:])  # as a family that reads no chunks
    text = ", ".join(["eiei21girl"] * 30) + ", from behind"
    picture = {"prompt": text, "seed": 0, "view": None, "framing": None}
    drawing = GenerateParams(width=RESOLUTION, height=RESOLUTION, inference_steps=1, sampler="ddim", guidance_scale=1.0)
    with runtime.transaction() as session:
        row = session.get_one(Job, job.id)
        row.kind = kind
        row.params = asdict(PARAMS if kind == "train" else drawing)
        entry = {**row.inputs["dataset"][0], "captions": ["eiei21girl", text]}
        row.inputs = {**row.inputs, "dataset": [entry], "pictures": [picture], "loras": []}
    attempt(runtime, job)
    with runtime.db.reading() as session:
        (told,) = session.scalars(select(Event).where(Event.type == "prompt.cut"))
    assert (told.data["job_id"], told.data["texts"]) == (job.id, 1)
    assert told.data["unread"][0].endswith("eiei21girl, from behind")


def test_nothing_is_told_of_prompts_that_fit(runtime: Runtime, job: Job) -> None:
    attempt(runtime, job)
    with runtime.db.reading() as session:
        assert session.scalars(select(Event.type)).all() == ["job.started"]


def test_beside_the_lora_are_its_sidecar_and_a_picture_that_it_draws(runtime: Runtime, job: Job) -> None:
    files = attempt(runtime, job).files
    assert {name: file.filename for name, file in files.items()} == {
        "kohya": "eiei21girl-style.safetensors",
        "diffusers": "eiei21girl-style-diffusers.safetensors",
        "sidecar": "eiei21girl-style.json",
        "preview": "eiei21girl-style.preview.png",
    }
    assert json.loads(runtime.storage.get_bytes(files["sidecar"].key))["activation text"] == "eiei21girl, 1girl"
    picture = Image.open(io.BytesIO(runtime.storage.get_bytes(files["preview"].key)))
    assert (picture.format, picture.size) == ("PNG", (RESOLUTION, RESOLUTION))


def test_the_preview_is_drawn_with_the_training_s_clip_skip(
    runtime: Runtime, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    used, encode = set(), StableDiffusion15.encode_prompts

    def encode_and_note(self: Any, texts: Any, clip_skip: int = 0, syntax: str = "plain") -> Any:
        used.add(clip_skip)
        return encode(self, texts, clip_skip, syntax)

    monkeypatch.setattr(StableDiffusion15, "encode_prompts", encode_and_note)
    with runtime.transaction() as session:
        session.get_one(Job, job.id).params = asdict(replace(PARAMS, clip_skip=1))
    attempt(runtime, job)
    assert used == {1}


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("../../../tmp/x-1-style", "tmp-x-1-style"),
        ("fate/girl-2-style", "fate-girl-2-style"),
        ("娘-3-character", "娘-3-character"),
    ],
)
def test_a_title_names_a_file_and_leads_nowhere(title: str, name: str) -> None:
    assert slug(title) == name


def test_a_picture_counts_by_its_repeats_beside_the_others() -> None:
    def entry(repeats: int) -> DatasetEntry:
        return DatasetEntry(image_id="", key="", sha256="", captions=[], repeats=repeats)

    assert weights([entry(10), entry(10), entry(1)]) == pytest.approx([10 / 7, 10 / 7, 1 / 7])
    assert weights([entry(5), entry(5)]) == [1.0, 1.0]
