"""How base models with CLIP read texts: in chunks, with weights, and from which layer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from shared import catalog
from shared.catalog.params import GenerateParams, TrainParams, WantedPicture
from tests.diffusion import tiny
from tests.diffusion.tiny import make_image
from workers.diffusion.dataset import Example, prepare
from workers.diffusion.families import clip
from workers.diffusion.generate import generate
from workers.diffusion.lora.about import About, ss_metadata
from workers.diffusion.train import train_lora

LONG = ", ".join(f"tag {letter}" for letter in "abcdefghijklmnopqrstuvwxyz")  # 26 tags of 3 tokens, with their commas
DRAWING = GenerateParams(
    width=32, height=32, inference_steps=2, guidance_scale=9.0, negative_prompt="bad", batch_size=4
)


@pytest.fixture(scope="module", params=["sd15", "sd2", "sdxl"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tiny base model, whose last norm gives its states a mean as a trained one's does."""
    row = tiny.make_base_model(tmp_path_factory.mktemp(request.param), family=request.param, tokenizer=clip.tokenizer())
    base = catalog.resolve(catalog.FAMILIES[row.family].code)(row, "cpu")
    torch.manual_seed(1)
    inner = getattr(base.text_encoder, "text_model", base.text_encoder)
    inner.final_layer_norm.bias.data.normal_(0.3)
    return base


def states(base: Any, text: str, **options: Any) -> Tensor:
    """What the UNet attends to: (tokens, channels)."""
    with torch.no_grad():
        return base.encode_prompts([text], **options).encoder_hidden_states[0]


def words(chunks: list[clip.Chunk]) -> list[str]:
    """The texts of chunks."""
    tokenizer = clip.tokenizer()
    return [tokenizer.decode(chunk.ids) for chunk in chunks]


class TestChunks:
    def test_a_short_text_is_one_chunk_as_the_tokenizer_makes_it(self, base: Any) -> None:
        for text in ("", "1girl, from behind"):
            (chunk,) = clip.chunks(base.tokenizer, text)
            expected = base.tokenizer(text, padding="max_length").input_ids
            assert clip._marked(chunk, base.tokenizer) == expected

    def test_a_chunk_ends_after_a_tag(self) -> None:
        first, second = clip.chunks(clip.tokenizer(), LONG + ", a very long tag of some words")
        assert len(first.ids) == 75
        assert words([first])[0].endswith("y ,")
        assert words([second]) == ["tag z , a very long tag of some words"]
        first, second = clip.chunks(clip.tokenizer(), "x, " + LONG)
        assert len(first.ids) == 74
        assert words([second])[0].startswith("tag y")

    def test_a_text_without_commas_is_cut_at_75_tokens(self) -> None:
        chunks = clip.chunks(clip.tokenizer(), "a " * 160)
        assert [len(chunk.ids) for chunk in chunks] == [75, 75, 10]

    def test_no_token_is_lost_or_moved(self) -> None:
        text = LONG + ", " + LONG + ", fox ears and a tail, " + LONG
        ids = [number for chunk in clip.chunks(clip.tokenizer(), text) for number in chunk.ids]
        assert ids == clip.tokenizer()(text, add_special_tokens=False).input_ids

    def test_break_begins_a_chunk(self) -> None:
        tokenizer = clip.tokenizer()
        assert words(clip.chunks(tokenizer, "fox BREAK (tail:1.2), BREAK", "weighted")) == ["fox", "tail ,"]
        assert len(clip.chunks(tokenizer, "fox BREAK tail")) == 1

    def test_weights_belong_to_tokens(self) -> None:
        (chunk,) = clip.chunks(clip.tokenizer(), r"a (photo of:1.5) a cat \(x\)", "weighted")
        assert words([chunk]) == ["a photo of a cat ( x )"]
        assert chunk.weights == [1.0, 1.5, 1.5, 1.0, 1.0, 1.0, 1.0, 1.0]


class TestLongTexts:
    def test_all_of_it_is_read(self, base: Any) -> None:
        assert states(base, LONG).shape[0] == 2 * 77
        ends = [states(base, f"{LONG}, {end}") for end in ("fox ears", "cat ears")]
        assert not torch.allclose(*ends)
        assert torch.equal(ends[0][:77], ends[1][:77])
        assert base.cut_off(LONG * 9) == ""

    def test_each_chunk_is_what_it_is_alone(self, base: Any) -> None:
        first, second = LONG[: LONG.index("tag z")].rstrip(), "tag z"
        assert torch.allclose(states(base, LONG), torch.cat([states(base, first), states(base, second)]), atol=1e-5)

    def test_a_picture_does_not_depend_on_the_texts_beside_it(self, base: Any) -> None:
        pictures = [WantedPicture(prompt=text, seed=3) for text in ("1girl", LONG, f"{LONG}, {LONG}")]
        together = [np.asarray(image).astype(int) for _, image in generate(base, pictures, DRAWING)]
        for picture, image in zip(pictures, together, strict=True):
            ((_, alone),) = generate(base, [picture], DRAWING)
            assert np.abs(image - np.asarray(alone)).max() <= 1
        assert np.abs(together[1] - together[2]).max() > 2

    def test_it_is_trained_on(self, base: Any) -> None:
        examples = [Example(make_image(0), [LONG]), Example(make_image(1), ["1girl"])]
        for rate in (0.0, 0.01):
            params = TrainParams(
                rank=2, train_steps=2, batch_size=2, caption_dropout=0.0, warmup_steps=0,
                lora_modules="attention", text_encoder_learning_rate=rate, precision="fp32",
            )  # fmt: skip
            assert train_lora(base, examples, params).steps == 2

    def test_the_text_as_a_whole_is_that_of_its_first_chunk(self, base: Any) -> None:
        if base.row.family != "sdxl":
            pytest.skip("only SDXL is told of it")
        with torch.no_grad():
            long, first = base.encode_prompts([LONG, LONG[: LONG.index("tag z")].rstrip()]).pooled
        assert torch.allclose(long, first, atol=1e-5)


