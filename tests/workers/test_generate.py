"""Drawing from other pictures by the real handler, with chibi: what is kept, what the file says, what is gone."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pixels

from shared.catalog.kinds import GENERATE, GenerateInputs, LoraInput
from shared.catalog.params import GenerateParams, Original, StoredPicture, WantedPicture
from shared.errors import JobFailed
from shared.models import Image, Job
from shared.queue import jobs
from shared.runtime import Runtime
from tests.domain import claim, make_project, make_runtime, make_user
from workers import label
from workers.diffusion import families
from workers.diffusion.generate import ResolvedParams
from workers.runner import run_job, work_on

SIDE = 64
PARAMS = GenerateParams(
    width=SIDE, height=SIDE, inference_steps=2, guidance_scale=3.0, sampler="euler_a", negative_prompt="bad",
    batch_size=2, precision="fp32",
)  # fmt: skip
PROMPT = "eiei21girl, 狐耳"


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    torch.set_num_threads(1)
    runtime = make_runtime(tmp_path)
    yield runtime
    runtime.close()
    families.unload()


def keep(runtime: Runtime, key: str, image: Pixels.Image) -> StoredPicture:
    target = io.BytesIO()
    image.save(target, "PNG")
    runtime.storage.put_bytes(key, target.getvalue())
    return StoredPicture(key=key, sha256=hashlib.sha256(target.getvalue()).hexdigest())


def photo() -> Pixels.Image:
    return Pixels.effect_mandelbrot((SIDE, SIDE), (-2, -1.5, 1, 1.5), 50).convert("RGB")


def left_half() -> Pixels.Image:
    mask = Pixels.new("L", (SIDE, SIDE))
    mask.paste(255, (0, 0, SIDE // 2, SIDE))
    return mask


def queue(runtime: Runtime, *pictures: WantedPicture) -> Job:
    inputs = GenerateInputs(base_model="chibi", pictures=list(pictures), loras=[])
    with runtime.transaction() as session:
        project = make_project(session, make_user(session), references=0)
        return jobs.enqueue(session, project, GENERATE, params=PARAMS, inputs=inputs)


def from_photo(runtime: Runtime, *, masked: bool = True) -> WantedPicture:
    original = Original(
        image_id="img_1",
        image=keep(runtime, "photo", photo()),
        mask=keep(runtime, "incoming/mask", left_half()) if masked else None,
        strength=0.5,
        width=SIDE,
        height=SIDE,
    )
    return WantedPicture(prompt=PROMPT, seed=7, view="side", original=original)


def drawn(runtime: Runtime, job: Job) -> list[tuple[Image, Pixels.Image]]:
    """The rows of a job's pictures, and what is in their files."""
    run_job(runtime, job.id, 1, "gpu@one", lambda: False)
    with runtime.db.reading() as session:
        ended = session.get_one(Job, job.id)
        assert ended.state == "succeeded", ended.error
        rows = session.query(Image).order_by(Image.seed).all()
    return [(row, Pixels.open(io.BytesIO(b"".join(runtime.storage.open(row.key))))) for row in rows]


def test_a_picture_is_drawn_where_its_mask_is_white(runtime: Runtime) -> None:
    plain = WantedPicture(prompt=PROMPT, seed=8)
    (row, picture), (other, _) = drawn(runtime, queue(runtime, from_photo(runtime), plain))
    before, after = (np.asarray(each).astype(int) for each in (photo(), picture))
    assert np.array_equal(after[:, SIDE // 2 :], before[:, SIDE // 2 :])
    assert np.abs(after[:, :24] - before[:, :24]).mean() > 5
    assert (row.parent_id, row.view, row.width, row.height) == ("img_1", "side", SIDE, SIDE)
    assert other.parent_id is None


def test_the_file_says_how_it_was_drawn(runtime: Runtime) -> None:
    plain = WantedPicture(prompt="1girl", seed=8)
    (_, picture), (_, other) = drawn(runtime, queue(runtime, from_photo(runtime), plain))
    lines = picture.text["parameters"].split("\n")
    assert lines[:2] == [PROMPT, "Negative prompt: bad"]
    said = json.loads(picture.text["bootlora"])
    assert len(said["base_sha256"]) == 64
    assert lines[2] == (
        f"Steps: 2, Sampler: euler_a, CFG scale: 3, Seed: 7, Size: 64x64, Model hash: {said['base_sha256'][:10]}, "
        "Model: chibi, Clip skip: 1, Denoising strength: 0.5"
    )
    assert {name: said[name] for name in ("prompt", "seed", "base_model", "image", "strength", "masked")} == {
        "prompt": PROMPT, "seed": 7, "base_model": "chibi", "image": "img_1", "strength": 0.5, "masked": True,
    }  # fmt: skip
    assert said["loras"] == []
    assert "Denoising" not in other.text["parameters"]
    assert json.loads(other.text["bootlora"])["image"] is None


def test_the_file_speaks_to_other_tools_as_they_do(runtime: Runtime) -> None:
    loras = [
        LoraInput(id="lor_1", key="k", sha256="1" * 64, weight=0.8, name="fox:girl"),
        LoraInput(id="lor_2", key="k", sha256="2" * 64, weight=1.0),  # of a job that was queued before names were kept
    ]
    resolved = ResolvedParams(
        width=64, height=64, inference_steps=2, guidance_scale=3.5, sampler="euler", negative_prompt="", clip_skip=1,
        batch_size=1, precision="fp32", prompt_syntax="plain",
    )  # fmt: skip
    base = copy(families.load(runtime.base_models["chibi"], "cpu"))
    base.row = replace(base.row, sha256="abcdef" * 10)
    texts = label.texts(WantedPicture(prompt="fox (animal)", seed=1), (64, 96), resolved, base, loras)
    weighted = replace(resolved, prompt_syntax="weighted")
    assert (
        label.texts(WantedPicture(prompt="(fox)", seed=1), (64, 96), weighted, base, [])["parameters"][:6] == "(fox)\n"
    )
    assert texts["parameters"].split("\n") == [
        r"fox \(animal\) <lora:fox_girl:0.8> <lora:lor_2:1>",
        "Steps: 2, Sampler: euler, CFG scale: 3.5, Seed: 1, Size: 64x96, Model hash: abcdefabcd, Model: chibi, "
        "Clip skip: 2",
    ]
    assert json.loads(texts["bootlora"])["loras"][0] == {
        "id": "lor_1", "name": "fox:girl", "sha256": "1" * 64, "weight": 0.8,
    }  # fmt: skip


@pytest.mark.parametrize(("key", "named"), [("photo", "image img_1"), ("incoming/mask", "mask of image img_1")])
@pytest.mark.parametrize(("harm", "code"), [("delete", "missing_object"), ("change", "corrupt_object")])
def test_an_original_that_is_gone_or_another_fails_the_job_by_name(
    runtime: Runtime, key: str, named: str, harm: str, code: str
) -> None:
    job = queue(runtime, from_photo(runtime))
    if harm == "delete":
        runtime.storage.delete(key)
    else:
        runtime.storage.put_bytes(key, b"something else")
    held = claim(runtime, job)
    assert held is not None
    with pytest.raises(JobFailed, match=f"^{named}: ") as failed:
        work_on(runtime, held, lambda: False)
    assert failed.value.code == code
