"""Jobs that draw with LoRAs of other tools."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from safetensors.torch import save

from shared.catalog.kinds import GENERATE, GenerateInputs, LoraInput
from shared.catalog.params import GenerateParams, WantedPicture
from shared.errors import JobFailed
from shared.ids import new_id
from shared.lora_files import modules
from shared.models import Job
from shared.queue import jobs
from shared.runtime import Runtime
from tests.domain import claim, make_project, make_runtime, make_user
from tests.lora_files.made import kohya_name
from workers.diffusion import families
from workers.runner import work_on

PARAMS = GenerateParams(inference_steps=2, sampler="ddim")
FEED_FORWARD = [module for module in modules.of_family("chibi") if module.path.endswith("ff.net.2")]


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    torch.set_num_threads(1)
    runtime = make_runtime(tmp_path)
    yield runtime
    runtime.close()
    families.unload()


def loha(scale: float) -> bytes:
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for module in FEED_FORWARD:
        out, into = module.shape
        for side, shape in {"w1_a": (out, 2), "w1_b": (2, into), "w2_a": (out, 2), "w2_b": (2, into)}.items():
            tensors[f"{kohya_name(module)}.hada_{side}"] = torch.randn(shape, generator=generator) * scale
    return save(tensors)


def drawn(runtime: Runtime, weights: bytes | None) -> Any:
    loras = []
    if weights is not None:
        key = f"imported-loras/usr_1/{hashlib.sha256(weights).hexdigest()}.safetensors"
        runtime.storage.put_bytes(key, weights)
        loras = [LoraInput(id="lor_1", key=key, sha256=hashlib.sha256(weights).hexdigest(), weight=1.0)]
    inputs = GenerateInputs(base_model="chibi", pictures=[WantedPicture(prompt="1girl", seed=1)], loras=loras)
    with runtime.transaction() as session:
        project = make_project(session, make_user(session, new_id("usr")), references=0)
        job: Job = jobs.enqueue(session, project, GENERATE, params=PARAMS, inputs=inputs)
    held = claim(runtime, job)
    assert held is not None
    result, _ = work_on(runtime, held, lambda: False)
    (image,) = result.images
    assert asdict(image)["prompt"] == "1girl"
    return np.asarray(PIL.Image.open(io.BytesIO(runtime.storage.get_bytes(image.key))))


def test_a_loha_changes_what_chibi_draws_and_leaves_chibi_as_it_was(runtime: Runtime) -> None:
    plain, changed, nothing, again = (drawn(runtime, each) for each in (None, loha(0.3), loha(0.0), None))
    assert changed.tobytes() != plain.tobytes()
    assert nothing.tobytes() == plain.tobytes() == again.tobytes()


def test_one_that_turns_out_to_fit_nothing_fails_the_job_by_name(runtime: Runtime) -> None:
    name = kohya_name(FEED_FORWARD[0])
    wrong = save({f"{name}.lora_up.weight": torch.ones(5, 2), f"{name}.lora_down.weight": torch.ones(2, 5)})
    with pytest.raises(JobFailed, match=f"can't be used with chibi: {name}: its down has the shape") as failed:
        drawn(runtime, wrong)
    assert (failed.value.code, failed.value.retryable) == ("lora_unusable", False)
