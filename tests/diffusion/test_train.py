"""Training: it learns, it resumes, and it leaves the base model alone."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from shared.catalog.params import TrainParams
from tests.diffusion.checkpoints import FolderCheckpoints
from tests.diffusion.tiny import make_image, output
from workers.diffusion import checkpoint, train
from workers.diffusion.dataset import Example
from workers.diffusion.families.sd15 import StableDiffusion15
from workers.diffusion.lora import adapter
from workers.diffusion.lora.weights import TrainedLora
from workers.diffusion.train import NanLoss, lr_factor, train_lora


class Stopped(Exception):
    pass


def stop_at(step: int):
    def on_step(done: int, loss: float) -> None:
        if done == step:
            raise Stopped

    return on_step


def flat(lora: TrainedLora) -> Tensor:
    sides = [side.flatten() for changes in lora.weights.values() for c in changes.values() for side in (c.down, c.up)]
    return torch.cat(sides)


@pytest.fixture(scope="module")
def straight(base, examples, params):
    """A run that nothing interrupts."""
    return train_lora(base, examples, params)


@pytest.mark.slow
def test_a_lora_learns_its_pictures(chibi, examples):
    params = TrainParams(train_steps=32, batch_size=4, rank=4, alpha=4.0, learning_rate=4e-3, lora_modules="all")
    losses = train_lora(chibi, examples, params).losses
    assert sum(losses[-4:]) < 0.85 * sum(losses[:4])


def test_the_same_seed_trains_the_same_lora(base, examples, params, straight):
    first, second = straight, train_lora(base, examples, params)
    other = train_lora(base, examples, replace(params, seed=8))
    assert torch.equal(flat(first), flat(second))
    assert first.losses == second.losses
    assert not torch.equal(flat(first), flat(other))


def test_every_step_is_reported_with_its_loss(base, examples, params):
    seen = []
    lora = train_lora(base, examples, params, on_step=lambda step, loss: seen.append((step, loss)))
    assert seen == list(enumerate(lora.losses, start=1))
    assert lora.steps == params.train_steps
    assert all(math.isfinite(loss) for loss in lora.losses)


@pytest.mark.parametrize("stop", [1, 2, 3, 5])
def test_a_stopped_run_resumes_bit_for_bit(base, examples, params, straight, tmp_path, stop):
    kept = FolderCheckpoints(tmp_path)
    with pytest.raises(Stopped):
        train_lora(base, examples, params, on_step=stop_at(stop), checkpoints=kept)
    steps = []
    resumed = train_lora(base, examples, params, on_step=lambda step, _: steps.append(step), checkpoints=kept)
    assert torch.equal(flat(resumed), flat(straight))
    assert resumed.losses == straight.losses
    assert steps[0] == stop // 2 * 2 + 1  # it goes on after the last checkpoint, of every second step


def test_a_run_killed_between_accumulated_batches_resumes_bit_for_bit(
    base, examples, params, straight, tmp_path, monkeypatch
):
    kept, calls = FolderCheckpoints(tmp_path), iter(range(100))

    def dies(*args):
        if next(calls) == 7:  # the second half of the fourth step
            raise Stopped
        return batch_loss(*args)

    batch_loss = train.batch_loss
    monkeypatch.setattr(train, "batch_loss", dies)
    with pytest.raises(Stopped):
        train_lora(base, examples, params, checkpoints=kept)
    monkeypatch.setattr(train, "batch_loss", batch_loss)
    resumed = train_lora(base, examples, params, checkpoints=kept)
    assert torch.equal(flat(resumed), flat(straight))
    assert resumed.losses == straight.losses


def test_prior_and_text_encoder_resume_too(base, examples, params, tmp_path):
    params = replace(params, text_encoder_learning_rate=1e-4, prior_weight=0.5, gradient_accumulation=1)
    prior = [Example(make_image(50 + n), ["1girl, solo"]) for n in range(3)]
    straight = train_lora(base, examples, params, prior=prior)
    kept = FolderCheckpoints(tmp_path)
    with pytest.raises(Stopped):
        train_lora(base, examples, params, prior=prior, on_step=stop_at(5), checkpoints=kept)
    resumed = train_lora(base, examples, params, prior=prior, checkpoints=kept)
    assert set(straight.weights) == {"unet", "text_encoder"}
    assert torch.equal(flat(resumed), flat(straight))


def test_bf16_resumes_bit_for_bit(base, examples, params, tmp_path):
    params = replace(params, precision="bf16", train_steps=4)
    straight = train_lora(base, examples, params)
    kept = FolderCheckpoints(tmp_path)
    with pytest.raises(Stopped):
        train_lora(base, examples, params, on_step=stop_at(3), checkpoints=kept)
    assert torch.equal(flat(train_lora(base, examples, params, checkpoints=kept)), flat(straight))


def test_a_checkpoint_of_another_run_is_not_taken(base, examples, params, tmp_path):
    kept = FolderCheckpoints(tmp_path)
    with pytest.raises(Stopped):
        train_lora(base, examples, params, on_step=stop_at(3), checkpoints=kept)
    steps = []
    train_lora(base, examples, replace(params, seed=9), on_step=lambda s, _: steps.append(s), checkpoints=kept)
    assert steps[0] == 1


def test_a_broken_checkpoint_means_starting_over(base, examples, params, tmp_path):
    kept = FolderCheckpoints(tmp_path)
    with pytest.raises(Stopped):
        train_lora(base, examples, params, on_step=stop_at(3), checkpoints=kept)
    kept.file.write_bytes(kept.file.read_bytes()[:1000])
    steps = []
    train_lora(base, examples, params, on_step=lambda s, _: steps.append(s), checkpoints=kept)
    assert steps[0] == 1


def test_a_checkpoint_is_one_safetensors_file(base, examples, params, tmp_path):
    saved = []

    class Spy(FolderCheckpoints):
        def save(self, path: Path, step: int) -> None:
            saved.append((step, path.suffix))
            super().save(path, step)

    train_lora(base, examples, params, checkpoints=Spy(tmp_path))
    assert saved == [(step, ".safetensors") for step in (2, 4, 6)]
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]
    run = checkpoint.load(FolderCheckpoints(tmp_path), "another")
    assert run is None


def test_a_worker_that_must_go_leaves_a_checkpoint(base, examples, params, straight, tmp_path):
    class Leaving(FolderCheckpoints):
        def wanted(self) -> bool:
            return True

    with pytest.raises(Stopped):
        train_lora(base, examples, params, on_step=stop_at(3), checkpoints=Leaving(tmp_path))
    steps = []
    kept = FolderCheckpoints(tmp_path)
    resumed = train_lora(base, examples, params, on_step=lambda step, _: steps.append(step), checkpoints=kept)
    assert steps == [4, 5, 6]
    assert torch.equal(flat(resumed), flat(straight))


@pytest.mark.parametrize("text_encoder", [0.0, 1e-4])
def test_the_base_is_itself_again(base, examples, params, text_encoder):
    params = replace(params, text_encoder_learning_rate=text_encoder, gradient_checkpointing=True)
    before, modules = output(base), [str(part.module) for part in base.parts]
    train_lora(base, examples, params)
    assert torch.equal(output(base), before)
    with pytest.raises(Stopped):
        train_lora(base, examples, params, on_step=stop_at(2))
    assert torch.equal(output(base), before)
    assert [str(part.module) for part in base.parts] == modules
    assert not any(p.requires_grad or p.grad is not None for part in base.parts for p in part.module.parameters())
    assert not any(hasattr(part.module, "peft_config") for part in base.parts)


def test_the_global_generator_is_left_alone(base, examples, params):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    train_lora(base, examples, params)
    assert torch.equal(torch.rand(1), expected)


def test_a_diverging_run_says_so(base, examples, params):
    with pytest.raises(NanLoss, match="lower the learning rate"):
        train_lora(base, examples, replace(params, learning_rate=1e30, max_grad_norm=1e30, warmup_steps=0))
    assert torch.isfinite(output(base)).all()


def test_weights_that_are_no_numbers_are_not_kept(base, examples, params, tmp_path, monkeypatch):
    kept, calls, batch_loss = FolderCheckpoints(tmp_path), itertools.count(1), train.batch_loss

    def steep(*args):
        """A loss that is a number; its gradient in the fourth step isn't."""
        loss = batch_loss(*args)
        return loss + (loss - loss.detach()).sqrt() if next(calls) == 4 else loss

    monkeypatch.setattr(train, "batch_loss", steep)
    with pytest.raises(NanLoss, match="step 4"):
        train_lora(base, examples, replace(params, gradient_accumulation=1), checkpoints=kept)
    with safe_open(kept.file, framework="pt") as file:
        assert json.loads(file.metadata()["state"])["step"] == 2


