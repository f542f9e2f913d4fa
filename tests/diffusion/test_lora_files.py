"""LoRA files: their keys and metadata as other tools know them, and what is refused.

That diffusers reads what was trained is asked of every family, in test_family_contract.py.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from shared.checkpoints.header import read_header
from shared.lora_files.kinds import BadLora
from shared.lora_files.recognition import MAX_TENSORS
from workers.diffusion.lora import files
from workers.diffusion.lora.about import About, sidecar, ss_metadata
from workers.diffusion.train import train_lora

ABOUT = About("eiei21girl-character", "eiei21girl", description="A test.", license="CC0-1.0")


@pytest.fixture(scope="module")
def live(base, examples, params, tmp_path_factory):
    """A LoRA of UNet and text encoder with alpha != rank, and its files."""
    params = replace(params, lora_modules="all", train_steps=3, learning_rate=0.02, text_encoder_learning_rate=0.02)
    assert params.alpha != params.rank
    lora = train_lora(base, examples, params)
    folder = tmp_path_factory.mktemp("files")
    paths = {"kohya": folder / "lora.safetensors", "peft": folder / "lora.peft.safetensors"}
    files.save(lora, base, ABOUT, **paths)
    return lora, paths


def test_alpha_is_what_was_asked_for(live):
    lora, paths = live
    alphas = [tensor for key, tensor in load_file(paths["kohya"]).items() if key.endswith(".alpha")]
    assert alphas
    assert all(alpha.shape == () and alpha.item() == lora.params.alpha for alpha in alphas)


# As sd-scripts, ComfyUI and A1111 spell them.
KNOWN_KEYS = set(
    """
lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight
lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_out_0.lora_up.weight
lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_ff_net_0_proj.lora_down.weight
lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_ff_net_2.alpha
lora_unet_down_blocks_1_attentions_0_proj_in.lora_down.weight
lora_unet_down_blocks_0_resnets_0_conv1.lora_down.weight
lora_unet_down_blocks_0_resnets_0_time_emb_proj.lora_up.weight
lora_unet_down_blocks_0_downsamplers_0_conv.alpha
lora_unet_up_blocks_0_upsamplers_0_conv.lora_down.weight
lora_unet_up_blocks_0_resnets_0_conv_shortcut.lora_down.weight
lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_v.lora_down.weight
lora_unet_mid_block_resnets_1_conv2.lora_up.weight
lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight
lora_te_text_model_encoder_layers_1_self_attn_out_proj.alpha
lora_te_text_model_encoder_layers_1_mlp_fc1.lora_up.weight
""".split()  # noqa: SIM905
)


def test_kohya_keys_are_those_that_other_tools_know(live):
    _, paths = live
    tensors = load_file(paths["kohya"])
    assert not KNOWN_KEYS - set(tensors)
    sides = {"lora_down.weight", "lora_up.weight", "alpha"}
    assert all(
        key.split(".", 1)[1] in sides and key.startswith(("lora_unet_", "lora_te_text_model_")) for key in tensors
    )
    down = tensors["lora_unet_down_blocks_0_resnets_0_conv1.lora_down.weight"]
    up = tensors["lora_unet_down_blocks_0_resnets_0_conv1.lora_up.weight"]
    assert (down.dtype, down.shape[0], down.shape[2:]) == (torch.float16, 4, (3, 3))
    assert up.shape[1:] == (4, 1, 1)


def test_metadata_tells_what_was_trained(live):
    _, paths = live
    metadata = read_header(paths["kohya"]).metadata
    assert metadata["ss_network_dim"] == "4"
    assert metadata["ss_network_alpha"] == "2.0"
    assert metadata["ss_network_module"] == "networks.lora"
    assert metadata["ss_base_model_version"] == "sd_v1"
    assert metadata["ss_output_name"] == "eiei21girl-character"
    assert metadata["ss_steps"] == "3"
    assert json.loads(metadata["ss_tag_frequency"])["eiei21girl-character"]["eiei21girl"] == 4
    assert metadata["modelspec.sai_model_spec"] == "1.0.1"
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert metadata["modelspec.trigger_phrase"] == "eiei21girl"
    assert metadata["modelspec.prediction_type"] == "epsilon"
    assert metadata["modelspec.license"] == "CC0-1.0"


def test_the_sidecar_says_what_a1111_and_forge_read(base, chibi):
    about = About("eiei", "eiei21girl", subject_tags=["1girl", "solo"], license="CC0-1.0")
    read = json.loads(sidecar(base, about))
    assert read["activation text"] == "eiei21girl, 1girl, solo"
    assert read["preferred weight"] == 1.0
    assert read["sd version"] == "SD1"
    assert read["notes"] == "base model: tiny; license: CC0-1.0"
    assert json.loads(sidecar(chibi, about))["sd version"] == "Unknown"


def test_no_other_tool_takes_a_lora_of_chibi_for_one_of_its_own(chibi, live):
    lora, _ = live
    assert not ss_metadata(lora, chibi, ABOUT)["ss_base_model_version"].startswith(("sd_", "sdxl_"))


def test_hashes_are_those_of_the_tensor_bytes(live):
    _, paths = live
    data = paths["kohya"].read_bytes()
    digest = hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()
    metadata = read_header(paths["kohya"]).metadata
    assert metadata["sshs_model_hash"] == digest
    assert metadata["modelspec.hash_sha256"] == f"0x{digest}"
    assert len(metadata["sshs_legacy_hash"]) == 8


def test_the_peft_file_names_the_text_encoder_as_every_transformers_reads_it(live):
    _, paths = live
    keys = [key for key in load_file(paths["peft"]) if not key.startswith("unet.")]
    assert "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight" in keys
    assert all(key.startswith("text_encoder.text_model.encoder.") for key in keys)


def test_the_peft_file_keeps_the_adapter_config(live):
    _, paths = live
    config = json.loads(read_header(paths["peft"]).metadata["lora_adapter_metadata"])
    assert (config["unet.r"], config["unet.lora_alpha"]) == (4, 4.0)
    assert (config["text_encoder.r"], config["text_encoder.lora_alpha"]) == (4, 4.0)


def test_the_peft_file_is_spelled_as_comfyui_maps_it(live):
    """comfy/lora.py has the names, comfy/weight_adapter/lora.py the ends."""
    lora, paths = live
    unet = [path.replace(".to_", ".processor.to_") for path in lora.weights["unet"]]
    unet = [path.removesuffix(".0") if path.endswith(".to_out.0") else path for path in unet]
    text = [f"text_encoder.text_model.{path}" for path in lora.weights["text_encoder"]]
    names = [f"unet.{path}" for path in unet] + text
    ends = ["_lora.{}.weight", ".lora.{}.weight"]
    known = {name + end.format(side) for name in names for end in ends for side in ("up", "down")}
    known |= {f"{name}.lora_{side}.weight" for name in names for side in "AB"}
    assert not set(load_file(paths["peft"])) - known


def test_no_partial_file_is_left_behind(live):
    _, paths = live
    assert sorted(path.name for path in paths["kohya"].parent.iterdir()) == [
        "lora.peft.safetensors",
        "lora.safetensors",
    ]


def test_files_are_not_trusted(base, chibi, live, tmp_path):
    _, paths = live
    path = tmp_path / "bad.safetensors"
    for written, why in (
        ((1 << 40).to_bytes(8, "little") + b"{}", "header"),
        ((5).to_bytes(8, "little") + b"nojso", "can't be read"),
        ((2).to_bytes(8, "little") + b"[]", "can't be read"),
    ):
        path.write_bytes(written)
        with pytest.raises(BadLora, match=why):
            files.read(path, base)
    save_file({f"t{n}.lora_up.weight": torch.zeros(1) for n in range(MAX_TENSORS + 1)}, path)
    with pytest.raises(BadLora, match=f"{MAX_TENSORS} are allowed"):
        files.read(path, base)
    save_file({"lora_unet_conv_in.hada_w1_a": torch.zeros(1)}, path)
    with pytest.raises(BadLora, match=r"lora_unet_conv_in: its hada_w1_b is missing"):
        files.read(path, base)
    with pytest.raises(BadLora, match=r"there is no module|would fit"):
        files.read(paths["kohya"], chibi)


def test_a_file_without_alpha_has_full_strength(live, base, tmp_path):
    """ComfyUI, A1111 and sd-scripts agree on this."""
    _, paths = live
    path = tmp_path / "plain.safetensors"
    save_file({k: v for k, v in load_file(paths["kohya"]).items() if not k.endswith(".alpha")}, path)
    assert all(change.alpha == change.rank for change in files.read(path, base)["unet"].values())


def test_the_header_is_readable_without_our_code(live):
    _, paths = live
    with safe_open(paths["kohya"], framework="pt") as file:
        assert file.metadata()["ss_seed"] == "7"


def test_what_does_not_fit_is_refused(base, live, tmp_path):
    _, paths = live
    tensors, path = load_file(paths["kohya"]), tmp_path / "bad.safetensors"
    name = "lora_unet_mid_block_attentions_0_proj_in"
    for side, wrong in {
        "lora_up.weight": torch.zeros(7, 4, 1, 1),
        "lora_down.weight": torch.zeros(0, 32, 1, 1),
        "alpha": torch.zeros(2),
    }.items():
        save_file(tensors | {f"{name}.{side}": wrong}, path)
        with pytest.raises(BadLora, match=f"{name}: its"):
            files.read(path, base)
    save_file({key: tensor for key, tensor in tensors.items() if key != f"{name}.lora_up.weight"}, path)
    with pytest.raises(BadLora, match=f"{name}: its up is missing"):
        files.read(path, base)


@pytest.mark.parametrize("others", ["lora_te1_text_model_", "lora_te_text_model_"])
def test_the_text_encoder_is_known_by_the_names_that_other_tools_give_it(live, base, tmp_path, others):
    _, paths = live
    path, tensors = tmp_path / "other.safetensors", load_file(paths["kohya"])
    save_file({key.replace("lora_te_text_model_", others): tensor for key, tensor in tensors.items()}, path)
    assert len(files.read(path, base)["text_encoder"]) == 2 * 6
