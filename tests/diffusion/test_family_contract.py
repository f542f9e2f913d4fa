"""What every family must do: asked of tiny base models of random weights, and of chibi."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import Tensor

from shared import catalog, plans
from shared.catalog import BaseModel, FamilyRow, base_models
from shared.catalog.params import GenerateParams, TrainParams, WantedPicture
from tests.diffusion import flow, tiny
from tests.diffusion.checkpoints import FolderCheckpoints
from tests.diffusion.tiny import make_image
from workers.diffusion import families
from workers.diffusion.conditioning import Placement
from workers.diffusion.dataset import Example, prepare
from workers.diffusion.families import stable_diffusion
from workers.diffusion.families.base import Family
from workers.diffusion.generate import generate
from workers.diffusion.lora import adapter, files
from workers.diffusion.lora.about import About
from workers.diffusion.lora.weights import TrainedLora
from workers.diffusion.train import train_lora


@dataclass(frozen=True)
class Case:
    """A small base model of a family, and what the tests expect of it."""

    make: Callable[[Path], BaseModel]  # its row; the folder is empty, for files of random weights
    denoiser: str  # name of the part
    text_encoders: Sequence[str] = ()  # names of the parts that can be trained
    pipeline: type[diffusers.DiffusionPipeline] | None = None  # that reads it; None: diffusers doesn't know the family
    is_told_sizes: bool = False  # whether the denoiser is told of sizes and crops
    family: FamilyRow | None = None  # of a family that is not in the catalog


CASES = {
    "sd15": Case(tiny.make_base_model, "unet", ["text_encoder"], diffusers.StableDiffusionPipeline),
    "sd2": Case(
        partial(tiny.make_base_model, prediction_type="v_prediction", family="sd2"),
        "unet",
        ["text_encoder"],
        diffusers.StableDiffusionPipeline,
    ),
    "sdxl": Case(
        partial(tiny.make_base_model, family="sdxl"),
        "unet",
        ["text_encoder", "text_encoder_2"],
        diffusers.StableDiffusionXLPipeline,
        is_told_sizes=True,
    ),
    "sdxl, v": Case(
        partial(tiny.make_base_model, prediction_type="v_prediction", family="sdxl", zero_terminal_snr=True),
        "unet",
        ["text_encoder", "text_encoder_2"],
        diffusers.StableDiffusionXLPipeline,
        is_told_sizes=True,
    ),
    "chibi": Case(lambda folder: base_models()["chibi"], "unet", ["text_encoder"], diffusers.StableDiffusionPipeline),
    "flow": Case(lambda folder: flow.ROW, "transformer", is_told_sizes=True, family=flow.FAMILY),
}

EXAMPLES = [
    Example(make_image(0), ["eiei21girl, 1girl, looking at viewer", "1girl"]),
    Example(make_image(1, (40, 70)), ["eiei21girl, from behind"]),
]
TRAINING = TrainParams(
    rank=2, alpha=1.0, lora_modules="all", learning_rate=0.02, text_encoder_learning_rate=0.02, train_steps=4,
    batch_size=2, warmup_steps=0, noise_offset=0.05, checkpoint_every_steps=2, precision="fp32", seed=7,
)  # fmt: skip
DRAWING = GenerateParams(
    width=32, height=64, inference_steps=2, guidance_scale=3.0, negative_prompt="bad", batch_size=2, precision="fp32"
)
PICTURES = [
    WantedPicture(prompt="1girl, from behind", seed=3),
    WantedPicture(prompt="1girl", seed=4),
    WantedPicture(prompt="1girl, from behind", seed=5),
]


class Stopped(Exception):
    pass


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def family(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Family]:
    row = case.make(tmp_path_factory.mktemp("base"))
    with pytest.MonkeyPatch.context() as patch:
        if case.family is not None:
            patch.setitem(catalog.FAMILIES, row.family, case.family)
        yield families.load(row, "cpu")
    families.unload()


@pytest.fixture(scope="module")
def training(case: Case) -> TrainParams:
    """One of everything that can be trained."""
    return TRAINING if case.text_encoders else replace(TRAINING, text_encoder_learning_rate=0.0)


@dataclass(frozen=True)
class Live:
    """A LoRA of every part, each module's change while it was on the base model, and the files of it."""

    lora: TrainedLora
    deltas: dict[str, Tensor]
    files: dict[str, Path]


