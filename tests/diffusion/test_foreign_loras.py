"""LoRAs that other tools have written: each kind of change against the same change computed by hand, in fp64.

The formulas here are written out anew, index by index, from the papers that `workers/diffusion/lora/changes.py` names.
"""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from shared.lora_files.kinds import BadLora
from tests.diffusion.tiny import output
from workers.diffusion.lora import files
from workers.diffusion.lora.weights import merged

LINEAR = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
KERNEL = "down_blocks.1.resnets.0.conv2"
RANK, ALPHA = 3, 1.5

Arrays = dict[str, np.ndarray]


def kohya(path: str) -> str:
    return "lora_unet_" + path.replace(".", "_")


def shape_of(base: Any, path: str) -> tuple[int, ...]:
    return tuple(base.unet.get_parameter(f"{path}.weight").shape)


def randoms(**shapes: tuple[int, ...]) -> Arrays:
    rng = np.random.default_rng(len(shapes))
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def written(tmp_path: Any, tensors: dict[str, Any], metadata: dict[str, str] | None = None) -> Any:
    path = tmp_path / "foreign.safetensors"
    as_float = {key: torch.as_tensor(np.asarray(each)).float().contiguous() for key, each in tensors.items()}
    save_file(as_float, path, metadata)
    return path


def read_delta(base: Any, file: Any, path: str, part: str = "unet") -> np.ndarray:
    weight = base.part(part).module.get_parameter(f"{path}.weight")
    (change,) = files.read(file, base)[part].values()
    return change.delta(weight).double().numpy()


