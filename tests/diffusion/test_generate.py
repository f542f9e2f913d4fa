"""Generation: the same pictures as diffusers, and each depends only on its seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from shared import catalog
from shared.catalog.params import GenerateParams, WantedPicture
from tests.diffusion.tiny import output
from workers.diffusion.generate import generate
from workers.diffusion.lora import files
from workers.diffusion.lora.about import About
from workers.diffusion.train import train_lora

PARAMS = GenerateParams(
    inference_steps=4, guidance_scale=4.0, sampler="ddim", negative_prompt="red hair", batch_size=2, precision="fp32"
)
PICTURES = [
    WantedPicture(prompt="1girl, solo, from behind", seed=3),
    WantedPicture(prompt="1girl, blonde hair", seed=4),
    WantedPicture(prompt="1girl, solo, from behind", seed=5),
]


def pixels(images) -> np.ndarray:
    return np.stack([np.asarray(image) for _, image in sorted(images)]).astype(int)


@pytest.fixture
def lora_files(base, examples, params, tmp_path):
    lora = train_lora(base, examples, replace(params, learning_rate=0.05))
    paths = {"kohya": tmp_path / "lora.safetensors", "peft": tmp_path / "lora.peft.safetensors"}
    files.save(lora, base, About("her", "eiei21girl"), **paths)
    return paths


def pipeline_like(base, sampler: str) -> StableDiffusionPipeline:
    return StableDiffusionPipeline(
        vae=base.vae, text_encoder=base.text_encoder, tokenizer=base.tokenizer, unet=base.unet,
        scheduler=base.noise.sampler(sampler, 1, base.device).scheduler, safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip


def by_diffusers(base, pictures, params: GenerateParams) -> np.ndarray:
    pipeline = pipeline_like(base, params.sampler)
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(
        [picture.prompt for picture in pictures],
        negative_prompt=[params.negative_prompt] * len(pictures),
        generator=[torch.Generator("cpu").manual_seed(picture.seed) for picture in pictures],
        num_inference_steps=params.inference_steps, guidance_scale=params.guidance_scale,
        width=params.width, height=params.height,
    ).images  # fmt: skip
    return np.stack([np.asarray(image) for image in images]).astype(int)


@pytest.mark.parametrize("sampler", catalog.SAMPLERS)
@pytest.mark.parametrize("family", ["base", "chibi"])
def test_pictures_are_those_of_diffusers(family, sampler, request):
    base = request.getfixturevalue(family)
    params = replace(PARAMS, sampler=sampler, batch_size=3, width=32, height=64)
    ours = pixels(generate(base, PICTURES, params))
    assert np.array_equal(ours, by_diffusers(base, PICTURES, params))


def test_without_guidance_the_negative_prompt_is_not_asked(base):
    params = replace(PARAMS, guidance_scale=1.0, batch_size=3)
    params_too = replace(params, negative_prompt="something else")
    assert np.array_equal(pixels(generate(base, PICTURES, params)), by_diffusers(base, PICTURES, params))
    assert np.array_equal(pixels(generate(base, PICTURES, params)), pixels(generate(base, PICTURES, params_too)))


@pytest.mark.parametrize("sampler", ["ddim", "euler_a"])
def test_a_picture_does_not_depend_on_its_batch(chibi, sampler):
    params = replace(PARAMS, sampler=sampler)
    together = pixels(generate(chibi, PICTURES, params))
    alone = np.concatenate([pixels(generate(chibi, [picture], params)) for picture in PICTURES])
    assert np.abs(together - alone).max() <= 1  # sums of another order may round one step of 255 otherwise
    assert np.abs(together[0] - together[2]).max() > 20  # the same prompt from another seed is another picture


@pytest.mark.parametrize(("family", "dtype"), [("base", torch.float32), ("chibi", torch.bfloat16)])
def test_a_vae_that_may_overflow_decodes_in_full_precision(family, dtype, request):
    base, seen = request.getfixturevalue(family), []
    hook = base.vae.decoder.conv_out.register_forward_hook(lambda _module, _given, x: seen.append(x.dtype))
    list(generate(base, PICTURES[:1], replace(PARAMS, precision="bf16", inference_steps=1)))
    hook.remove()
    assert seen == [dtype]


def test_what_is_not_said_is_the_family_s_default(chibi):
    ((index, image),) = generate(chibi, PICTURES[:1], GenerateParams(inference_steps=2))
    assert (index, image.size, image.mode) == (0, (128, 128), "RGB")


def test_both_files_draw_the_same_and_diffusers_agrees(base, lora_files):
    plain = pixels(generate(base, PICTURES, PARAMS))
    kohya = pixels(generate(base, PICTURES, PARAMS, loras=[(lora_files["kohya"], 1.0)]))
    peft = pixels(generate(base, PICTURES, PARAMS, loras=[(lora_files["peft"], 1.0)]))
    assert np.abs(kohya - peft).max() <= 2  # fp16 and fp32
    assert np.abs(plain - peft).max() > 2


def test_strengths_add_up(base, lora_files):
    file = lora_files["peft"]
    once = pixels(generate(base, PICTURES, PARAMS, loras=[(file, 0.8)]))
    twice = pixels(generate(base, PICTURES, PARAMS, loras=[(file, 0.5), (file, 0.3)]))
    none = pixels(generate(base, PICTURES, PARAMS, loras=[(file, 0.7), (file, -0.7)]))
    assert np.abs(once - twice).max() <= 1
    assert np.abs(none - pixels(generate(base, PICTURES, PARAMS))).max() <= 1


def test_the_base_is_itself_between_batches_and_afterwards(base, lora_files):
    before = output(base)
    drawing = generate(base, PICTURES, PARAMS, loras=[(lora_files["peft"], 1.0)])
    next(drawing)
    assert torch.equal(output(base), before)
    assert torch.is_grad_enabled()
    list(drawing)
    assert torch.equal(output(base), before)


def test_stopping_leaves_the_base_alone(base, lora_files):
    class Stopped(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise Stopped

    before = output(base)
    with pytest.raises(Stopped):
        list(generate(base, PICTURES, PARAMS, loras=[(lora_files["peft"], 1.0)], on_step=stop))
    assert torch.equal(output(base), before)


def test_steps_are_counted_over_all_batches(base):
    seen = []
    list(generate(base, PICTURES, PARAMS, on_step=lambda *step: seen.append(step)))
    assert seen == [(n, 8) for n in range(1, 9)]


def test_unknown_samplers_are_named(base):
    with pytest.raises(ValueError, match="dpmpp_2m"):
        list(generate(base, PICTURES, replace(PARAMS, sampler="magic")))


def test_clip_skip_asks_an_earlier_layer(base):
    deep, shallow = base.encode_prompts(["1girl"]), base.encode_prompts(["1girl"], clip_skip=1)
    states = base.text_encoder(
        base.tokenizer(["1girl"], padding="max_length", return_tensors="pt").input_ids, output_hidden_states=True
    ).hidden_states
    norm = getattr(base.text_encoder, "text_model", base.text_encoder).final_layer_norm
    assert torch.allclose(shallow.encoder_hidden_states[0], norm(states[-2])[0])
    assert not torch.allclose(deep.encoder_hidden_states[0], shallow.encoder_hidden_states[0])


def test_nothing_to_draw_draws_nothing(base):
    assert list(generate(base, [], PARAMS)) == []
