"""LoRA files: the golden tests. What other tools make of them is what was trained."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from workers.diffusion import adapter, lora_file
from workers.diffusion.lora_file import About, BadLora
from workers.diffusion.train import train_lora

ABOUT = About("eiei21girl-character", "eiei21girl", description="A test.", license="CC0-1.0")


def is_near(read: torch.Tensor, delta: torch.Tensor) -> bool:
    """As near as fp16 can be."""
    return read.shape == delta.shape and bool((read - delta).abs().max() <= 2e-3 * delta.abs().max())


@pytest.fixture(scope="module")
def live(base, examples, params, tmp_path_factory):
    """A LoRA of UNet and text encoder with alpha != rank, its files, and each module's change while it was live."""
    params = replace(params, lora_modules="all", train_steps=3, learning_rate=0.02, text_encoder_learning_rate=0.02)
    assert params.alpha != params.rank
    deltas = {}

    def note(step: int, loss: float) -> None:
        deltas.update(
            {
                f"{component}.{path}": layer.get_delta_weight(adapter.NAME).detach().clone()
                for component, model in base.components.items()
                for path, layer in model.named_modules()
                if isinstance(layer, LoraLayer)
            }
        )

    lora = train_lora(base, examples, params, on_step=note)
    folder = tmp_path_factory.mktemp("files")
    files = {"kohya": folder / "lora.safetensors", "peft": folder / "lora.peft.safetensors"}
    lora_file.save(lora, base, ABOUT, **files)
    return lora, files, deltas


@pytest.mark.parametrize("form", ["kohya", "peft"])
def test_diffusers_reads_the_same_change_of_every_module(live, tiny_folder, form):
    _, files, deltas = live
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_folder, local_files_only=True, safety_checker=None)
    pipeline.load_lora_weights(
        str(files[form].parent), weight_name=files[form].name, adapter_name="her",
        use_safetensors=True, local_files_only=True,
    )  # fmt: skip
    read = {
        f"{component}.{path}": layer.get_delta_weight("her")
        for component in ("unet", "text_encoder")
        for path, layer in getattr(pipeline, component).named_modules()
        if isinstance(layer, LoraLayer)
    }
    assert set(read) == set(deltas)
    assert min(delta.abs().max() for delta in deltas.values()) > 1e-4
    for name, delta in deltas.items():
        assert is_near(read[name], delta), name


@pytest.mark.parametrize("form", ["kohya", "peft"])
def test_we_read_what_we_wrote(live, base, form):
    _, files, deltas = live
    weights = lora_file.read(files[form], base)
    changes = {f"{c}.{path}": change.delta() for c, found in weights.items() for path, change in found.items()}
    assert set(changes) == set(deltas)
    for name, delta in deltas.items():
        assert is_near(changes[name], delta), name


def test_alpha_is_what_was_asked_for(live):
    lora, files, _ = live
    alphas = [tensor for key, tensor in load_file(files["kohya"]).items() if key.endswith(".alpha")]
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
    _, files, _ = live
    tensors = load_file(files["kohya"])
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
    _, files, _ = live
    metadata = lora_file.read_metadata(files["kohya"])
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


def test_hashes_are_those_of_the_tensor_bytes(live):
    _, files, _ = live
    data = files["kohya"].read_bytes()
    digest = hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()
    metadata = lora_file.read_metadata(files["kohya"])
    assert metadata["sshs_model_hash"] == digest
    assert metadata["modelspec.hash_sha256"] == f"0x{digest}"
    assert len(metadata["sshs_legacy_hash"]) == 8


def test_the_peft_file_names_the_text_encoder_as_every_transformers_reads_it(live):
    _, files, _ = live
    keys = [key for key in load_file(files["peft"]) if not key.startswith("unet.")]
    assert "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight" in keys
    assert all(key.startswith("text_encoder.text_model.encoder.") for key in keys)


def test_the_peft_file_keeps_the_adapter_config(live):
    _, files, _ = live
    config = json.loads(lora_file.read_metadata(files["peft"])["lora_adapter_metadata"])
    assert (config["unet.r"], config["unet.lora_alpha"]) == (4, 2.0)
    assert (config["text_encoder.r"], config["text_encoder.lora_alpha"]) == (4, 2.0)


def test_no_partial_file_is_left_behind(live):
    _, files, _ = live
    assert sorted(path.name for path in files["kohya"].parent.iterdir()) == [
        "lora.peft.safetensors",
        "lora.safetensors",
    ]


def test_files_are_not_trusted(base, chibi, live, tmp_path):
    _, files, _ = live
    path = tmp_path / "bad.safetensors"
    path.write_bytes((1 << 40).to_bytes(8, "little") + b"{}")
    with pytest.raises(BadLora, match="header"):
        lora_file.read_metadata(path)
    path.write_bytes((5).to_bytes(8, "little") + b"nojso")
    with pytest.raises(BadLora, match="can't be read"):
        lora_file.read_metadata(path)
    path.write_bytes((2).to_bytes(8, "little") + b"[]")
    with pytest.raises(BadLora):
        lora_file.read_metadata(path)
    save_file({f"t{n}": torch.zeros(1) for n in range(lora_file.MAX_TENSORS + 1)}, path)
    with pytest.raises(BadLora, match="over the limit"):
        lora_file.read_metadata(path)
    save_file({"lora_unet_conv_in.hada_w1_a": torch.zeros(1)}, path)
    with pytest.raises(BadLora, match="no part of a plain LoRA"):
        lora_file.read(path, base)
    with pytest.raises(BadLora, match=r"for chibi|another base model"):
        lora_file.read(files["kohya"], chibi)


def test_a_file_without_alpha_has_full_strength(live, base, tmp_path):
    """ComfyUI, A1111 and sd-scripts agree on this."""
    _, files, _ = live
    path = tmp_path / "plain.safetensors"
    save_file({k: v for k, v in load_file(files["kohya"]).items() if not k.endswith(".alpha")}, path)
    assert all(change.alpha == change.rank for change in lora_file.read(path, base)["unet"].values())


def test_the_header_is_readable_without_our_code(live):
    _, files, _ = live
    with safe_open(files["kohya"], framework="pt") as file:
        assert file.metadata()["ss_seed"] == "7"