@pytest.fixture(scope="module")
def live(family: Family, training: TrainParams, tmp_path_factory: pytest.TempPathFactory) -> Live:
    deltas: dict[str, Tensor] = {}

    def note(step: int, loss: float) -> None:
        for part in family.parts:
            deltas.update({f"{part.name}.{path}": delta for path, delta in live_changes(part.module, adapter.NAME)})

    lora = train_lora(family, EXAMPLES, training, on_step=note)
    folder = tmp_path_factory.mktemp("files")
    paths = {form: folder / f"{form}.safetensors" for form in ("kohya", "peft")}
    files.save(lora, family, About("her", "eiei21girl"), **paths)
    return Live(lora, deltas, paths)


def test_every_family_of_the_catalog_has_a_case() -> None:
    assert catalog.FAMILIES.keys() <= CASES.keys(), "add a row to CASES, with a tiny base model of random weights"


class TestFamily:
    def test_its_row_gives_what_has_no_neutral_default(self, family: Family) -> None:
        missing = {
            f"{of}.{name}"
            for each in plans.resolve(None, family.row).rounds
            for of in ("train", "generate", "score")
            for name, value in dataclasses.asdict(getattr(each, of)).items()
            if value is None
        }
        assert not missing, "these have no neutral default: give them in the family's row of the catalog"

    def test_every_part_that_is_asked_for_learns_and_no_other_changes(
        self, case: Case, family: Family, live: Live
    ) -> None:
        without_text = train_lora(family, EXAMPLES, replace(TRAINING, text_encoder_learning_rate=0.0))
        for lora, names in (
            (live.lora, [case.denoiser, *case.text_encoders]),
            (without_text, [case.denoiser]),
        ):
            assert list(lora.weights) == names
            for part in names:
                assert set(lora.weights[part]) == set(family.part(part).lora_paths("all"))
                idle = [path for path, change in lora.weights[part].items() if not change.up.any()]
                assert not idle, "nothing reaches these, so they carry a LoRA for nothing"

    @pytest.mark.parametrize("modules", catalog.LORA_MODULES)
    def test_more_modules_are_never_fewer(self, family: Family, modules: str) -> None:
        for part in family.parts:
            paths = part.lora_paths(modules)
            assert paths
            assert set(paths) <= set(part.lora_paths("all")) <= set(part.could_carry())

    def test_a_text_encoder_that_is_not_there_is_not_silently_left_out(self, case: Case, family: Family) -> None:
        if case.text_encoders:
            pytest.skip("it has one")
        with pytest.raises(ValueError, match="no text encoder to train"):
            train_lora(family, EXAMPLES, TRAINING)

    def test_the_base_model_is_itself_again(self, family: Family, training: TrainParams) -> None:
        before = states(family)
        train_lora(family, EXAMPLES, replace(training, train_steps=1, gradient_checkpointing=True))
        after = states(family)
        assert set(after) == set(before)
        assert all(torch.equal(after[name], tensor) for name, tensor in before.items())

    def test_a_resumed_training_ends_like_a_straight_one(
        self, family: Family, training: TrainParams, live: Live, tmp_path: Path
    ) -> None:
        kept = FolderCheckpoints(tmp_path)

        def stop(step: int, loss: float) -> None:
            if step == 3:
                raise Stopped

        with pytest.raises(Stopped):
            train_lora(family, EXAMPLES, training, on_step=stop, checkpoints=kept)
        steps: list[int] = []
        resumed = train_lora(family, EXAMPLES, training, on_step=lambda step, _: steps.append(step), checkpoints=kept)
        assert steps == [3, 4]
        assert resumed.losses == live.lora.losses
        assert_same(resumed, live.lora)

    @pytest.mark.parametrize("form", ["kohya", "peft"])
    def test_diffusers_reads_the_same_change_of_every_module(
        self, case: Case, family: Family, live: Live, form: str
    ) -> None:
        if case.pipeline is None:
            pytest.skip("diffusers doesn't know this family")
        pipeline: Any = case.pipeline.from_pretrained(family.row.path, local_files_only=True)
        path = live.files[form]
        pipeline.load_lora_weights(
            str(path.parent), weight_name=path.name, adapter_name="her", use_safetensors=True, local_files_only=True
        )
        assert_near(changes_of(pipeline, family), live.deltas)

    def test_a_reader_that_ignores_metadata_gets_the_same_strength(self, family: Family, live: Live) -> None:
        """As diffusers until 0.34, Forge and ComfyUI: what isn't in a tensor doesn't count."""
        tensors = load_file(live.files["peft"])
        products = sorted(
            float((up.double().flatten(1) @ down.double().flatten(1)).norm()) for down, up in pairs(tensors)
        )
        expected = sorted(float(delta.double().norm()) for delta in live.deltas.values())
        assert products == pytest.approx(expected, rel=1e-3)
        assert live.lora.params.alpha != live.lora.params.rank

    def test_diffusers_needs_no_metadata(self, case: Case, family: Family, live: Live, tmp_path: Path) -> None:
        if case.pipeline is None:
            pytest.skip("diffusers doesn't know this family")
        save_file(load_file(live.files["peft"]), tmp_path / "bare.safetensors")
        options = {"weight_name": "bare.safetensors", "use_safetensors": True, "local_files_only": True}
        pipeline: Any = case.pipeline.from_pretrained(family.row.path, local_files_only=True)
        pipeline.load_lora_weights(str(tmp_path), adapter_name="her", **options)
        assert_near(changes_of(pipeline, family), live.deltas)

    @pytest.mark.parametrize("form", ["kohya", "peft"])
    def test_we_read_what_we_wrote(self, family: Family, live: Live, form: str) -> None:
        changes = files.read(live.files[form], family)
        read = {
            f"{part}.{path}": change.delta(family.part(part).module.get_parameter(f"{path}.weight"))
            for part, of_part in changes.items()
            for path, change in of_part.items()
        }
        assert_near(read, live.deltas)

    def test_every_spelling_of_a_module_is_its_own(self, family: Family) -> None:
        for names in ("kohya_names", "peft_names"):
            spelled = [
                name for part in family.parts for path in part.could_carry() for name in set(getattr(part, names)(path))
            ]
            assert len(set(spelled)) == len(spelled)

    def test_a_picture_is_a_function_of_its_seed(self, family: Family) -> None:
        for sampler in catalog.FAMILIES[family.row.family].samplers:
            params = replace(DRAWING, sampler=sampler)
            together = draw(family, PICTURES, params)
            alone = np.concatenate([draw(family, [picture], replace(params, batch_size=1)) for picture in PICTURES])
            assert together.shape == (3, 64, 32, 3)
            assert np.abs(together - alone).max() <= 1  # sums of another order may round one step of 255 otherwise
            assert np.abs(together[0] - together[2]).max() > 20, "the same prompt from another seed is another picture"
        assert np.array_equal(together, draw(family, PICTURES, params))

    def test_it_offers_samplers_of_its_noise(self, family: Family) -> None:
        offered = catalog.FAMILIES[family.row.family].samplers
        assert set(offered) <= set(family.noise.samplers)
        with pytest.raises(ValueError, match=offered[0]):
            draw(family, PICTURES, replace(DRAWING, sampler="magic"))

    def test_a_lora_changes_its_pictures(self, family: Family, live: Live) -> None:
        plain = draw(family, PICTURES, DRAWING)
        changed = {form: draw(family, PICTURES, DRAWING, loras=[(path, 1.0)]) for form, path in live.files.items()}
        assert np.abs(changed["kohya"] - plain).max() > 2
        assert np.abs(changed["kohya"] - changed["peft"]).max() <= 2  # fp16 and fp32

    def test_pictures_keep_their_size_as_latents(self, family: Family) -> None:
        for width, height in family.sizes(None):
            image = make_image(0, (width, height))
            mean, std = family.encode_images([image, image])
            assert mean.shape == std.shape == (2, *family.latent_shape(width, height))
            assert [picture.size for picture in family.decode(mean)] == [(width, height)] * 2

    def test_sides_may_be_any_multiple_of_the_unit_in_its_row(self, family: Family) -> None:
        unit = catalog.FAMILIES[family.row.family].side_unit
        drawn = draw(family, PICTURES[:1], replace(DRAWING, width=5 * unit, height=7 * unit))
        assert drawn.shape == (1, 7 * unit, 5 * unit, 3)

    def test_it_reads_as_much_of_a_text_as_its_row_says(self, family: Family) -> None:
        limit = catalog.FAMILIES[family.row.family].text_limit
        cuts = family.cut_off(", ".join(["1girl"] * 1_000)) != ""
        assert family.cut_off("1girl") == ""
        assert cuts == (limit is not None), "cut_off and text_limit in the family's row disagree"

    def test_the_prompt_reaches_the_denoiser(self, family: Family) -> None:
        noisy = torch.randn(1, *family.latent_shape(32, 32), generator=torch.Generator().manual_seed(0))
        t = family.noise.draw_times(1, torch.Generator().manual_seed(0))
        placements = [Placement((32, 32), (0, 0), (32, 32))]
        with torch.no_grad():
            first, second = (
                family.predict(noisy, t, family.place(family.encode_prompts([text]), placements))
                for text in ("1girl", "from behind")
            )
        assert not torch.equal(first, second)

    def test_pictures_are_the_same_however_many_the_vae_takes_at_once(
        self, family: Family, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        images = [make_image(n, (32, 32)) for n in range(3)]
        together = family.encode_images(images)
        shown = family.decode(together[0])
        monkeypatch.setattr(stable_diffusion, "VAE_PIXELS", 32 * 32)
        apart = family.encode_images(images)
        assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(together, apart, strict=True))
        for one, other in zip(shown, family.decode(together[0]), strict=True):
            assert np.abs(np.asarray(one).astype(int) - np.asarray(other)).max() <= 1

    def test_conditioning_is_a_table_of_rows(self, family: Family) -> None:
        texts = ["1girl", "", "1girl, from behind, long hair"]
        placements = [Placement((64, 48 + n), (n, 0), (32, 32)) for n in range(3)]
        with torch.no_grad():
            whole = family.place(family.encode_prompts(texts), placements)
            parts = [family.encode_prompts([text]) for text in texts]
            joined = family.place(type(parts[0]).join(parts), placements).to(family.device)
        for rows in ([0, 1, 2], [2, 0, 0]):
            assert_same_rows(joined.take(rows), whole.take(rows))

    def test_the_size_and_crop_of_a_picture_reach_the_denoiser(self, case: Case, family: Family) -> None:
        """Those that are told of them answer otherwise for another; the rest don't know of any."""
        noisy = torch.randn(1, *family.latent_shape(32, 32), generator=torch.Generator().manual_seed(0))
        t = family.noise.draw_times(1, torch.Generator().manual_seed(0))
        with torch.no_grad():
            prompt = family.encode_prompts(["1girl"])
            small, large, cropped = (
                family.predict(noisy, t, family.place(prompt, [placement]))
                for placement in (
                    Placement((32, 32), (0, 0), (32, 32)),
                    Placement((900, 32), (0, 0), (32, 32)),
                    Placement((32, 32), (0, 20), (32, 32)),
                )
            )
        assert torch.equal(small, large) is not case.is_told_sizes
        assert torch.equal(small, cropped) is not case.is_told_sizes