@pytest.mark.parametrize("text_encoder", [0.0, 1e-4])
def test_a_run_goes_on_at_another_learning_rate(base, examples, params, tmp_path, text_encoder):
    params = replace(params, text_encoder_learning_rate=text_encoder)
    kept = FolderCheckpoints(tmp_path)
    with pytest.raises(Stopped):
        train_lora(base, examples, params, on_step=stop_at(5), checkpoints=kept)
    slower = replace(params, learning_rate=params.learning_rate / 2, text_encoder_learning_rate=text_encoder / 2)
    steps = []
    train_lora(base, examples, slower, on_step=lambda step, _: steps.append(step), checkpoints=kept)
    assert steps == [5, 6]


def test_a_base_in_half_precision_gets_an_adapter_in_full(tiny_row, examples, params):
    """Steps of 1e-4 are lost in bf16, and a loss scaler refuses gradients in fp16."""
    half = StableDiffusion15(tiny_row, "cpu")
    half.dtype = torch.bfloat16
    for part in half.parts:
        part.module.to(torch.bfloat16)
    params = replace(params, text_encoder_learning_rate=1e-4)
    with adapter.attached(half, params) as models:
        held = [p for model in models.values() for p in model.parameters() if p.requires_grad]
        assert {p.dtype for p in held} == {torch.float32}
    lora = train_lora(half, examples, params)
    assert all(math.isfinite(loss) for loss in lora.losses)
    assert {p.dtype for p in half.unet.parameters()} == {torch.bfloat16}


