"""Base models as studios have them: one file, or a folder with half of what should be there. Nothing asks a hub."""

from __future__ import annotations

import hashlib
import shutil
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

from shared import catalog
from shared.catalog import BaseModel
from tests.diffusion import tiny
from tests.diffusion.tiny import output
from workers.diffusion.families import clip, components, original
from workers.diffusion.families.base import Family
from workers.diffusion.families.components import CONFIGS
from workers.diffusion.families.original import BadCheckpoint

FAMILIES = ("sd15", "sd2", "sdxl")


@pytest.fixture(scope="module", autouse=True)
def _no_network() -> Iterator[None]:
    def refuse(*_: Any) -> None:
        raise AssertionError("something asks the network")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        yield


@pytest.fixture(scope="module", params=FAMILIES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tiny base model with CLIP's whole vocabulary, in a folder."""
    folder = tmp_path_factory.mktemp(request.param)
    return load(tiny.make_base_model(folder, family=request.param, tokenizer=clip.tokenizer()))


@pytest.fixture(scope="module")
def configs(base: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder's configs, without its tokenizers: the project has them."""
    target = tiny.copy_configs(Path(base.row.path), tmp_path_factory.mktemp("configs") / "configs")
    for tokenizer in target.glob("tokenizer*"):
        shutil.rmtree(tokenizer)
    return target


@pytest.fixture
def single(base: Any, configs: Path, tmp_path: Path) -> BaseModel:
    """The same as one file."""
    path = tiny.make_single_file(base, tmp_path / "model.safetensors")
    return replace(base.row, name="single", path=str(path), config=str(configs))


def load(row: BaseModel) -> Any:
    return catalog.resolve(catalog.FAMILIES[row.family].code)(row, "cpu")


def same(one: Family, other: Family) -> bool:
    """Whether both draw alike and have the same VAE."""
    vaes = [each.vae.state_dict() for each in (one, other)]
    return torch.equal(output(one), output(other)) and all(
        torch.equal(tensor, vaes[1][name]) for name, tensor in vaes[0].items()
    )


def rewrite(row: BaseModel, change: Any) -> None:
    """Change the tensors of a single file."""
    save_file({key: tensor.contiguous() for key, tensor in change(load_file(row.path)).items()}, row.path)


class TestSingleFile:
    def test_it_is_the_same_model(self, base: Any, single: BaseModel) -> None:
        assert same(load(single), base)

    def test_diffusers_reads_the_file_as_we_do(self, base: Any, single: BaseModel) -> None:
        """Its converters are another's reading of the layout."""
        kind = diffusers.StableDiffusionXLPipeline if single.family == "sdxl" else diffusers.StableDiffusionPipeline
        theirs = kind.from_single_file(
            single.path, config=base.row.path, local_files_only=True, safety_checker=None, feature_extractor=None
        )
        for name in base.layouts:
            ours, their = getattr(base, name).state_dict(), getattr(theirs, name).state_dict()
            assert set(ours) == set(their)
            assert all(torch.equal(tensor, their[key]) for key, tensor in ours.items()), name

    def test_tensors_of_no_use_change_nothing(self, base: Any, single: BaseModel) -> None:
        def add(tensors: dict[str, Any]) -> dict[str, Any]:
            ema = {
                f"model_ema.{key.removeprefix('model.').replace('.', '')}": torch.zeros_like(tensor)
                for key, tensor in tensors.items()
                if key.startswith("model.diffusion_model.")
            }
            return tensors | ema | {"betas": torch.zeros(1000), "v_pred": torch.zeros(0)}

        rewrite(single, add)
        assert same(load(single), base)

    def test_text_encoders_without_text_model_in_their_names(self, base: Any, single: BaseModel) -> None:
        rewrite(single, lambda tensors: {key.replace(".text_model.", "."): each for key, each in tensors.items()})
        assert same(load(single), base)

    def test_half_precision_is_read(self, base: Any, single: BaseModel) -> None:
        rewrite(single, lambda tensors: {key: tensor.half() for key, tensor in tensors.items()})
        loaded = load(single)
        assert all(parameter.dtype == torch.float32 for parameter in loaded.unet.parameters())
        assert torch.allclose(output(loaded), output(base), atol=0.02)

    def test_the_row_says_what_it_predicts_and_how_its_noise_ends(self, single: BaseModel) -> None:
        assert load(single).noise.prediction_type == "epsilon"
        v = load(replace(single, prediction_type="v_prediction", zero_terminal_snr=True))
        assert (v.noise.prediction_type, v.noise.zero_terminal_snr) == ("v_prediction", True)
        assert v.noise.alphas_cumprod[-1] < 1e-6
        scheduler = v.noise.sampler("euler", 4, v.device).scheduler
        assert scheduler.config.timestep_spacing == "trailing"
        assert scheduler.timesteps[0] == 999

    def test_a_folder_s_row_says_it_too(self, base: Any) -> None:
        v = load(replace(base.row, prediction_type="v_prediction", zero_terminal_snr=True))
        assert (v.noise.prediction_type, v.noise.zero_terminal_snr) == ("v_prediction", True)
        scheduler = v.noise.sampler("euler", 4, v.device).scheduler
        assert (scheduler.config.prediction_type, scheduler.timesteps[0]) == ("v_prediction", 999)

    def test_what_is_missing_is_named(self, base: Any, single: BaseModel, tmp_path: Path) -> None:
        for component, what in (("unet", "no unet"), ("vae", "no VAE"), ("text_encoder", "no text encoder")):
            path = tiny.make_single_file(base, tmp_path / f"no-{component}.safetensors", but=[component])
            with pytest.raises(BadCheckpoint, match=rf"no-{component}.safetensors has {what}"):
                load(replace(single, path=str(path)))

    def test_tensors_of_another_shape_are_named(self, single: BaseModel) -> None:
        key = "model.diffusion_model.input_blocks.0.0.weight"
        rewrite(single, lambda tensors: tensors | {key: torch.zeros(16, 9, 3, 3)})
        with pytest.raises(BadCheckpoint, match=rf"{key} has the shape \[16, 9, 3, 3\]"):
            load(single)

    def test_the_file_may_go_once_it_is_read(self, base: Any, single: BaseModel) -> None:
        loaded = load(single)
        Path(single.path).write_bytes(b"\0" * Path(single.path).stat().st_size)
        assert same(loaded, base)

    def test_a_file_that_was_cut_short(self, single: BaseModel) -> None:
        path = Path(single.path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(BadCheckpoint, match="no whole safetensors file"):
            load(single)


class TestVae:
    @pytest.fixture
    def without(self, base: Any, single: BaseModel, tmp_path: Path) -> BaseModel:
        return replace(single, path=str(tiny.make_single_file(base, tmp_path / "bare.safetensors", but=["vae"])))

    @pytest.fixture
    def another(self) -> AutoencoderKL:
        torch.manual_seed(5)
        return tiny.make_vae()

    @pytest.mark.parametrize("form", ["baked", "bare", "diffusers", "old diffusers", "folder"])
    def test_a_row_s_vae_is_taken(self, without: BaseModel, another: AutoencoderKL, tmp_path: Path, form: str) -> None:
        path = tmp_path / "vae.safetensors"
        theirs = original.VAE.tensors(another)
        if form == "folder":
            path = tmp_path / "vae"
            another.save_pretrained(path)
        elif form == "baked":
            save_file(theirs, path)
        elif form == "bare":
            save_file({key.removeprefix("first_stage_model."): tensor for key, tensor in theirs.items()}, path)
        else:
            old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"} if "old" in form else {}
            state = another.state_dict()
            for new, was in old.items():
                state = {key.replace(f".{new}.", f".{was}."): tensor for key, tensor in state.items()}
            save_file(state, path)
        vae = load(replace(without, vae=str(path))).vae.state_dict()
        assert all(torch.equal(tensor, vae[name]) for name, tensor in another.state_dict().items())

    def test_it_replaces_the_one_of_a_file_and_of_a_folder(
        self, base: Any, single: BaseModel, another: AutoencoderKL, tmp_path: Path
    ) -> None:
        another.save_pretrained(tmp_path / "vae")
        for row in (single, base.row):
            vae = load(replace(row, vae=str(tmp_path / "vae"))).vae
            assert torch.equal(vae.decoder.conv_in.weight, another.decoder.conv_in.weight)

    @pytest.mark.parametrize("family", ["sd15", "sd2", "sdxl"])
    def test_a_folder_without_one_takes_a_file_of_its_family(self, tmp_path: Path, family: str) -> None:
        row = BaseModel(name="mine", family=family, path=str(tmp_path), resolution=512)
        vae = components.Folder(row)._empty("vae", AutoencoderKL)
        assert sum(parameter.numel() for parameter in vae.parameters()) / 1e6 == pytest.approx(83.65, abs=0.01)

    def test_one_that_is_none_is_named(self, without: BaseModel, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"base model single: .*nowhere.safetensors is missing"):
            load(replace(without, vae=str(tmp_path / "nowhere.safetensors")))
        with pytest.raises(BadCheckpoint, match=r"bare.safetensors has no VAE"):
            load(replace(without, vae=without.path))


class TestFolder:
    def test_a_folder_with_weights_of_half_precision_alone(self, base: Any, tmp_path: Path) -> None:
        pipeline = getattr(diffusers, diffusers.DiffusionPipeline.load_config(base.row.path)["_class_name"])
        whole = pipeline.from_pretrained(base.row.path, local_files_only=True).to(torch.float16)
        whole.save_pretrained(tmp_path / "fp16", variant="fp16")
        loaded = load(replace(base.row, path=str(tmp_path / "fp16")))
        assert loaded.unet.dtype == torch.float32
        assert torch.allclose(output(loaded), output(base), atol=0.02)

    def test_other_variants_are_not_taken_for_the_weights(self, base: Any, tmp_path: Path) -> None:
        folder = shutil.copytree(base.row.path, tmp_path / "variants")
        weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
        tensors = load_file(weights)
        weights.unlink()
        for name in ("ema", "non_ema", "fp16", "fp8", "pruned"):
            changed = {key: tensor if name == "fp16" else tensor + 1 for key, tensor in tensors.items()}
            save_file(changed, weights.with_suffix(f".{name}.safetensors"))
        assert same(load(replace(base.row, path=str(folder))), base)

    def test_a_variant_in_shards_is_read(self, base: Any, tmp_path: Path) -> None:
        folder = shutil.copytree(base.row.path, tmp_path / "shards")
        (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
        base.unet.save_pretrained(folder / "unet", variant="fp16", max_shard_size="100KB")
        assert len(list((folder / "unet").glob("*.safetensors"))) > 1
        assert same(load(replace(base.row, path=str(folder))), base)

    def test_a_folder_without_weights_is_named(self, base: Any, tmp_path: Path) -> None:
        folder = shutil.copytree(base.row.path, tmp_path / "empty")
        (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
        with pytest.raises(BadCheckpoint, match="the folder unet holds no weights"):
            load(replace(base.row, path=str(folder)))

    def test_a_folder_without_a_tokenizer_has_clip_s(self, base: Any, tmp_path: Path) -> None:
        folder = shutil.copytree(base.row.path, tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*"))
        assert same(load(replace(base.row, path=str(folder))), base)

    def test_a_vocabulary_that_is_missing_is_named(self, base: Any, tmp_path: Path) -> None:
        row = tiny.make_base_model(tmp_path / "small", family=base.row.family)
        shutil.rmtree(tmp_path / "small" / "tokenizer")
        with pytest.raises(BadCheckpoint, match="knows 772 tokens, and its tokenizer 49408"):
            load(row)


class TestTokenizer:
    def test_the_vocabulary_is_openai_s(self) -> None:
        digest = hashlib.sha256(clip.VOCABULARY.read_bytes()).hexdigest()
        assert digest == "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
        assert "Copyright (c) 2021 OpenAI" in (clip.VOCABULARY.parent / "LICENSE").read_text()

    @pytest.mark.parametrize(
        ("text", "ids"),
        [
            ("a photo of a cat", [320, 1125, 539, 320, 2368]),
            ("Hello   World!", [3306, 1002, 256]),
            ("", []),
        ],
    )
    def test_texts_have_the_ids_that_clip_was_trained_with(self, text: str, ids: list[int]) -> None:
        assert clip.tokenizer()(text).input_ids == [49406, *ids, 49407]

    def test_what_fills_up_a_text(self) -> None:
        for pad, number in (("<|endoftext|>", 49407), ("!", 0)):
            ids = clip.tokenizer(pad)("cat", padding="max_length").input_ids
            assert (len(ids), ids[:3], set(ids[3:])) == (77, [49406, 2368, 49407], {number})

    def test_each_text_encoder_has_its_own_padding(self, single: BaseModel) -> None:
        loaded = load(single)
        paddings = [each.pad_token for each in (loaded.tokenizer, getattr(loaded, "tokenizer_2", None)) if each]
        assert paddings == {"sd15": ["<|endoftext|>"], "sd2": ["!"], "sdxl": ["<|endoftext|>", "!"]}[single.family]


class TestTrueSize:
    """The architectures as they are, on torch's meta device: no weights, and nothing is computed."""

    def parts(self, family: str) -> dict[str, Any]:
        return {part.name: part for part in tiny.without_weights(family).parts}

    @pytest.mark.parametrize(
        ("family", "name", "millions"),
        [
            ("sd15", "unet", 859.5), ("sd15", "text_encoder", 123.1), ("sd2", "unet", 865.9),
            ("sd2", "text_encoder", 340.4), ("sdxl", "unet", 2567.5), ("sdxl", "text_encoder", 123.1),
            ("sdxl", "text_encoder_2", 694.7),
        ],
    )  # fmt: skip
    def test_parameters(self, family: str, name: str, millions: float) -> None:
        count = sum(parameter.numel() for parameter in self.parts(family)[name].module.parameters())
        assert count / 1e6 == pytest.approx(millions, abs=0.06)

    @pytest.mark.parametrize("family", FAMILIES)
    def test_the_vae_s_parameters(self, family: str) -> None:
        vae = components.empty(AutoencoderKL, CONFIGS / family / "vae/config.json")
        assert sum(parameter.numel() for parameter in vae.parameters()) / 1e6 == pytest.approx(83.65, abs=0.01)

    @pytest.mark.parametrize("family", FAMILIES)
    def test_every_parameter_has_a_place_of_its_own(self, family: str) -> None:
        for name, layout in catalog.resolve(catalog.FAMILIES[family].code).layouts.items():
            kind = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}.get(name, CLIPTextModel)
            model = components.empty(kind, CONFIGS / family / name / "config.json")
            places = [layout.place(each, original.config_of(model)) for each, _ in model.named_parameters()]
            assert len(set(places)) == len(places)

    @pytest.mark.parametrize(
        ("path", "theirs"),
        [
            ("down_blocks.2.downsamplers.0.conv", "input_blocks.9.0.op"),
            ("up_blocks.0.upsamplers.0.conv", "output_blocks.2.1.conv"),
            ("up_blocks.2.upsamplers.0.conv", "output_blocks.8.2.conv"),
            ("up_blocks.3.attentions.2.transformer_blocks.0.attn1.to_q",
             "output_blocks.11.1.transformer_blocks.0.attn1.to_q"),
            ("up_blocks.3.resnets.2.conv_shortcut", "output_blocks.11.0.skip_connection"),
        ],
    )  # fmt: skip
    def test_names_of_sd15_as_compvis_spells_them(self, path: str, theirs: str) -> None:
        unet = self.parts("sd15")["unet"].module
        assert path in dict(unet.named_modules())
        assert original.unet_path(path, unet.config) == theirs

    def test_names_of_sdxl_as_stability_spells_them(self) -> None:
        part = self.parts("sdxl")["unet"]
        names = {part.kohya_names(path)[0] for path in part.lora_paths("all")}
        assert len(names) == len(part.lora_paths("all"))
        assert {
            "lora_unet_input_blocks_8_1_transformer_blocks_9_attn2_to_v",
            "lora_unet_middle_block_1_transformer_blocks_9_ff_net_2",
            "lora_unet_output_blocks_5_1_transformer_blocks_1_ff_net_0_proj",
            "lora_unet_output_blocks_5_2_conv",
            "lora_unet_input_blocks_6_0_op",
            "lora_unet_output_blocks_8_0_emb_layers_1",
        } <= names
        assert not any("down_blocks" in name or "up_blocks" in name for name in names)
