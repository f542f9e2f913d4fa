"""`make true-size`: its key lists at true size, without weights, and its steps on tiny models."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import true_size
from shared.catalog import BaseModel
from tests.diffusion import tiny
from workers.diffusion import families
from workers.diffusion.families import clip
from workers.diffusion.lora import kohya
from workers.diffusion.lora.changes import LowRank

SIDE = 32


def untrained(weight: torch.Tensor) -> LowRank:
    rank = true_size.RANK
    down, up = (rank, *weight.shape[1:]), (weight.shape[0], rank, *[1] * (weight.ndim - 2))
    return LowRank(torch.empty(down, device="meta"), torch.empty(up, device="meta"), true_size.ALPHA)


@pytest.mark.parametrize(("family", "modules"), list(true_size.PUBLISHED))
def test_our_keys_are_those_of_sd_scripts(family: str, modules: str) -> None:
    base = tiny.without_weights(family)
    weights = {
        part.name: {path: untrained(part.module.get_parameter(f"{path}.weight")) for path in part.lora_paths(modules)}
        for part in base.parts
    }
    published = true_size.PUBLISHED[family, modules]
    counts = [len(changes) for changes in weights.values()]
    assert (counts[0], sum(counts[1:])) == (published.unet, published.text_encoders)
    shapes = {key: tensor.shape for key, tensor in kohya.tensors(weights, base).items()}
    assert true_size.digest(shapes) == published.sha256


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_a_random_model_goes_all_the_way(family: str, tmp_path: Path) -> None:
    row = make_row(family, tmp_path)
    kohya, peft = (tmp_path / "loras" / f"{form}.safetensors" for form in ("kohya", "peft"))
    trained = true_size.train(row, "attention_ff", SIDE, kohya, peft)
    assert len(trained.ours) == len(trained.bare) == true_size.STEPS - 1
    drawn = true_size.draw(row, SIDE, kohya)
    assert (drawn.what, len(drawn.ours)) == ("with the LoRA", true_size.STEPS - 1)
    with pytest.raises(true_size.CheckFailed, match="sd-scripts'"):
        true_size.check_keys(kohya, true_size.PUBLISHED[family, "attention_ff"])


def test_the_bare_steps_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = make_row("sd15", tmp_path)
    paths = [tmp_path / name / "kohya.safetensors" for name in ("beside", "alone")]
    true_size.train(row, "all", SIDE, paths[0], paths[0].with_name("peft.safetensors"))
    monkeypatch.setattr(true_size.Pace, "__call__", lambda *_: None)
    true_size.train(row, "all", SIDE, paths[1], paths[1].with_name("peft.safetensors"))
    base = families.load(row, "cpu")
    one, other = (true_size.factors(true_size.files.read(path, base)) for path in paths)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_lora_that_reads_back_otherwise_is_seen() -> None:
    torch.manual_seed(0)
    one = LowRank(torch.randn(4, 8), torch.randn(8, 4), alpha=2.0)
    assert true_size.are_same({"unet": {"a": replace(one, up=one.up / 2, alpha=4.0)}}, {"unet": {"a": one}})
    assert not true_size.are_same({"unet": {"a": replace(one, alpha=4.0)}}, {"unet": {"a": one}})
    assert not true_size.are_same({"unet": {}}, {"unet": {"a": one}})


def make_row(family: str, folder: Path) -> BaseModel:
    """A tiny model that `write` has written, as the service finds it."""
    tiny.make_base_model(folder / "whole", family=family, tokenizer=clip.tokenizer())
    configs = tiny.copy_configs(folder / "whole", folder / "configs")
    for tokenizer in configs.glob("tokenizer*"):
        shutil.rmtree(tokenizer)
    models = folder / "models"
    models.mkdir()
    path = models / "random.safetensors"
    true_size.write(family, configs, path)
    facts = f'family = "{family}"\nresolution = {SIDE}\nconfig = "{configs}"\n'
    path.with_suffix(".toml").write_text(facts)
    return true_size.found(path)