class TestSdxl:
    """What only SDXL has."""

    @pytest.fixture(scope="class")
    def sdxl(self, tmp_path_factory: pytest.TempPathFactory) -> Family:
        row = CASES["sdxl"].make(tmp_path_factory.mktemp("sdxl"))
        return catalog.resolve(catalog.FAMILIES["sdxl"].code)(row, "cpu")

    def test_it_is_trained_with_each_picture_s_own_size(self, sdxl: Any) -> None:
        examples = [*EXAMPLES, Example(make_image(2), ["eiei21girl"], original=(9, 9))]
        data = prepare(sdxl, examples, TRAINING)
        batches = [data.batch(sdxl, bucket, 0.0, torch.Generator()) for bucket in data.buckets]
        rows = {tuple(row) for batch in batches for row in batch.conditioning.time_ids.tolist()}
        # height and width before, top and left of the crop, height and width now
        assert rows == {(48, 48, 0, 0, 32, 32), (70, 40, 0, 0, 48, 16), (9, 9, 0, 0, 32, 32)}
        seen = self.time_ids(sdxl, lambda: train_lora(sdxl, examples, TRAINING))
        assert {tuple(row) for row in seen} <= rows

    def test_its_buckets_are_those_of_sd_scripts(self, sdxl: Any) -> None:
        heights = {
            512: (1856, 1920, 1984, 2048), 576: (1664, 1728, 1792), 640: (1536, 1600), 704: (1408, 1472),
            768: (1280, 1344), 832: (1216,), 896: (1152,), 960: (1088,),
        }  # fmt: skip
        tall = [(width, height) for width, all_heights in heights.items() for height in all_heights]
        assert set(sdxl.sizes(1024)) == {(1024, 1024), *tall, *((height, width) for width, height in tall)}
        assert len(sdxl.sizes(1024)) == 33
        assert sdxl.sizes(1024)[0] == (1024, 1024)

    def test_it_draws_as_if_the_picture_had_always_been_of_its_size(self, sdxl: Any) -> None:
        seen = self.time_ids(sdxl, lambda: draw(sdxl, PICTURES, DRAWING))
        assert {tuple(row) for row in seen} == {(64.0, 32.0, 0.0, 0.0, 64.0, 32.0)}

    def test_pictures_are_those_of_diffusers(self, sdxl: Any) -> None:
        pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(sdxl.row.path, local_files_only=True)
        pipeline.set_progress_bar_config(disable=True)
        params = replace(DRAWING, sampler="euler", batch_size=3)
        pipeline.scheduler = sdxl.noise.sampler("euler", 1, sdxl.device).scheduler
        theirs = pipeline(
            [picture.prompt for picture in PICTURES],
            negative_prompt=[params.negative_prompt] * 3,
            generator=[torch.Generator("cpu").manual_seed(picture.seed) for picture in PICTURES],
            num_inference_steps=params.inference_steps, guidance_scale=params.guidance_scale,
            width=params.width, height=params.height,
        ).images  # fmt: skip
        theirs = np.stack([np.asarray(image) for image in theirs]).astype(int)
        assert np.abs(draw(sdxl, PICTURES, params) - theirs).max() <= 1

    def test_keys_of_kohya_s_file_are_those_of_sd_scripts(self, sdxl: Any, tmp_path: Path) -> None:
        lora = train_lora(sdxl, EXAMPLES, replace(TRAINING, train_steps=1))
        path = tmp_path / "her.safetensors"
        files.save_kohya(lora, sdxl, About("her"), path)
        keys = set(load_file(path))
        # Of a file that sd-scripts has written for SDXL, as ComfyUI, A1111 and Forge read them.
        assert {
            "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.lora_down.weight",
            "lora_unet_input_blocks_8_1_proj_in.lora_up.weight",
            "lora_unet_middle_block_1_transformer_blocks_0_ff_net_0_proj.alpha",
            "lora_unet_output_blocks_5_1_transformer_blocks_0_attn2_to_out_0.lora_down.weight",
            "lora_unet_input_blocks_3_0_op.lora_down.weight",
            "lora_unet_output_blocks_2_2_conv.lora_down.weight",
            "lora_unet_input_blocks_1_0_in_layers_2.lora_down.weight",
            "lora_unet_output_blocks_8_0_skip_connection.lora_down.weight",
            "lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight",
            "lora_te2_text_model_encoder_layers_1_mlp_fc2.lora_up.weight",
        } <= keys
        assert not any("down_blocks" in key or "up_blocks" in key for key in keys)

    def test_diffusers_names_are_read_too(self, sdxl: Any, tmp_path: Path) -> None:
        path = tmp_path / "other.safetensors"
        tensors = {"lora_down.weight": torch.ones(1, 16), "lora_up.weight": torch.ones(16, 1)}
        module = "mid_block.attentions.0.proj_in"
        save_file({f"lora_unet_{module.replace('.', '_')}.{side}": each for side, each in tensors.items()}, path)
        assert list(files.read(path, sdxl)["unet"]) == [module]

    def time_ids(self, sdxl: Any, work: Any) -> list[list[float]]:
        """The rows of sizes and crops that the UNet is told while `work` runs."""
        seen: list[list[float]] = []

        def note(_module: Any, _args: Any, kwargs: Any) -> None:
            seen.extend(kwargs["added_cond_kwargs"]["time_ids"].tolist())

        hook = sdxl.unet.register_forward_pre_hook(note, with_kwargs=True)
        work()
        hook.remove()
        return seen