class TestWeights:
    def test_without_weights_both_syntaxes_are_the_same(self, base: Any) -> None:
        text = "1girl, from behind, long hair"
        assert torch.equal(states(base, text), states(base, text, syntax="weighted"))

    def test_brackets_are_words_in_plain_prompts(self, base: Any) -> None:
        plain, weighted = (states(base, "(fox ears:1.4)", syntax=syntax) for syntax in ("plain", "weighted"))
        assert not torch.allclose(plain, weighted)

    def test_weights_multiply_states_and_the_mean_of_a_chunk_stays(self, base: Any) -> None:
        plain, weighted = states(base, "a fox ears"), states(base, "a (fox:1.5) [ears]", syntax="weighted")
        count = len(base.tokenizer("fox", add_special_tokens=False).input_ids)
        factors = torch.ones(77)
        factors[2 : 2 + count] = 1.5
        rest = len(base.tokenizer("ears", add_special_tokens=False).input_ids)
        factors[2 + count : 2 + count + rest] = 1 / 1.1
        widths = [base.text_encoder.config.hidden_size]
        if base.row.family == "sdxl":
            widths.append(base.text_encoder_2.config.hidden_size)
        for before, after in zip(plain.split(widths, dim=1), weighted.split(widths, dim=1), strict=True):
            expected = before * factors[:, None]
            expected *= before.mean() / expected.mean()
            assert torch.allclose(after, expected, atol=1e-5)
            assert after.mean() == pytest.approx(float(before.mean()), rel=1e-3)

    def test_a_mean_of_nothing_is_not_restored(self) -> None:
        even = torch.randn(1, 77, 64, generator=torch.Generator().manual_seed(0))
        even -= even.mean()
        weights = torch.ones(1, 77)
        weights[0, 3] = 1.4
        assert torch.equal(clip.weigh(even, weights), even * weights[:, :, None])

    def test_a_mean_that_changes_its_sign_is_not_restored(self) -> None:
        """The quotient of the means would be negative, and turn the text into its opposite."""
        states = torch.full((1, 77, 64), -0.5)
        states[0, :30] = 1.0
        states += torch.randn(states.shape, generator=torch.Generator().manual_seed(0))
        weights = torch.ones(1, 77)
        weights[0, 40:70] = 1.5
        assert states.mean() > 0 > (states * weights[:, :, None]).mean()
        assert torch.equal(clip.weigh(states, weights), states * weights[:, :, None])

    def test_a_weight_in_a_long_text_changes_its_chunk_alone(self, base: Any) -> None:
        plain, weighted = states(base, LONG), states(base, LONG.replace("tag z", "(tag z:1.4)"), syntax="weighted")
        assert torch.equal(plain[:77], weighted[:77])
        assert not torch.allclose(plain[77:], weighted[77:])

    def test_they_change_pictures(self, base: Any) -> None:
        params = replace(DRAWING, prompt_syntax="weighted")
        pictures = [WantedPicture(prompt=text, seed=3) for text in ("1girl, fox ears", "1girl, (fox ears:1.8)")]
        plain, weighted = (np.asarray(image).astype(int) for _, image in generate(base, pictures, params))
        assert np.abs(plain - weighted).max() > 0


class TestClipSkip:
    def test_it_leaves_out_layers_of_the_one_that_the_base_was_trained_on(self, base: Any) -> None:
        ids = torch.tensor([base.tokenizer("1girl", padding="max_length").input_ids])
        hidden = base.text_encoder(ids, output_hidden_states=True).hidden_states
        if base.row.family == "sdxl":
            assert torch.allclose(states(base, "1girl")[:, :16], hidden[-2][0], atol=1e-6)
            assert torch.allclose(states(base, "1girl", clip_skip=1)[:, :16], hidden[-3][0], atol=1e-6)
            return
        norm = getattr(base.text_encoder, "text_model", base.text_encoder).final_layer_norm
        assert torch.allclose(states(base, "1girl"), norm(hidden[-1])[0], atol=1e-6)
        assert torch.allclose(states(base, "1girl", clip_skip=1), norm(hidden[-2])[0], atol=1e-6)

    def test_it_is_the_same_in_training_and_drawing(self, base: Any) -> None:
        params = TrainParams(rank=2, train_steps=1, batch_size=1, clip_skip=1, caption_variants=1)
        data = prepare(base, [Example(make_image(0), ["1girl, solo"])], params)
        assert data.texts[1] == "1girl, solo"
        assert data.conditioning is not None
        assert torch.allclose(
            data.conditioning.encoder_hidden_states[1], states(base, "1girl, solo", clip_skip=1), atol=1e-6
        )
        learning = prepare(
            base, [Example(make_image(0), ["1girl, solo"])], replace(params, text_encoder_learning_rate=0.1)
        )
        with torch.no_grad():
            batch = learning.batch(base, [0], 0.0, torch.Generator().manual_seed(0))
        assert torch.allclose(
            batch.conditioning.encoder_hidden_states[0], states(base, "1girl, solo", clip_skip=1), atol=1e-6
        )

    def test_kohya_s_files_name_it_in_their_count(self, base: Any) -> None:
        params = TrainParams(rank=2, train_steps=1, batch_size=1, clip_skip=1)
        lora = train_lora(base, [Example(make_image(0), ["1girl"])], params)
        assert ss_metadata(lora, base, About("her"))["ss_clip_skip"] == ("3" if base.row.family == "sdxl" else "2")
