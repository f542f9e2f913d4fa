"""Files that the first version wrote, in `old/`: trainings and LoRAs outlive an upgrade.

`make_files` made them, at commit 7a09abe and with the names of that time: a checkpoint after step 4 of 6, and both LoRA
files after step 6. The weights of the tiny base model follow from its seed.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor

from shared.catalog.params import TrainParams
from tests.diffusion.checkpoints import FolderCheckpoints
from tests.diffusion.tiny import make_image
from workers.diffusion.checkpoint import fingerprint
from workers.diffusion.dataset import Example
from workers.diffusion.families.sd15 import StableDiffusion15
from workers.diffusion.lora import files
from workers.diffusion.lora.about import About
from workers.diffusion.lora.weights import LoraWeights, TrainedLora
from workers.diffusion.train import train_lora

OLD = Path(__file__).parent / "old"
PARAMS = TrainParams(
    rank=1, alpha=2.0, learning_rate=1e-2, text_encoder_learning_rate=1e-3, train_steps=6, batch_size=2, warmup_steps=2,
    noise_offset=0.05, caption_dropout=0.3, checkpoint_every_steps=4, lora_modules="attention", precision="fp32",
    seed=7,
)  # fmt: skip


def train(base, kept: FolderCheckpoints | None = None, on_step=None) -> TrainedLora:
    examples = [
        Example(make_image(n), [f"eiei21girl, 1girl, {view}"])
        for n, view in enumerate(["looking at viewer", "from behind"])
    ]
    prior = [Example(make_image(50), ["1girl"])]
    return train_lora(base, examples, PARAMS, prior=prior, on_step=on_step, checkpoints=kept)


def make_files(base, folder: Path) -> None:
    """What made the files, with the code of that time."""
    lora = train(base, FolderCheckpoints(folder))
    files.save(
        lora, base, About("her", "eiei21girl"), kohya=folder / "kohya.safetensors", peft=folder / "peft.safetensors"
    )


@pytest.fixture
def base(tiny_row):
    """The base model under the name that it had then: a checkpoint is known by it."""
    return StableDiffusion15(replace(tiny_row, name="tiny-epsilon"), "cpu")


def assert_same(first: LoraWeights, second: LoraWeights, tolerance: float) -> None:
    assert set(first) == set(second)
    for part, changes in first.items():
        assert set(changes) == set(second[part])
        for path, change in changes.items():
            delta, other = delta_of(change), delta_of(second[part][path])
            assert (delta - other).abs().max() <= tolerance * delta.abs().max(), path


def delta_of(change) -> Tensor:
    return change.up.flatten(1).float() @ change.down.flatten(1).float() * (change.alpha / change.rank)


def test_a_training_of_the_old_version_goes_on_from_its_checkpoint(base, tmp_path):
    shutil.copy(OLD / "checkpoint.safetensors", tmp_path)
    steps = []
    lora = train(base, FolderCheckpoints(tmp_path), on_step=lambda step, _: steps.append(step))
    assert steps == [5, 6]
    assert_same(files.read(OLD / "peft.safetensors", base), lora.weights, tolerance=1e-2)


def test_the_same_seed_trains_the_lora_of_the_old_version(base):
    assert_same(files.read(OLD / "peft.safetensors", base), train(base).weights, tolerance=5e-2)


def test_loras_of_the_old_version_are_read_and_written_again(base, tmp_path):
    read = {form: files.read(OLD / f"{form}.safetensors", base) for form in ("kohya", "peft")}
    assert_same(read["peft"], read["kohya"], tolerance=2e-3)
    make_files(base, tmp_path)
    assert keys(tmp_path / "kohya.safetensors") == keys(OLD / "kohya.safetensors")
    # The peft file has other keys since: ComfyUI didn't know those of attention. It is read as the same LoRA.
    assert_same(files.read(tmp_path / "peft.safetensors", base), read["peft"], tolerance=5e-2)


def test_a_parameter_that_is_new_and_not_used_leaves_old_checkpoints_valid(base):
    @dataclass(frozen=True, kw_only=True)
    class Newer(TrainParams):
        novelty: int = 0

    def known_as(params: TrainParams) -> str:
        return fingerprint(base, params, [Example(make_image(0), ["her"])])

    given = asdict(PARAMS)
    assert known_as(Newer(**given)) == known_as(PARAMS)
    assert known_as(Newer(**given, novelty=1)) != known_as(PARAMS)


def keys(path: Path) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in load_file(path).items()}
