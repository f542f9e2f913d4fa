"""What a checkpoint is, told by its header alone."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.catalog import BaseModel
from shared.checkpoints.scan import Scan
from tests.checkpoints import corpus
from tests.checkpoints.corpus import EMA, SD1, SD2, SDXL, UNET, VAE, Shapes

Look = Callable[..., BaseModel]


@pytest.fixture
def look(tmp_path: Path) -> Look:
    """The base model that a file of these tensors is."""

    def look(shapes: Shapes | None = None, name: str = "mine", sidecar: str = "", **more: Any) -> BaseModel:
        folder = tmp_path / "models"
        folder.mkdir(exist_ok=True)
        if shapes is not None:
            corpus.write(folder / f"{name}.safetensors", shapes, **more)
        if sidecar:
            (folder / f"{name}.toml").write_text(sidecar)
        return Scan(folder, None).look()[name]

    return look


# --- families, and what fills in what a file does not say


@pytest.mark.parametrize(
    ("shapes", "family", "resolution", "prediction"),
    [(SD1, "sd15", 512, "epsilon"), (SD2, "sd2", 768, "v_prediction"), (SDXL, "sdxl", 1024, "epsilon")],
)
def test_the_family_is_told_by_names_and_shapes_and_the_rest_is_filled_in_and_said(
    look: Look, shapes: Shapes, family: str, resolution: int, prediction: str
) -> None:
    found = look(shapes)
    assert (found.problem, found.family, found.resolution, found.prediction_type) == (
        "",
        family,
        resolution,
        prediction,
    )
    assert any(note.startswith(f"prediction_type: {prediction}, as usual for") for note in found.notes)
    assert any(note.startswith(f"resolution: {resolution}, as usual for") for note in found.notes)


def test_the_markers_of_a_v_model_with_zero_terminal_snr_are_read(look: Look) -> None:
    v = look(SDXL | {"v_pred": ()})
    assert (v.prediction_type, v.zero_terminal_snr) == ("v_prediction", False)
    both = look(SDXL | {"v_pred": (), "ztsnr": ()})
    assert (both.prediction_type, both.zero_terminal_snr) == ("v_prediction", True)
    assert not any("prediction_type" in note for note in both.notes)


def test_the_metadata_of_modelspec_is_read(look: Look) -> None:
    said = {"architecture": "stable-diffusion-v1", "prediction_type": "v", "resolution": "768x768", "title": "My model"}
    found = look(
        SD1, metadata={f"modelspec.{key}": value for key, value in said.items()} | {"modelspec.license": "MIT"}
    )
    assert (found.prediction_type, found.resolution, found.description) == ("v_prediction", 768, "My model")
    assert (found.license, found.commercial_use, found.hosting) == ("MIT", "yes", "yes")


@pytest.mark.parametrize(("dtype", "word"), [("F32", "fp32"), ("F16", "fp16"), ("BF16", "bf16"), ("F8_E4M3", "fp8")])
def test_the_precision_is_said(look: Look, dtype: str, word: str) -> None:
    assert f"its UNet is stored in {word}" in look(SD1, dtype=dtype).notes


def test_a_name_tells_what_nothing_else_does(look: Look) -> None:
    assert look(SDXL, name="noobaiXL_vPred10").prediction_type == "v_prediction"
    assert look(SDXL, name="noobaiXL_epsPred11").prediction_type == "epsilon"
    assert "prediction_type: only its name says it" in look(SDXL, name="noobaiXL_vPred10").notes


def test_a_small_sd2_predicts_the_noise(look: Look) -> None:
    assert look(SD2, metadata={"modelspec.resolution": "512x512"}).prediction_type == "epsilon"
    small = look(SD2, sidecar='prediction_type = "epsilon"\n')
    assert (small.prediction_type, small.resolution) == ("epsilon", 512)


@pytest.mark.parametrize(
    ("name", "lineage", "commercial_use"),
    [
        ("animagine-xl-4.0", "animagine", "yes"),
        ("Illustrious-XL-v1.1", "illustrious", "ask"),
        ("NoobAI-XL-v1.1", "noobai", "no"),
        ("ponyDiffusionV6XL", "pony", "ask"),
        ("myMerge", "", "unknown"),
    ],
)
def test_the_lineage_of_an_sdxl_is_told_by_its_name(look: Look, name: str, lineage: str, commercial_use: str) -> None:
    found = look(SDXL, name=name)
    assert (found.lineage, found.commercial_use) == (lineage, commercial_use)
    assert look(SD1, name=name).lineage == ""


def test_the_row_says_it_otherwise(look: Look) -> None:
    sidecar = 'lineage = "pony"\ncommercial_use = "yes"\nhosting = "yes"\nlicense = "by mail"\n'
    found = look(SDXL, name="NoobAI", sidecar=sidecar)
    assert (found.lineage, found.license, found.commercial_use, found.hosting) == ("pony", "by mail", "yes", "yes")
    assert any(note.startswith("lineage: pony, as its row says") for note in found.notes)


def test_ema_weights_beside_plain_ones_are_ignored_and_said(look: Look) -> None:
    found = look(SD1 | EMA)
    assert found.problem == ""
    assert any("EMA" in note for note in found.notes)


def test_a_text_encoder_without_the_level_text_model_is_one(look: Look) -> None:
    assert look({key.replace("text_model.", ""): shape for key, shape in SD1.items()}).family == "sd15"


# --- contradictions


@pytest.mark.parametrize(
    ("shapes", "name", "metadata", "both"),
    [
        (
            SDXL | {"v_pred": ()},
            "x",
            {"modelspec.prediction_type": "epsilon"},
            ("`v_pred`", "modelspec.prediction_type"),
        ),
        (SDXL, "x-vpred", {"modelspec.prediction_type": "epsilon"}, ("modelspec.prediction_type", "the name x-vpred")),
        (SD1, "x", {"modelspec.architecture": "stable-diffusion-xl-v1-base"}, ("width", "modelspec.architecture")),
        (corpus.unet(768) | VAE | corpus.OPEN_CLIP_H, "x", {}, ("SD 1.x", "SD 2.x")),
    ],
)
def test_a_contradiction_names_both_sides(
    look: Look, shapes: Shapes, name: str, metadata: dict[str, str], both: tuple[str, str]
) -> None:
    problem = look(shapes, name=name, metadata=metadata).problem
    assert "contradict each other" in problem
    assert all(side in problem for side in both)


def test_the_row_decides_a_contradiction(look: Look) -> None:
    given: dict[str, Any] = {"metadata": {"modelspec.prediction_type": "epsilon"}}
    found = look(SDXL | {"v_pred": ()}, sidecar='prediction_type = "v_prediction"\n', **given)
    assert (found.problem, found.prediction_type) == ("", "v_prediction")


def test_a_row_can_not_make_another_family_of_a_file(look: Look) -> None:
    assert "`family`" in look(SDXL, sidecar='family = "sd15"\n').problem


# --- what is no base model


@pytest.mark.parametrize(
    ("shapes", "what"),
    [
        (corpus.sdxl_unet(1280) | VAE | corpus.SDXL_TEXT, "refiner"),
        (corpus.unet(768, channels=9) | VAE | corpus.CLIP_L, "inpainting"),
        (SD1 | {f"{corpus.UNET}input_blocks.0.0.weight": (320, 4)}, "has the shape [320, 4]"),
        (corpus.unet(768, channels=3) | VAE | corpus.CLIP_L, "takes 3 channels"),
        (corpus.unet(768, channels=8) | VAE | corpus.CLIP_L, "by instruction"),
        (corpus.unet(1024, channels=5) | VAE | corpus.OPEN_CLIP_H, "depth"),
        (corpus.sdxl_unet(depth=4) | VAE | corpus.SDXL_TEXT, "distilled SDXL"),
        (SDXL | {"edm_mean": (4,), "edm_std": (4,)}, "Playground"),
        (SDXL | {"edm_vpred.sigma_max": (), "edm_vpred.sigma_min": ()}, "EDM"),
        ({f"{UNET}joint_blocks.0.x_block.attn.qkv.weight": (8, 8)}, "Stable Diffusion 3"),
        ({f"{UNET}double_blocks.0.img_attn.qkv.weight": (8, 8)}, "Flux"),
        ({"double_blocks.0.img_attn.qkv.weight": (8, 8), "double_stream_modulation_img.lin.weight": (8, 8)}, "Flux.2"),
        ({"net.blocks.0.self_attn.q_proj.weight": (8, 8), "net.llm_adapter.embed.weight": (8, 8)}, "Anima"),
        ({"cap_embedder.1.weight": (8, 8), "cap_pad_token": (1, 8)}, "Z-Image"),
        ({"cap_embedder.1.weight": (8, 8), "noise_refiner.0.attention.qkv.weight": (8, 8)}, "Lumina"),
        ({"transformer_blocks.0.attn.add_q_proj.weight": (8, 8), "txt_norm.weight": (8,)}, "Qwen-Image"),
        ({"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": (4, 8)}, "a LoRA"),
        ({"unet.mid_block.attentions.0.proj_in.lora_A.weight": (4, 8)}, "a LoRA"),
        ({"lora_unet_x.hada_w1_a": (4, 8)}, "a LoRA"),
        (VAE, "a VAE"),
        ({"decoder.conv_in.weight": (512, 4, 3, 3), "encoder.conv_in.weight": (128, 3, 3, 3)}, "a VAE"),
        ({"emb_params": (4, 768)}, "an embedding"),
        ({"clip_l": (4, 768), "clip_g": (4, 1280)}, "an embedding"),
        ({"control_model.input_blocks.0.0.weight": (320, 4, 3, 3)}, "a ControlNet"),
        ({"text_model.encoder.layers.0.self_attn.q_proj.weight": (768, 768)}, "a text encoder"),
        (EMA, "only EMA weights"),
        (corpus.unet(768), "only a UNet"),
        (corpus.sdxl_unet(), "only a UNet"),
        ({"conv_in.weight": (320, 4, 3, 3), "down_blocks.0.resnets.0.conv1.weight": (320, 320, 3, 3)}, "only a UNet"),
        (corpus.unet(768) | VAE, "no complete text encoder"),
        (corpus.unet(768) | corpus.CLIP_L, "no VAE"),
        (SD1 | {"model.diffusion_model.x.weight.SCB": (4,)}, "quantised"),
        ({"something.else": (4,)}, "something.else"),
        (corpus.unet(320) | VAE | corpus.CLIP_L, "`family`"),
    ],
)
def test_what_is_no_base_model_is_named_with_what_to_do(look: Look, shapes: Shapes, what: str) -> None:
    found = look(shapes)
    assert what in found.problem
    assert any(word in found.problem for word in ("use ", "take ", "name ", "convert "))


def test_other_architectures_of_modelspec_are_refused_by_name(look: Look) -> None:
    assert (
        "stable-diffusion-v1/lora" in look(SD1, metadata={"modelspec.architecture": "stable-diffusion-v1/lora"}).problem
    )


def test_a_vae_of_the_sidecar_completes_a_file_without_one(look: Look, tmp_path: Path) -> None:
    half = corpus.unet(768) | corpus.CLIP_L
    vae = corpus.write(tmp_path / "vae.safetensors", VAE)
    assert look(half, sidecar='vae = "../vae.safetensors"\n').vae == str(vae)
    corpus.write(vae, SD1)
    assert look(half, sidecar='vae = "../vae.safetensors"\n').problem == ""
    corpus.write(vae, corpus.CLIP_L)
    assert "no decoder" in look(half, sidecar='vae = "../vae.safetensors"\n').problem
    assert "not there" in look(half, sidecar='vae = "../other.safetensors"\n').problem


# --- broken files


HEADER = {"w": {"dtype": "F16", "shape": [2, 2], "data_offsets": [0, 8]}}


def header(**changes: Any) -> bytes:
    return json.dumps({"w": HEADER["w"] | changes}).encode()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "empty"),
        (b"1234", "truncated"),
        (b"<!DOCTYPE html><html><body>Please log in</body></html>", "web page"),
        (b"\xef\xbb\xbf\n<html lang=en><body>Please log in</body></html>", "web page"),
        (b'{"error": "Invalid username or password."}', "JSON"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n", "Git LFS"),
        (b"PK\x03\x04" + bytes(60), "pickle"),
        (b"\x80\x02}q\x00." + bytes(60), "pickle"),
        (b"GGUF" + bytes(60), "GGUF"),
        (struct.pack("<Q", 4 * 2**30) + b"{}" + bytes(60), "4294967296 bytes"),
        (struct.pack("<Q", 2**63 + 5) + b"{}" + bytes(60), "isn't a .safetensors file"),
        (struct.pack("<Q", 500) + b"{}" + bytes(60), "truncated"),
        (struct.pack("<Q", 60) + b"{" * 60, "can't be read"),
        (struct.pack("<Q", 61) + b"[" * 61, "can't be read"),
        (struct.pack("<Q", 2) + b"{}", "no weights"),
        (struct.pack("<Q", 4) + b"\xff\xfe{}", "can't be read"),
        (struct.pack("<Q", 62) + b" " * 60 + b"{}", "doesn't begin with {"),
    ],
)
def test_a_file_that_is_none_is_named(look: Look, tmp_path: Path, content: bytes, what: str) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine.safetensors").write_bytes(content)
    assert what in look().problem


@pytest.mark.parametrize(
    ("written", "weights", "what"),
    [
        (header(shape=[2, 3]), 8, "needs 12 bytes and has 8"),
        (header(shape=[2**40, 2**40]), 8, "contradicts itself"),
        (header(shape=[-2, -2]), 8, "impossible shape"),
        (header(shape=[1] * 65), 2, "65 dimensions, and 64 are allowed"),
        (header(shape="2x2"), 8, "can't be read"),
        (header(dtype="F12"), 8, "unknown type 'F12'"),
        (header(data_offsets=[8, 16]), 16, "begins at byte 8"),
        (header(data_offsets=[8, 0]), 8, "contradicts itself"),
        (header(data_offsets=[0, 8, 16]), 8, "can't be read"),
        (header(), 4, "truncated: 4 of 8 bytes"),
        (header(), 12, "4 bytes more"),
        (json.dumps(HEADER | {"v": HEADER["w"]}).encode(), 8, "begins at byte 0"),
        (json.dumps({"w": 5}).encode(), 0, "can't be read"),
        (b'{"w": ' + b"[" * 5000 + b"]" * 5000 + b"}", 0, "can't be read"),
    ],
)
def test_a_header_that_lies_is_refused(look: Look, tmp_path: Path, written: bytes, weights: int, what: str) -> None:
    corpus.write_raw(tmp_path / "models" / "mine.safetensors", written, weights)
    assert what in look().problem


def test_a_truncated_checkpoint_says_how_much_is_missing(look: Look, tmp_path: Path) -> None:
    path = corpus.write(tmp_path / "models" / "mine.safetensors", SD1)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size - 1000)
    assert "truncated: 1000 of" in look().problem
    assert look(SD1).problem == ""  # once it is whole


def test_a_name_or_text_that_no_table_can_hold_stops_nothing(look: Look) -> None:
    found = look(SD1, metadata={"modelspec.title": "A\0B\nC", "modelspec.license": "MIT\0"})
    mark = "\N{REPLACEMENT CHARACTER}"
    assert (found.description, found.license, found.commercial_use) == (f"A{mark}B C", f"MIT{mark}", "yes")
    assert "\0" not in look({"odd\0key": (2, 2)}, name="other").problem


@pytest.mark.parametrize(
    "license",
    [
        *("CC-BY-NC-4.0", "non-commercial", "Not for commercial use (after Apache 2.0)", "MIT, but no commercial use"),
        *("OpenRAIL; noncommercial", "commercial use is not allowed; CC0 in parts", "prohibits commercial use, MIT"),
    ],
)
def test_a_licence_that_forbids_commercial_use_is_told_whatever_else_it_names(look: Look, license: str) -> None:
    assert look(SD1, metadata={"modelspec.license": license}).commercial_use == "no"


def test_zero_terminal_snr_without_v_is_a_contradiction(look: Look) -> None:
    assert "predicts epsilon, which learns nothing at the last time" in look(SDXL | {"ztsnr": ()}).problem
    assert look(sidecar='prediction_type = "v_prediction"').problem == ""


# --- folders


def folder_of(look: Look, tmp_path: Path, sidecar: str = "", **given: Any) -> BaseModel:
    corpus.write_folder(tmp_path / "models" / "mine", **given)
    return look(sidecar=sidecar)


def test_a_diffusers_folder_says_it_all(look: Look, tmp_path: Path) -> None:
    scheduler = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    width = {"cross_attention_dim": 2048, "sample_size": 128}
    found = folder_of(look, tmp_path, kind="StableDiffusionXLPipeline", unet=width, scheduler=scheduler)
    assert (found.problem, found.family, found.resolution) == ("", "sdxl", 1024)
    assert (found.prediction_type, found.zero_terminal_snr) == ("v_prediction", True)


def test_a_folder_with_nothing_but_fp16_weights_is_read(look: Look, tmp_path: Path) -> None:
    note = "some of its weights are there as fp16 only"
    found = folder_of(look, tmp_path, suffix=".fp16.safetensors")
    assert (found.problem, note in found.notes) == ("", True)
    assert note not in folder_of(look, tmp_path).notes  # now it has both


def test_a_folder_in_shards_must_have_them_all(look: Look, tmp_path: Path) -> None:
    unet = tmp_path / "models" / "mine" / "unet"
    corpus.write_folder(unet.parent)
    (unet / "diffusion_pytorch_model.safetensors").rename(unet / "diffusion_pytorch_model-00001-of-00002.safetensors")
    shards = {"a": "diffusion_pytorch_model-00001-of-00002.safetensors"}
    index = unet / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": shards}))
    assert look().problem == ""
    index.write_text(json.dumps({"weight_map": shards | {"b": "diffusion_pytorch_model-00002-of-00002.safetensors"}}))
    assert "00002-of-00002.safetensors is missing" in look().problem
    index.write_text(json.dumps({"weight_map": {"b": "../../../../etc/passwd"}}))
    assert "missing" in look().problem
    index.write_text("{}")
    assert "names no shards" in look().problem


@pytest.mark.parametrize(
    "shard", ["diffusion_pytorch_model.fp16-00001-of-00001", "diffusion_pytorch_model-00001-of-00001.fp16"]
)
def test_shards_of_a_variant_are_noted(look: Look, tmp_path: Path, shard: str) -> None:
    unet = corpus.write_folder(tmp_path / "models" / "mine") / "unet"
    (unet / "diffusion_pytorch_model.safetensors").rename(unet / f"{shard}.safetensors")
    index = {"weight_map": {"weight": f"{shard}.safetensors"}}
    (unet / "diffusion_pytorch_model.safetensors.index.fp16.json").write_text(json.dumps(index))
    assert "some of its weights are there as fp16 only" in look().notes


def test_a_folder_with_another_variant_alone_holds_no_weights(look: Look, tmp_path: Path) -> None:
    assert "holds no weights" in folder_of(look, tmp_path, suffix=".non_ema.safetensors").problem


XL = {"kind": "StableDiffusionXLPipeline", "unet": {"cross_attention_dim": 2048}}


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"kind": "FluxPipeline"}, "FluxPipeline"),
        ({"kind": "StableDiffusionInpaintPipeline"}, "StableDiffusionInpaintPipeline"),
        ({"unet": {"in_channels": 9}}, "inpainting"),
        ({"unet": {"cross_attention_dim": 1280}}, "refiner"),
        ({"unet": {"cross_attention_dim": [768, 768]}}, "`family`"),
        ({**XL, "without": ("text_encoder_2",)}, "text_encoder_2"),
        ({"kind": "StableDiffusionXLPipeline"}, "contradict each other"),
        ({"scheduler": {"prediction_type": "sample"}}, "sample"),
        ({"scheduler": {"_class_name": "EDMDPMSolverMultistepScheduler"}}, "EDM"),
        ({"without": ("unet",)}, "unet holds no weights"),
        ({"without": ("vae",)}, "no VAE"),
        ({"without": ("model_index.json",)}, "model_index.json"),
        ({"without": ("scheduler/scheduler_config.json",)}, "scheduler_config.json"),
        ({"suffix": ".bin"}, "pickles"),
    ],
)  # fmt: skip
def test_a_folder_that_can_not_be_used_says_why(look: Look, tmp_path: Path, given: Any, what: str) -> None:
    assert what in folder_of(look, tmp_path, **given).problem


def test_a_damaged_part_of_a_folder_is_named(look: Look, tmp_path: Path) -> None:
    folder = corpus.write_folder(tmp_path / "models" / "mine")
    (folder / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"<html>")
    assert "vae/diffusion_pytorch_model.safetensors: this is a web page" in look().problem


def test_a_small_model_is_used_once_its_row_names_its_family(look: Look, tmp_path: Path) -> None:
    small = {"cross_attention_dim": 32, "sample_size": 8}
    assert "`family`" in folder_of(look, tmp_path, unet=small).problem
    found = folder_of(look, tmp_path, unet=small, sidecar='family = "sd15"\nresolution = 32\n')
    assert (found.problem, found.family, found.resolution) == ("", "sd15", 32)
