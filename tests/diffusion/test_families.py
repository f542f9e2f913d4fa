"""Loading base models: from a folder or a single file, from the disk alone, one at a time."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from shared import catalog
from tests.diffusion import tiny
from tests.diffusion.tiny import output
from workers.diffusion import families
from workers.diffusion.families.base import Family
from workers.diffusion.families.sd15 import StableDiffusion15


@pytest.fixture
def cold():
    families.unload()
    yield
    families.unload()


def test_the_same_base_twice_is_loaded_once(cold, tiny_row):
    assert families.load(tiny_row, "cpu") is families.load(tiny_row)
    assert families.load(replace(tiny_row, name="another"), "cpu").row.name == "another"


def test_every_family_of_the_catalog_is_there():
    for family in catalog.FAMILIES.values():
        code = catalog.resolve(family.code)
        assert issubclass(code, Family)
        assert code.__abstractmethods__ == frozenset()
        assert family.train["lora_modules"] in catalog.LORA_MODULES
        assert family.generate["sampler"] in family.samplers


@pytest.mark.parametrize("family", ["sd15", "sd2", "sdxl"])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_lora_files_name_the_family_in_the_words_of_its_row(tmp_path, family, prediction_type):
    row = catalog.FAMILIES[family]
    base = catalog.resolve(row.code)(tiny.make_base_model(tmp_path / family, prediction_type, family=family), "cpu")
    assert base.architecture in row.architectures
    assert base.kohya_version.startswith(row.kohya_versions)


def test_chibi_is_named_in_the_words_of_its_row(chibi):
    row = catalog.FAMILIES["chibi"]
    assert chibi.architecture in row.architectures
    assert chibi.kohya_version in row.kohya_versions


def test_weights_are_frozen_and_in_full_precision_on_a_cpu(base):
    for part in base.parts:
        assert all(p.dtype == torch.float32 and not p.requires_grad for p in part.module.parameters())


def test_the_row_decides_what_a_folder_predicts(tmp_path):
    """Where the folder's own config says something else or nothing, the row has the value that counts."""
    row = tiny.make_base_model(tmp_path / "v", "v_prediction")
    assert StableDiffusion15(replace(row, prediction_type="epsilon"), "cpu").noise.prediction_type == "epsilon"


def test_modules_by_name(base, chibi):
    unet, text_encoder = base.parts
    attention, with_ff, everything = (unet.lora_paths(name) for name in ("attention", "attention_ff", "all"))
    assert set(attention) < set(with_ff) < set(everything)
    assert all(".attn" in path for path in attention)
    assert not any("add_embedding" in path for path in chibi.part("unet").lora_paths("all"))
    assert all(len(text_encoder.lora_paths(name)) == 2 * 6 for name in catalog.LORA_MODULES)


def test_sizes_have_one_area_and_are_whole_blocks(base):
    unit = 8  # 4 pixels a latent, halved once in the UNet
    sizes = base.sizes(64)
    assert sizes[0] == (64, 64)
    assert all(width % unit == height % unit == 0 and 0.7 < width * height / 64**2 < 1.3 for width, height in sizes)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_a_single_file_is_the_same_model(base, tiny_folder, tmp_path, prediction_type):
    file = tmp_path / "model.safetensors"
    save_file(to_original_layout(base), file)
    configs = tiny.copy_configs(tiny_folder, tmp_path / "configs")
    row = catalog.BaseModel(
        name="single", family="sd15", path=str(file), resolution=32, prediction_type=prediction_type,
        config=str(configs),
    )  # fmt: skip
    single = StableDiffusion15(row, "cpu")
    assert single.noise.prediction_type == prediction_type
    assert torch.equal(output(single), output(base))
    assert all(torch.equal(a, b) for a, b in zip(single.vae.parameters(), base.vae.parameters(), strict=True))


def test_what_can_t_be_loaded_says_why(tiny_row, tmp_path):
    with pytest.raises(FileNotFoundError, match="neither a folder nor a file"):
        StableDiffusion15(replace(tiny_row, path=str(tmp_path / "nowhere")), "cpu")
    pickle = tmp_path / "model.ckpt"
    pickle.write_bytes(b"")
    with pytest.raises(ValueError, match=r"must be a \.safetensors file"):
        StableDiffusion15(replace(tiny_row, path=str(pickle)), "cpu")
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    with pytest.raises(ValueError, match="no whole safetensors file"):
        StableDiffusion15(replace(tiny_row, path=str(file)), "cpu")


def to_original_layout(base: StableDiffusion15) -> dict[str, torch.Tensor]:
    """Key names as in the checkpoints that CompVis released, for the tiny model's shape."""
    unet = {
        "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
        "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
        "down_blocks.0.resnets.0": "input_blocks.1.0", "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
        "down_blocks.1.resnets.0": "input_blocks.3.0", "down_blocks.1.attentions.0": "input_blocks.3.1",
        "mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
        "up_blocks.0.resnets.0": "output_blocks.0.0", "up_blocks.0.attentions.0": "output_blocks.0.1",
        "up_blocks.0.resnets.1": "output_blocks.1.0", "up_blocks.0.attentions.1": "output_blocks.1.1",
        "up_blocks.0.upsamplers.0.conv": "output_blocks.1.2.conv",
        "up_blocks.1.resnets.0": "output_blocks.2.0", "up_blocks.1.resnets.1": "output_blocks.3.0",
    }  # fmt: skip
    resnet = {
        "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
        "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
    }  # fmt: skip
    tensors = {}
    for key, tensor in base.unet.state_dict().items():
        start = next(name for name in unet if key.startswith(f"{name}."))
        rest = key[len(start) + 1 :]
        head, _, tail = rest.partition(".")
        rest = f"{resnet[head]}.{tail}" if ".resnets." in start else rest
        tensors[f"model.diffusion_model.{unet[start]}.{rest}"] = tensor
    for key, tensor in base.text_encoder.state_dict().items():
        tensors[f"cond_stage_model.transformer.text_model.{key.removeprefix('text_model.')}"] = tensor
    for key, tensor in base.vae.state_dict().items():
        key = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", key)
        key = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", key)
        key = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{2 - int(m[1])}.block", key)
        key = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{2 - int(m[1])}.upsample", key)
        key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
        key = key.replace("mid_block.attentions.0", "mid.attn_1").replace("conv_norm_out", "norm_out")
        if "attn_1" in key:
            names = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
            for ours, theirs in names.items():
                key = key.replace(f"attn_1.{ours}.", f"attn_1.{theirs}.")
            tensor = tensor[:, :, None, None] if tensor.ndim == 2 else tensor
        tensors["first_stage_model." + key.replace("conv_shortcut", "nin_shortcut")] = tensor
    return {key: tensor.contiguous() for key, tensor in tensors.items()}