def test_fp16_takes_scaled_steps(tiny_row, examples, params):
    half = StableDiffusion15(tiny_row, "cpu")
    half.dtype = torch.float16
    for part in half.parts:
        part.module.to(torch.float16)
    lora = train_lora(half, examples, replace(params, precision="fp16", warmup_steps=0))
    assert all(math.isfinite(loss) for loss in lora.losses)


def test_no_greatest_norm_means_no_clipping(base, examples, params):
    params = replace(params, max_grad_norm=0.0)
    unclipped = train_lora(base, examples, params)
    assert flat(unclipped).abs().max() > 0
    assert torch.equal(flat(unclipped), flat(train_lora(base, examples, replace(params, max_grad_norm=1e9))))


def test_a_run_is_known_by_what_was_given_not_by_what_a_machine_made_of_it(base, examples, params, tmp_path):
    """The base draws the prior with other last bits on another card; its VAE rounds otherwise too."""
    kept, prior = FolderCheckpoints(tmp_path), [Example(make_image(50), ["1girl"])]
    with pytest.raises(Stopped):
        train_lora(base, examples, params, prior=prior, on_step=stop_at(5), checkpoints=kept)

    def first_step(examples: list[Example], prior: list[Example]) -> int:
        steps = []
        with pytest.raises(Stopped):
            train_lora(
                base, examples, params, prior=prior, checkpoints=kept, on_step=lambda step, _: stop(steps.append(step))
            )
        return steps[0]

    def stop(_: None) -> None:
        raise Stopped

    assert first_step(examples, [replace(prior[0], image=make_image(51))]) == 5
    assert first_step(examples, [replace(prior[0], captions=["1boy"])]) == 1
    assert first_step([replace(examples[0], image=make_image(52)), *examples[1:]], prior) == 1


def test_nothing_to_train_on_is_an_error(base, params):
    with pytest.raises(ValueError, match="empty"):
        train_lora(base, [], params)


def test_gradient_checkpointing_changes_nothing(base, examples, params, straight):
    spared = train_lora(base, examples, replace(params, gradient_checkpointing=True))
    assert torch.allclose(flat(straight), flat(spared), atol=1e-5)


def test_the_prior_holds_the_base_in_place(base, examples, params, straight):
    """The adapter moves otherwise; the reported loss is still that of the pictures alone."""
    prior, without = [Example(make_image(50), ["1girl"])], straight
    with_prior = train_lora(base, examples, params, prior=prior)
    assert with_prior.losses[0] == without.losses[0]
    assert not torch.equal(flat(without), flat(with_prior))


def test_a_weightless_example_teaches_nothing(base, examples, params):
    params = replace(params, lr_scheduler="constant", weight_decay=0.0)
    lora = train_lora(base, [replace(example, weight=0.0) for example in examples], params)
    assert all(change.up.abs().max() == 0 for change in lora.weights["unet"].values())


@pytest.mark.parametrize(
    ("name", "factors"),
    [
        ("constant", [0.5, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1, 1, 0.8536, 0.5, 0.1464]),
    ],
)
def test_learning_rate_schedules(name, factors):
    params = TrainParams(lr_scheduler=name, warmup_steps=2, train_steps=6)
    assert [round(lr_factor(step, params), 4) for step in range(6)] == factors
