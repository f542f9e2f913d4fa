"""A worker's folder of base models: noticed while it runs, hashed once, and watched while a job runs."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import workers.shelf
from shared import catalog
from shared.catalog.kinds import GENERATE, GenerateInputs, GenerateResult
from shared.catalog.params import GenerateParams, WantedPicture
from shared.checkpoints import hashes
from shared.errors import JobFailed
from shared.models import Job
from shared.queue import jobs
from shared.runtime import Runtime
from tests.checkpoints import corpus
from tests.diffusion import tiny
from tests.domain import claim, make_project, make_runtime, make_user
from workers.diffusion import families
from workers.runner import work_on
from workers.shelf import Shelf

SIDECAR = f'family = "sd15"\nresolution = {tiny.RESOLUTION}\n'


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("tiny")
    tiny.make_base_model(folder)
    yield folder
    families.unload()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def runtime(tmp_path: Path, folder: Path) -> Iterator[Runtime]:
    runtime = make_runtime(tmp_path, models_dir=folder)
    yield runtime
    runtime.close()


@pytest.fixture
def shelf(runtime: Runtime) -> Shelf:
    return Shelf(runtime)


def drop(tiny_folder: Path, folder: Path, name: str = "mine") -> None:
    shutil.copytree(tiny_folder, folder / name, dirs_exist_ok=True)
    (folder / f"{name}.toml").write_text(SIDECAR)


def small(path: Path) -> Path:
    """A small file that counts as SD 1.5 but for its sizes; quick to hash."""
    return corpus.write(path, corpus.unet(8, model_channels=2) | SMALL)


SMALL = {
    "first_stage_model.decoder.conv_in.weight": (1, 4, 1, 1),
    "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight": (4, 8),
}


# --- noticing and hashing


def test_a_new_model_is_noticed_and_hashed_later(runtime: Runtime, shelf: Shelf, folder: Path) -> None:
    shelf.look()
    assert list(runtime.base_models) == ["chibi"]
    path = small(folder / "mine.safetensors")
    (folder / "mine.toml").write_text(SIDECAR)
    shelf.look()
    assert runtime.base_models["mine"].problem == ""
    assert runtime.base_models["mine"].sha256 == ""
    for _ in range(2):  # that of chibi as well
        shelf.hash_next()
    assert runtime.base_models["mine"].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(runtime.base_models["chibi"].sha256) == 64


def test_a_hash_is_computed_once_for_each_size_and_time(runtime: Runtime, folder: Path) -> None:
    path, scratch = small(folder / "mine.safetensors"), runtime.settings.scratch_dir
    first = hashes.sha256(path, scratch)
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert hashes.sha256(path, scratch) == first  # size and time are as they were
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert hashes.sha256(path, scratch) == hashlib.sha256(bytes(status.st_size)).hexdigest()


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"a": 5}', b"\xff"])
def test_a_damaged_list_of_hashes_is_made_anew(runtime: Runtime, folder: Path, content: bytes) -> None:
    path, scratch = small(folder / "mine.safetensors"), runtime.settings.scratch_dir
    scratch.mkdir(exist_ok=True)
    (scratch / hashes.FILE).write_bytes(content)
    assert hashes.sha256(path, scratch) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(hashes.known(scratch)) == 1


def test_the_hash_of_a_folder_is_of_names_and_contents(runtime: Runtime, folder: Path) -> None:
    scratch = runtime.settings.scratch_dir
    one, two = corpus.write_folder(folder / "one"), corpus.write_folder(folder / "two")
    assert hashes.sha256(one, scratch) == hashes.sha256(two, scratch)
    (two / "unet" / "config.json").write_text("{}")
    assert hashes.sha256(one, scratch) != hashes.sha256(two, scratch)


def test_a_model_that_has_gone_while_it_is_hashed_stops_no_other(runtime: Runtime, shelf: Shelf, folder: Path) -> None:
    for name in ("a", "b"):
        small(folder / f"{name}.safetensors")
        (folder / f"{name}.toml").write_text(SIDECAR)
    shelf.look()
    models = runtime.base_models
    (folder / "a.safetensors").unlink()
    for _ in range(3):
        runtime.base_models = {name: models[name] for name in ("a", "b") if name in models} | runtime.base_models
        shelf.hash_next()
    assert len(runtime.base_models["b"].sha256) == 64


def test_a_model_that_could_not_be_read_is_hashed_once_it_can(
    runtime: Runtime, shelf: Shelf, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers.shelf, "RETRY_SECONDS", 0.0)
    path = small(folder / "mine.safetensors")
    (folder / "mine.toml").write_text(SIDECAR)
    shelf.look()
    runtime.base_models = {"mine": runtime.base_models["mine"]}
    path.rename(folder / ".away")
    shelf.hash_next()
    (folder / ".away").rename(path)
    for _ in range(3):  # that of chibi as well
        shelf.look()
        shelf.hash_next()
    assert len(runtime.base_models["mine"].sha256) == 64


# --- jobs


def drawing(runtime: Runtime, base_model: str = "mine", user: str = "ann") -> Job:
    pictures = [WantedPicture(prompt="1girl", seed=seed) for seed in range(2)]
    inputs = GenerateInputs(base_model=base_model, pictures=pictures, loras=[])
    params = GenerateParams(
        width=tiny.RESOLUTION, height=tiny.RESOLUTION, inference_steps=1, guidance_scale=1.0, batch_size=1,
        sampler="ddim", negative_prompt="",
    )  # fmt: skip
    with runtime.transaction() as session:
        project = make_project(session, make_user(session, user), references=0)
        return jobs.enqueue(session, project, GENERATE, params=params, inputs=inputs)


def draw(runtime: Runtime, job: Job) -> GenerateResult:
    held = claim(runtime, job)
    assert held is not None
    result: GenerateResult
    result, _ = work_on(runtime, held, lambda: False)
    return result


def test_a_folder_that_was_dropped_there_draws(runtime: Runtime, shelf: Shelf, folder: Path, tiny_folder: Path) -> None:
    job = drawing(runtime)
    drop(tiny_folder, folder)
    shelf.look()
    assert len(draw(runtime, job).images) == 2


@pytest.mark.parametrize("family", ["sd15", "sd2", "sdxl"])
def test_a_single_file_of_each_family_is_told_and_draws(
    runtime: Runtime, shelf: Shelf, folder: Path, tmp_path: Path, family: str
) -> None:
    row = tiny.make_base_model(tmp_path / "whole", family=family)
    whole = catalog.resolve(catalog.FAMILIES[family].code)(row, "cpu")
    tiny.make_single_file(whole, folder / "mine.safetensors")
    configs = tiny.copy_configs(tmp_path / "whole", tmp_path / "configs")
    shelf.look()
    assert "name its `family`" in runtime.base_models["mine"].problem  # its sizes are those of no real model
    sidecar = f'family = "{family}"\nresolution = {tiny.RESOLUTION}\nconfig = "{configs}"\n'
    (folder / "mine.toml").write_text(sidecar)
    shelf.look()
    assert runtime.base_models["mine"].problem == ""
    assert len(draw(runtime, drawing(runtime)).images) == 2
    tiny.make_single_file(whole, folder / "mine.safetensors", but=["vae"])
    shelf.look()
    assert "no VAE" in runtime.base_models["mine"].problem
    (folder / "mine.toml").write_text(f'{sidecar}vae = "{tmp_path / "whole" / "vae"}"\n')
    shelf.look()
    assert runtime.base_models["mine"].problem == ""


@pytest.mark.parametrize(
    ("content", "code", "what"),
    [(b"<html>", "base_model_unusable", "web page"), (None, "base_model_unavailable", "no base model 'mine'")],
)
def test_a_job_says_why_its_base_model_can_not_be_used(
    runtime: Runtime, shelf: Shelf, folder: Path, content: bytes | None, code: str, what: str
) -> None:
    if content is not None:
        (folder / "mine.safetensors").write_bytes(content)
    shelf.look()
    with pytest.raises(JobFailed, match=what) as raised:
        draw(runtime, drawing(runtime))
    assert raised.value.code == code


def test_a_model_that_is_gone_is_named_without_its_place(
    runtime: Runtime, shelf: Shelf, folder: Path, tiny_folder: Path
) -> None:
    drop(tiny_folder, folder)
    shelf.look()
    (folder / "mine").rename(folder / ".gone")
    with pytest.raises(JobFailed, match="base model 'mine' can't be read: No such file or directory; put it") as raised:
        draw(runtime, drawing(runtime))
    assert str(folder) not in raised.value.message


def test_a_model_that_changes_while_a_job_runs_fails_the_job_by_name(
    runtime: Runtime, shelf: Shelf, folder: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop(tiny_folder, folder)
    shelf.look()
    job = drawing(runtime)
    load = families.load

    def load_and_change(row: catalog.BaseModel, *more: object) -> object:
        family = load(row, *more)  # type: ignore[arg-type]
        weights = folder / "mine" / "vae" / "diffusion_pytorch_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x07")
        return family

    monkeypatch.setattr(families, "load", load_and_change)
    with pytest.raises(JobFailed, match="'mine' changed while the job ran") as raised:
        draw(runtime, job)
    assert (raised.value.code, raised.value.retryable) == ("base_model_changed", True)


@pytest.fixture
def vae(folder: Path, tiny_folder: Path, tmp_path: Path) -> Path:
    """The weights of a VAE that the row of `mine` names."""
    drop(tiny_folder, folder)
    shutil.copytree(tiny_folder / "vae", tmp_path / "vae")
    (folder / "mine.toml").write_text(f'{SIDECAR}vae = "{tmp_path / "vae"}"\n')
    return tmp_path / "vae" / "diffusion_pytorch_model.safetensors"


def other_weights(path: Path) -> None:
    save_file({key: tensor * 2 for key, tensor in load_file(path).items()}, path)


def test_a_vae_that_was_replaced_is_drawn_with(runtime: Runtime, shelf: Shelf, vae: Path) -> None:
    def drawn_by(user: str) -> set[str]:
        return {image.sha256 for image in draw(runtime, drawing(runtime, user=user)).images}

    shelf.look()
    before, again = drawn_by("ann"), drawn_by("bea")
    other_weights(vae)
    after = drawn_by("cleo")
    assert before == again
    assert not before & after


def test_a_vae_that_changes_while_a_job_runs_fails_the_job(
    runtime: Runtime, shelf: Shelf, vae: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.look()
    load = families.load

    def load_and_change(row: catalog.BaseModel, *more: object) -> object:
        family = load(row, *more)  # type: ignore[arg-type]
        other_weights(vae)
        return family

    monkeypatch.setattr(families, "load", load_and_change)
    with pytest.raises(JobFailed, match="'mine' changed while the job ran"):
        draw(runtime, drawing(runtime))


def test_a_picture_names_the_hash_of_the_model_s_own_file(runtime: Runtime, shelf: Shelf, vae: Path) -> None:
    """Other tools find a base model by it."""
    shelf.look()
    key = draw(runtime, drawing(runtime)).images[0].key
    said = json.loads(Image.open(io.BytesIO(b"".join(runtime.storage.open(key)))).text["bootlora"])
    own = Path(runtime.base_models["mine"].path)
    assert said["base_sha256"] == hashes.sha256(own, runtime.settings.scratch_dir)


@pytest.mark.parametrize("attempt", [1, 2])
def test_an_attempt_does_not_go_on_with_another_file_and_a_retry_begins_anew(
    runtime: Runtime, shelf: Shelf, folder: Path, tiny_folder: Path, attempt: int
) -> None:
    drop(tiny_folder, folder)
    shelf.look()
    job = drawing(runtime)
    with runtime.transaction() as session:
        row = session.get_one(Job, job.id)
        row.attempt, row.checkpoint = attempt, {"images": {"0": {"key": "of another"}}, "base_sha256": "0" * 64}
    if attempt > 1:
        with pytest.raises(JobFailed, match="changed"):
            draw(runtime, job)
    else:
        assert len({image.key for image in draw(runtime, job).images} - {"of another"}) == 2


# --- memory


def test_models_that_fit_stay_in_memory_and_the_one_used_least_recently_goes(
    runtime: Runtime, shelf: Shelf, folder: Path, tiny_folder: Path
) -> None:
    for name in ("a", "b", "c"):
        drop(tiny_folder, folder, name)
    shelf.look()
    a, b, c = (runtime.base_models[name] for name in ("a", "b", "c"))
    families.unload()
    first = families.load(a, "cpu")
    one = families.bytes_of(first)
    weights = sum(path.stat().st_size for path in tiny_folder.rglob("*.safetensors"))
    assert abs(one - weights) < 0.05 * weights
    room = one + 2 * b.size_bytes  # for two: the one that is there, and the next at twice its file
    assert families.load(b, "cpu", room) is not first
    assert families.load(a, "cpu", room) is first
    families.load(c, "cpu", room)
    assert families.load(a, "cpu", room) is first  # b was used less recently
    families.unload()