def tucker(core: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """core (r, s, k, k), a (r, out), b (s, in): (out, in, k, k)."""
    out = np.zeros((a.shape[1], b.shape[1], *core.shape[2:]))
    for i in range(core.shape[0]):
        for j in range(core.shape[1]):
            out += a[i][:, None, None, None] * b[j][None, :, None, None] * core[i, j]
    return out


def lora(out: int, into: int, kernel: tuple[int, ...]) -> tuple[Arrays, np.ndarray]:
    t = randoms(down=(RANK, into, *kernel), up=(out, RANK, *(1 for _ in kernel)))
    delta = t["up"].reshape(out, RANK) @ t["down"].reshape(RANK, -1) * ALPHA / RANK
    sides = {"lora_down.weight": t["down"], "lora_up.weight": t["up"]}
    return sides, delta.reshape(out, into, *kernel)


def lora_mid(out: int, into: int, kernel: tuple[int, ...]) -> tuple[Arrays, np.ndarray]:
    t = randoms(down=(RANK, into, 1, 1), up=(out, RANK, 1, 1), mid=(RANK, RANK, *kernel))
    delta = tucker(t["mid"], t["up"].reshape(out, RANK).T, t["down"].reshape(RANK, into)) * ALPHA / RANK
    return {f"lora_{side}.weight": each for side, each in t.items()}, delta


def loha(out: int, into: int, kernel: tuple[int, ...]) -> tuple[Arrays, np.ndarray]:
    flat = into * math.prod(kernel)
    t = randoms(w1_a=(out, RANK), w1_b=(RANK, flat), w2_a=(out, RANK), w2_b=(RANK, flat))
    delta = (t["w1_a"] @ t["w1_b"]) * (t["w2_a"] @ t["w2_b"]) * ALPHA / RANK
    return {f"hada_{side}": each for side, each in t.items()}, delta.reshape(out, into, *kernel)


def loha_tucker(out: int, into: int, kernel: tuple[int, ...]) -> tuple[Arrays, np.ndarray]:
    core = (RANK, RANK, *kernel)
    t = randoms(w1_a=(RANK, out), w1_b=(RANK, into), w2_a=(RANK, out), w2_b=(RANK, into), t1=core, t2=core)
    delta = tucker(t["t1"], t["w1_a"], t["w1_b"]) * tucker(t["t2"], t["w2_a"], t["w2_b"]) * ALPHA / RANK
    return {f"hada_{side}": each for side, each in t.items()}, delta


def kron(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Blocks of the second factor, each times a number of the first."""
    rows = [np.concatenate([number * second for number in row], axis=1) for row in first]
    return np.concatenate(rows, axis=0)


def lokr(out: int, into: int, kernel: tuple[int, ...]) -> tuple[Arrays, np.ndarray]:
    t = randoms(w1=(4, 2), w2_a=(out // 4, RANK), w2_b=(RANK, into // 2 * math.prod(kernel)))
    second = (t["w2_a"] @ t["w2_b"]).reshape(out // 4, into // 2, *kernel)
    return {f"lokr_{side}": each for side, each in t.items()}, kron(t["w1"], second) * ALPHA / RANK


def lokr_of_matrices(out: int, into: int, kernel: tuple[int, ...]) -> tuple[Arrays, np.ndarray]:
    t = randoms(w1_a=(4, RANK), w1_b=(RANK, 2), w2=(out // 4, into // 2, *kernel))
    return {f"lokr_{side}": each for side, each in t.items()}, kron(t["w1_a"] @ t["w1_b"], t["w2"]) * ALPHA / RANK


def lokr_whole(out: int, into: int, kernel: tuple[int, ...]) -> tuple[Arrays, np.ndarray]:
    """Neither factor has a rank: the alpha doesn't count."""
    t = randoms(w1=(4, 2), w2=(out // 4, into // 2, *kernel))
    return {f"lokr_{side}": each for side, each in t.items()}, kron(t["w1"], t["w2"])


def lokr_tucker(out: int, into: int, kernel: tuple[int, ...]) -> tuple[Arrays, np.ndarray]:
    t = randoms(w1=(4, 2), w2_a=(RANK, out // 4), w2_b=(RANK, into // 2), t2=(RANK, RANK, *kernel))
    delta = kron(t["w1"], tucker(t["t2"], t["w2_a"], t["w2_b"])) * ALPHA / RANK
    return {f"lokr_{side}": each for side, each in t.items()}, delta


EVERYWHERE = [lora, loha, lokr, lokr_of_matrices, lokr_whole]
OF_KERNELS = [lora_mid, loha_tucker, lokr_tucker]
CASES = [(each, path) for each in EVERYWHERE for path in (LINEAR, KERNEL)] + [(each, KERNEL) for each in OF_KERNELS]


@pytest.mark.parametrize(("kind", "path"), CASES, ids=lambda each: getattr(each, "__name__", each)[-12:])
def test_a_change_is_the_one_of_its_paper(base, tmp_path, kind, path):
    out, into, *kernel = shape_of(base, path)
    sides, expected = kind(out, into, tuple(kernel))
    tensors = {f"{kohya(path)}.{side}": each for side, each in {**sides, "alpha": ALPHA}.items()}
    assert_close(read_delta(base, written(tmp_path, tensors), path), expected)


def assert_close(read: np.ndarray, expected: np.ndarray) -> None:
    assert read.shape == expected.shape
    assert np.abs(read - expected).max() <= 1e-5 * np.abs(expected).max()


def decomposed(weight: np.ndarray, change: np.ndarray, lengths: np.ndarray, axis: int) -> np.ndarray:
    """What DoRA adds to a weight: W + change, scaled to the lengths along an axis, less W."""
    changed = weight + change
    delta = np.zeros_like(weight)
    for n in range(weight.shape[axis]):
        place = (n,) if axis == 0 else (slice(None), n)
        delta[place] = changed[place] * lengths[n] / np.sqrt((changed[place] ** 2).sum()) - weight[place]
    return delta


@pytest.mark.parametrize("path", [LINEAR, KERNEL])
@pytest.mark.parametrize("kind", [lora, loha, lokr])
@pytest.mark.parametrize("axis", [0, 1])
def test_dora_in_lycoris_spelling_scales_outputs_or_inputs(base, tmp_path, kind, path, axis):
    out, into, *kernel = shape_of(base, path)
    sides, change = kind(out, into, tuple(kernel))
    weight = base.unet.get_parameter(f"{path}.weight").double().numpy()
    lengths = np.random.default_rng(5).uniform(0.5, 2, weight.shape[axis])
    shape = [1] * weight.ndim
    shape[axis] = -1
    sides |= {"alpha": np.array(ALPHA), "dora_scale": lengths.reshape(shape)}
    file = written(tmp_path, {f"{kohya(path)}.{side}": each for side, each in sides.items()})
    assert_close(read_delta(base, file, path), decomposed(weight, change, lengths, axis))


@pytest.mark.parametrize("path", [LINEAR, KERNEL])
def test_dora_as_peft_trains_it(base, tmp_path, path):
    """Against peft itself: the magnitudes of a convolution have the shape (1, out, 1, 1) there."""
    from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model

    weight = base.unet.get_parameter(f"{path}.weight").detach().clone()
    layer = (
        torch.nn.Conv2d(*weight.shape[1::-1], 3, bias=False) if weight.ndim == 4 else torch.nn.Linear(*weight.T.shape)
    )
    layer.weight.data = weight
    model = inject_adapter_in_model(
        LoraConfig(r=RANK, lora_alpha=6, use_dora=True, target_modules=["0"]), torch.nn.Sequential(layer)
    )
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.rand(parameter.shape, generator=torch.Generator().manual_seed(len(name)))
    state = get_peft_model_state_dict(model)
    x = torch.randn(
        2, weight.shape[1], *([5, 5] if weight.ndim == 4 else []), generator=torch.Generator().manual_seed(1)
    )
    with torch.no_grad():
        expected = model(x)
    config = json.dumps({"unet.lora_alpha": 6, "unet.use_dora": True})
    named = {key.replace("0.lora", f"unet.{path}.lora", 1): tensor for key, tensor in state.items()}
    file = written(tmp_path, named, {"lora_adapter_metadata": config})
    layer.weight.data = weight + torch.from_numpy(read_delta(base, file, path)).float()
    with torch.no_grad():
        assert torch.allclose(layer(x), expected, atol=1e-3 * expected.abs().max())


SPELLINGS = {
    "kohya": ("lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q.lora_{}.weight", ("down", "up")),
    "sgm": ("lora_unet_input_blocks_3_1_transformer_blocks_0_attn1_to_q.lora_{}.weight", ("down", "up")),
    "lycoris": ("lycoris_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q.lora_{}.weight", ("down", "up")),
    "diffusers 2023": (f"unet.{LINEAR.replace('.to_q', '.processor.to_q')}_lora.{{}}.weight", ("down", "up")),
    "bare": (f"{LINEAR.replace('.to_q', '.processor.to_q')}_lora.{{}}.weight", ("down", "up")),
    "diffusers": (f"unet.{LINEAR}.lora.{{}}.weight", ("down", "up")),
    "peft": (f"unet.{LINEAR}.lora_{{}}.weight", ("A", "B")),
    "peft alone": (f"base_model.model.{LINEAR}.lora_{{}}.weight", ("A", "B")),
    "peft's adapter": (f"unet.{LINEAR}.lora_{{}}.default.weight", ("A", "B")),
    "comfyui": (
        "diffusion_model.input_blocks.3.1.transformer_blocks.0.attn1.to_q.lora_{}.weight",
        ("A", "B"),
    ),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_module_is_known_by_all_its_names(base, tmp_path, spelling):
    template, (down, up) = SPELLINGS[spelling]
    sides, expected = lora(*shape_of(base, LINEAR), ())
    file = written(
        tmp_path, {template.format(down): sides["lora_down.weight"], template.format(up): sides["lora_up.weight"]}
    )
    assert_close(read_delta(base, file, LINEAR), expected * RANK / ALPHA)


@pytest.mark.parametrize(
    "name",
    [
        "lora_te_text_model_encoder_layers_1_mlp_fc1.lora_{}.weight",
        "lora_te1_text_model_encoder_layers_1_mlp_fc1.lora_{}.weight",
        "text_encoder.text_model.encoder.layers.1.mlp.fc1.lora_linear_layer.{}.weight",
        "text_encoder.encoder.layers.1.mlp.fc1.lora_linear_layer.{}.weight",
    ],
)
def test_a_text_encoder_is_known_by_all_its_names(base, tmp_path, name):
    part = base.part("text_encoder")
    path = next(path for path in part.could_carry() if path.endswith("layers.1.mlp.fc1"))
    sides, expected = lora(*part.module.get_parameter(f"{path}.weight").shape, ())
    tensors = {name.format(side): sides[f"lora_{side}.weight"] for side in ("down", "up")}
    assert_close(read_delta(base, written(tmp_path, tensors), path, "text_encoder"), expected * RANK / ALPHA)


@pytest.mark.parametrize(
    ("config", "alpha"),
    [
        ({}, RANK),
        ({"unet.lora_alpha": 6}, 6),
        ({"lora_alpha": 6}, 6),
        ({"unet.lora_alpha": 0}, 0),
        ({"unet.lora_alpha": 6, "unet.alpha_pattern": {LINEAR: 0}}, 0),
        ({"unet.lora_alpha": 6, "unet.use_rslora": True}, 6 * math.sqrt(RANK)),
        ({"unet.lora_alpha": 6, "unet.alpha_pattern": {LINEAR: 9}}, 9),
        ({"unet.lora_alpha": 6, "unet.alpha_pattern": {"attn1.to_q": 9, "to_k": 12}}, 9),
        ({"unet.lora_alpha": 6, "unet.alpha_pattern": {"^down_blocks.1": 9}}, 6),
        ({"unet.lora_alpha": 6, "unet.rank_pattern": {"attn1.to_q": RANK}, "unet.r": 99}, 6),
        ({"text_encoder.lora_alpha": 6}, RANK),
    ],
)
def test_the_alpha_of_peft_s_config_counts(base, tmp_path, config, alpha):
    sides, expected = lora(*shape_of(base, LINEAR), ())
    tensors = {
        f"unet.{LINEAR}.lora_A.weight": sides["lora_down.weight"],
        f"unet.{LINEAR}.lora_B.weight": sides["lora_up.weight"],
    }
    file = written(tmp_path, tensors, {"lora_adapter_metadata": json.dumps(config)})
    assert_close(read_delta(base, file, LINEAR), expected / ALPHA * alpha)


@pytest.mark.parametrize(
    "config",
    [
        "no json",
        "[]",
        '{"unet.lora_alpha": "six"}',
        '{"unet.lora_alpha": 1e999}',
        '{"unet.alpha_pattern": {"(a+)+$": 2}}',
        '{"unet.alpha_pattern": {"to_q": NaN}}',
        '{"unet.alpha_pattern": [1]}',
    ],
)
def test_a_config_that_can_t_be_read_is_refused(base, tmp_path, config):
    sides, _ = lora(*shape_of(base, LINEAR), ())
    file = written(
        tmp_path, {f"{kohya(LINEAR)}.{side}": each for side, each in sides.items()}, {"lora_adapter_metadata": config}
    )
    with pytest.raises(BadLora, match="its metadata"):
        files.read(file, base)


def test_several_kinds_are_added_each_from_the_base_s_own_weight(base, tmp_path):
    """DoRA depends on the weight, so a stack of it must not depend on the order."""
    out, into = shape_of(base, LINEAR)
    weight = base.unet.get_parameter(f"{LINEAR}.weight").detach().clone()
    loaded = []
    for number, kind in enumerate([lora, loha]):
        sides, _ = kind(out, into, ())
        sides |= {"dora_scale": np.full((out, 1), 2.0 + number)}
        (tmp_path / str(number)).mkdir()
        file = written(tmp_path / str(number), {f"{kohya(LINEAR)}.{side}": each for side, each in sides.items()})
        loaded.append((files.read(file, base), 0.5 + number))
    before, after = output(base), []
    for order in (loaded, loaded[::-1]):
        with merged(base, order):
            after.append(base.unet.get_parameter(f"{LINEAR}.weight").detach().clone())
    deltas = [strength * next(iter(changes["unet"].values())).delta(weight) for changes, strength in loaded]
    assert torch.allclose(after[0], after[1], atol=1e-5)
    assert torch.allclose(after[0], weight + sum(deltas), atol=1e-5)
    assert torch.equal(output(base), before), "the base is itself again"


@pytest.mark.parametrize(
    ("sides", "why"),
    [
        ({"diff": (32, 32)}, "whole weights"),
        ({"lora_up.weight": (32, 3), "lora_down.weight": (3, 32), "diff_b": (32,)}, "biases"),
        ({"w_norm": (32,)}, "norm layers"),
        ({"a1.weight": (3, 32), "a2.weight": (32, 3)}, "GLoRA"),
        ({"oft_blocks": (4, 8, 8)}, "OFT"),
        ({"on_input": (1,), "weight": (32,)}, r"\(IA\)\^3"),
        ({"lora_up.weight": (32, 3), "lora_down.weight": (3, 32), "new_thing": (1,)}, "new_thing"),
        ({"lora_up.weight": (32, 3), "lora_down.weight": (4, 32)}, "its up has the shape"),
        ({"lora_up.weight": (32, 3), "lora_down.weight": (3, 31)}, "its down has the shape"),
        ({"lora_up.weight": (32, 3), "hada_w1_a": (32, 3)}, "don't belong together"),
        ({"lokr_w1": (5, 2), "lokr_w2": (8, 16)}, "don't make a weight"),
        ({"lokr_w1": (4, 2)}, "either lokr_w2 or lokr_w2_a"),
        ({"lora_up.weight": (32, 3), "lora_down.weight": (3, 32), "dora_scale": (7, 1)}, "dora_scale"),
        ({"lora_up.weight": (32, 3), "lora_down.weight": (3, 32), "alpha": (3,)}, "alpha isn't a number"),
    ],
)  # fmt: skip
def test_what_can_t_be_used_is_named_and_nothing_else_is(base, tmp_path, sides, why):
    good, _ = lora(*shape_of(base, KERNEL)[:2], (3, 3))
    tensors = {f"{kohya(KERNEL)}.{side}": each for side, each in good.items()}
    tensors |= {f"{kohya(LINEAR)}.{side}": np.ones(shape) for side, shape in sides.items()}
    with pytest.raises(BadLora, match=why) as refused:
        files.read(written(tmp_path, tensors), base)
    assert kohya(LINEAR) in str(refused.value)


def trained_by_peft(base, config, seed: int = 3) -> tuple[dict[str, torch.Tensor], dict[str, np.ndarray]]:
    """The state that peft saves of an adapter on the tiny UNet, and the changes that it makes to the weights."""
    import peft
    from peft.tuners.tuners_utils import BaseTunerLayer

    unet = copy.deepcopy(base.unet)
    model = peft.get_peft_model(unet, config)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if any(word in name for word in ("lora_", "hada_", "lokr_")):
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    deltas = {
        name.removeprefix("base_model.model."): layer.get_delta_weight("default").detach().double().numpy()
        for name, layer in model.named_modules()
        if isinstance(layer, BaseTunerLayer)
    }
    return peft.get_peft_model_state_dict(model), deltas


@pytest.mark.parametrize("kind", ["LoraConfig", "LoHaConfig", "LoKrConfig"])
def test_what_peft_saves_is_read_as_peft_applies_it(base, tmp_path, kind):
    import peft

    more: dict[str, Any] = {"lora_alpha": RANK} if kind == "LoraConfig" else {"alpha": RANK}
    state, expected = trained_by_peft(base, getattr(peft, kind)(r=RANK, target_modules=["to_q", "conv2"], **more))
    read = files.read(written(tmp_path, state), base)["unet"]
    assert set(read) == set(expected)
    for path, change in read.items():
        weight = base.unet.get_parameter(f"{path}.weight")
        assert_close(change.delta(weight).double().numpy(), expected[path])


def test_what_diffusers_saves_is_read_with_its_patterns(base, tmp_path):
    """Ranks and alphas differ by module; `save_lora_weights` keeps peft's config in the metadata."""
    import peft
    from diffusers import StableDiffusionPipeline

    config = peft.LoraConfig(
        r=4, lora_alpha=2, rank_pattern={"attn2.to_q": 2}, alpha_pattern={"attn2.to_q": 6},
        target_modules=["to_q", "to_out.0"],
    )  # fmt: skip
    state, expected = trained_by_peft(base, config)
    state = {key.removeprefix("base_model.model."): tensor for key, tensor in state.items()}
    StableDiffusionPipeline.save_lora_weights(
        str(tmp_path), unet_lora_layers=state, unet_lora_adapter_metadata=json.loads(json.dumps(plain(config)))
    )
    read = files.read(tmp_path / "pytorch_lora_weights.safetensors", base)["unet"]
    assert set(read) == set(expected)
    for path, change in read.items():
        assert_close(change.delta(base.unet.get_parameter(f"{path}.weight")).double().numpy(), expected[path])


def plain(config: Any) -> dict[str, Any]:
    return {name: sorted(value) if isinstance(value, set) else value for name, value in config.to_dict().items()}