def live_changes(model: torch.nn.Module, name: str) -> list[tuple[str, Tensor]]:
    """Each module's change by the adapter of that name, as peft computes it."""
    return [
        (path, layer.get_delta_weight(name).detach().clone())
        for path, layer in model.named_modules()
        if isinstance(layer, LoraLayer)
    ]


def changes_of(pipeline: Any, family: Family) -> dict[str, Tensor]:
    """Each module's change in a pipeline of diffusers that has loaded a file."""
    return {
        f"{part.name}.{path}": delta
        for part in family.parts
        for path, delta in live_changes(getattr(pipeline, part.name), "her")
    }


def pairs(tensors: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """The matrices down and up of each module of a file of peft's form."""
    spellings = [("lora_A", "lora_B"), ("lora.down", "lora.up"), ("_lora.down", "_lora.up")]
    return [
        (tensor, tensors[key.replace(down, up)])
        for key, tensor in tensors.items()
        for down, up in spellings
        if key.endswith(f"{'.' if down[0] != '_' else ''}{down}.weight")
    ]


def states(family: Family) -> dict[str, Tensor]:
    return {
        f"{part.name}.{name}": tensor.clone()
        for part in family.parts
        for name, tensor in part.module.state_dict().items()
    }


def draw(family: Family, pictures: list[WantedPicture], params: GenerateParams, **more: Any) -> np.ndarray:
    drawn = sorted(generate(family, pictures, params, **more), key=lambda each: each[0])
    return np.stack([np.asarray(image) for _, image in drawn]).astype(int)


def assert_near(read: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """The same modules, and each change as near as fp16 can be."""
    assert set(read) == set(expected)
    changed = [name for name, delta in expected.items() if delta.abs().max() > 1e-5]
    assert len(changed) > 0.9 * len(expected), "a change of nothing is easily read"
    for name, delta in expected.items():
        assert read[name].shape == delta.shape
        assert (read[name] - delta).abs().max() <= 2e-3 * delta.abs().max() + 1e-7, name


def assert_same(first: TrainedLora, second: TrainedLora) -> None:
    assert list(first.weights) == list(second.weights)
    for part, changes in first.weights.items():
        for path, change in changes.items():
            other = second.weights[part][path]
            assert torch.equal(change.down, other.down), path
            assert torch.equal(change.up, other.up), path


def assert_same_rows(first: Any, second: Any) -> None:
    for field in dataclasses.fields(first):
        for row, other in zip(rows_of(first, field.name), rows_of(second, field.name), strict=True):
            assert torch.allclose(row, other, atol=1e-5), field.name


def rows_of(conditioning: Any, field: str) -> Any:
    rows = getattr(conditioning, field)
    return [] if rows is None else rows
