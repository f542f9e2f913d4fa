"""What the header of a LoRA file shows, for each family, spelling and kind, and which files are refused."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from shared.checkpoints.header import BadModel, header_of, read_header
from shared.lora_files import modules
from shared.lora_files.kinds import BadLora
from shared.lora_files.modules import MODELS
from shared.lora_files.recognition import Recognised, recognise
from shared.lora_files.values import check_finite
from tests.lora_files.made import Tensors, attention, kohya_name, lora, safetensors, sgm_name, some


def told(tmp_path: Path, tensors: Tensors, metadata: dict[str, str] | None = None, **given: str) -> Recognised:
    path = tmp_path / "foreign.safetensors"
    path.write_bytes(safetensors(tensors, metadata))
    return recognise(read_header(path), **given)


@pytest.mark.parametrize("family", MODELS)
def test_the_family_is_told_by_names_and_widths(tmp_path: Path, family: str) -> None:
    found = told(tmp_path, lora(attention(family)))
    assert (found.family, found.kinds, found.rank) == (family, ["lora"], 2)
    assert set(found.parts) == {module.part for module in modules.of_family(family)}


@pytest.mark.parametrize("family", ["sd15", "sd2", "sdxl"])
def test_a_locon_of_everything_in_stability_s_names_is_told(tmp_path: Path, family: str) -> None:
    found = told(tmp_path, lora(modules.of_family(family), sgm_name))
    assert (found.family, found.kinds) == (family, ["locon", "lora"])
    assert sum(found.parts.values()) == len(modules.of_family(family))


def test_kinds_are_told(tmp_path: Path) -> None:
    linear, kernel, other = some("sd15", "attn1.to_q", "resnets.0.conv1", "attn2.to_k")
    tensors = lora([linear]) | {f"{kohya_name(linear)}.dora_scale": ("F32", (320, 1))}
    flat = kernel.shape[1] * 9
    tensors |= {f"{kohya_name(kernel)}.hada_w{n}_a": ("F16", (320, 4)) for n in (1, 2)}
    tensors |= {f"{kohya_name(kernel)}.hada_w{n}_b": ("F16", (4, flat)) for n in (1, 2)}
    tensors |= {f"{kohya_name(other)}.lokr_w1": ("F16", (4, 2)), f"{kohya_name(other)}.lokr_w2": ("F16", (80, 384))}
    found = told(tmp_path, tensors)
    assert (found.kinds, found.rank) == (["dora", "loha", "lokr", "lora"], 4)


def test_what_fits_two_families_is_asked_for(tmp_path: Path) -> None:
    """Attention to itself is as wide in SD 2.x as in SD 1.x."""
    tensors = lora(some("sd15", "attn1.to_q", "attn1.to_v"))
    with pytest.raises(BadLora, match=r"SD 1\.x and SD 2\.x") as refused:
        told(tmp_path, tensors)
    assert refused.value.code == "family_unclear"
    assert told(tmp_path, tensors, family="sd2").family == "sd2"
    assert told(tmp_path, tensors, {"ss_base_model_version": "sd_v1"}).family == "sd15"
    assert told(tmp_path, tensors, {"modelspec.architecture": "stable-diffusion-v2-512/lora"}).family == "sd2"


def test_another_family_than_the_one_that_is_meant_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadLora, match=r"as a LoRA for SD 2\.x: .*its down has the shape \[2, 768\]"):
        told(tmp_path, lora(attention("sd15")), family="sd2")


def test_a_shape_that_fits_nothing_is_named(tmp_path: Path) -> None:
    tensors = lora(attention("sdxl"))
    key = f"{kohya_name(attention('sdxl')[3])}.lora_up.weight"
    tensors[key] = ("F16", (7, 2))
    with pytest.raises(BadLora, match=r"SDXL: lora_unet_.*its up has the shape \[7, 2\]") as refused:
        told(tmp_path, tensors)
    assert refused.value.code == "lora_does_not_fit"


OTHERS = {
    "a checkpoint": ({"model.diffusion_model.input_blocks.0.0.weight": (4, 4)}, "not_a_lora"),
    "a ControlNet": ({"control_model.input_blocks.0.0.weight": (4, 4)}, "not_a_lora"),
    "an embedding": ({"emb_params": (4, 768)}, "not_a_lora"),
    "a VAE": ({"decoder.conv_in.weight": (4, 4)}, "not_a_lora"),
    "no change of a weight": ({"text_model.encoder.layers.0.mlp.fc1.weight": (4, 4)}, "not_a_lora"),
    "another kind of base model": (
        {"lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight": (4, 2)},
        "lora_for_another_family",
    ),
    "in no base model": ({"lora_unet_new_block_0.lora_up.weight": (4, 2)}, "lora_for_another_family"),
    "GLoRA": ({f"{kohya_name(some('sd15', 'attn1.to_q')[0])}.a1.weight": (4, 2)}, "lora_kind_not_read"),
    "isn't part of a LoRA": (
        {"lora_unet_mid_block_attentions_0_proj_in.lora_up.weight": (4, 2), "and.something": (1, 1)},
        "lora_kind_not_read",
    ),
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_is_no_lora_of_ours_is_named(tmp_path: Path, what: str) -> None:
    tensors, code = OTHERS[what]
    with pytest.raises(BadLora, match=what) as refused:
        told(tmp_path, {key: ("F16", shape) for key, shape in tensors.items()})
    assert refused.value.code == code
    named = next(iter(tensors)).partition(".lora_up")[0]
    assert named in str(refused.value) or "and.something" in str(refused.value)


def test_one_module_under_two_names_is_refused(tmp_path: Path) -> None:
    (module,) = some("sdxl", "attn1.to_q")
    with pytest.raises(BadLora, match=r"it changes .* as"):
        told(tmp_path, lora([module]) | lora([module], sgm_name))


def test_the_lengths_of_a_weight_may_not_be_there_twice(tmp_path: Path) -> None:
    (module,) = some("sdxl", "attn1.to_q")
    name, out = kohya_name(module), module.shape[0]
    twice = {f"{name}.dora_scale": ("F16", (out, 1)), f"{name}.lora_magnitude_vector": ("F16", (out,))}
    with pytest.raises(BadLora, match="both dora_scale and magnitude"):
        told(tmp_path, lora([module]) | twice)


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadLora, match="of the type F8_E4M3"):
        told(tmp_path, lora(attention("sd15"), dtype="F8_E4M3"))


def test_an_alpha_may_be_a_whole_number(tmp_path: Path) -> None:
    tensors = lora(attention("sd15"))
    whole = {
        key: ("I64", shape) if key.endswith(".alpha") else (type_, shape) for key, (type_, shape) in tensors.items()
    }
    assert told(tmp_path, whole).family == "sd15"


def test_a_header_that_lies_of_its_shapes_is_refused(tmp_path: Path) -> None:
    text = json.dumps(
        {"lora_unet_x.lora_up.weight": {"dtype": "F16", "shape": [1 << 40], "data_offsets": [0, 4]}}
    ).encode()
    path = tmp_path / "lies.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    with pytest.raises(BadModel, match="contradicts itself"):
        read_header(path)


INFINITE = {
    "F16": [b"\x00\x7c", b"\x00\xfc", b"\x01\x7e"],
    "BF16": [b"\x80\x7f", b"\x80\xff", b"\xc0\x7f"],
    "F32": [struct.pack("<f", float(word)) for word in ("inf", "-inf", "nan")],
    "F64": [struct.pack("<d", float(word)) for word in ("inf", "-inf", "nan")],
}
LARGE = {
    "F16": b"\xff\x7b",
    "BF16": b"\x7f\x7f",
    "F32": b"\xff\xff\x7f\x7f",
    "F64": b"\xff\xff\xff\xff\xff\xff\xef\x7f",
}


@pytest.mark.parametrize("dtype", INFINITE)
@pytest.mark.parametrize("place", [0, 1, (1 << 20) // 8, 140_000])
def test_numbers_that_are_infinite_or_nan_are_found_anywhere(tmp_path: Path, dtype: str, place: int) -> None:
    path, count = tmp_path / "x.safetensors", 140_001  # more than one piece is read of the wider types
    for wrong in INFINITE[dtype]:
        width = len(wrong)
        content = LARGE[dtype] * place + wrong + LARGE[dtype] * (count - place - 1)
        path.write_bytes(safetensors({"a": (dtype, (1,)), "b": (dtype, (count,))}, values={"b": content}))
        with pytest.raises(BadLora, match="b holds infinite or NaN") as refused, path.open("rb") as file:
            check_finite(file, header_of(file))
        assert refused.value.code == "not_finite"
        path.write_bytes(safetensors({"b": (dtype, (count,))}, values={"b": LARGE[dtype] * count}))
        with path.open("rb") as file:
            check_finite(file, header_of(file))
        assert len(content) == count * width
