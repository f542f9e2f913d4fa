"""Encoded pictures and captions, before the first step."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import torch

from tests.diffusion.tiny import make_image
from workers.diffusion.dataset import Example, nearest, plan, prepare, shuffle


def test_the_trigger_stays_first_and_the_rest_is_shuffled():
    variants = shuffle("eiei21girl, 1girl, solo, from side, full body", 4, random.Random(0))
    assert variants[0] == "eiei21girl, 1girl, solo, from side, full body"
    assert len(variants) == 4
    for variant in variants:
        first, *rest = variant.split(", ")
        assert first == "eiei21girl"
        assert sorted(rest) == ["1girl", "from side", "full body", "solo"]


def test_a_short_caption_has_few_variants():
    assert shuffle("eiei21girl", 4, random.Random(0)) == ["eiei21girl"]


def test_captions_are_embedded_once_and_the_empty_one_is_among_them(base, examples, params):
    data = prepare(base, examples, replace(params, caption_variants=2))
    assert data.texts[0] == ""
    assert len(set(data.texts)) == len(data.texts)
    assert len(data.conditioning.encoder_hidden_states) == len(data.texts)
    assert all(0 not in rows for rows in data.variants)


def test_all_captions_are_dropped_when_told_so(base, examples, params):
    data = prepare(base, examples, params)
    generator = torch.Generator().manual_seed(0)
    batch = data.batch(base, [0, 1], caption_dropout=1.0, generator=generator)
    (expected,) = base.encode_prompts([""]).encoder_hidden_states
    for states in batch.conditioning.encoder_hidden_states:
        assert torch.allclose(states, expected, atol=1e-5)


def test_latents_are_fresh_samples(base, examples, params):
    data = prepare(base, examples, params)
    generator = torch.Generator().manual_seed(0)
    first, second = (data.batch(base, [0], 0.0, generator).latents for _ in range(2))
    assert not torch.equal(first, second)
    assert (first - data.means[0]).abs().max() <= 6 * data.stds[0].max()


def test_four_pictures_fill_a_batch_of_eight_evenly(base, examples, params):
    batches = plan(prepare(base, examples, params), batches=3, batch_size=8, seed=1)
    assert [Counter(batch) for batch in batches] == [Counter({0: 2, 1: 2, 2: 2, 3: 2})] * 3


def test_pictures_of_four_aspects_train_too(base, params):
    sizes = [(48, 48), (48, 64), (64, 48), (40, 70)]
    data = prepare(base, [Example(make_image(n, size), ["her"]) for n, size in enumerate(sizes)], params)
    assert len(data.buckets) == len({tuple(mean.shape) for mean in data.means})
    for batch in plan(data, batches=10, batch_size=8, seed=0):
        assert len(batch) == 8
        data.batch(base, batch, 0.1, torch.Generator().manual_seed(0))


def test_a_plan_is_the_same_every_time(base, examples, params):
    data = prepare(base, examples, params)
    assert plan(data, 5, 3, seed=2) == plan(data, 5, 3, seed=2) != plan(data, 5, 3, seed=3)


def test_chibi_knows_only_squares(chibi):
    assert chibi.sizes(None) == [(128, 128)]


def test_the_nearest_aspect_is_taken():
    sizes = [(512, 512), (448, 576), (576, 448)]
    assert nearest(sizes, (100, 100)) == (512, 512)
    assert nearest(sizes, (100, 140)) == (448, 576)
    assert nearest(sizes, (300, 200)) == (576, 448)
