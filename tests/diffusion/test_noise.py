"""Noise of every kind, compared with formulas that are written out here."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor

from shared import catalog
from shared.catalog.defaults import generate_defaults
from shared.catalog.params import TrainParams
from tests.diffusion import flow
from workers.diffusion import train
from workers.diffusion.dataset import prepare
from workers.diffusion.noise.base import Noise
from workers.diffusion.noise.discrete import Discrete
from workers.diffusion.noise.flow import Flow

CPU = torch.device("cpu")
CONFIG = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000,
    "steps_offset": 1, "clip_sample": False, "set_alpha_to_one": False,
}  # fmt: skip
EPSILON = {**CONFIG, "prediction_type": "epsilon"}
V = {**CONFIG, "prediction_type": "v_prediction"}
ZERO_TERMINAL = {**V, "rescale_betas_zero_snr": True}

NOISES = {
    "epsilon": lambda: Discrete(EPSILON, CPU),
    "v": lambda: Discrete(V, CPU),
    "zero terminal SNR": lambda: Discrete(ZERO_TERMINAL, CPU),
    "flow": lambda: Flow(shift=3.0),
    "flow, sign turned": lambda: Flow(density="uniform", sign=-1),
}


def alphas_cumprod() -> list[float]:
    """Stable Diffusion's, in double precision."""
    roots = [math.sqrt(0.00085) + n / 999 * (math.sqrt(0.012) - math.sqrt(0.00085)) for n in range(1000)]
    kept, product = [], 1.0
    for root in roots:
        product *= 1 - root**2
        kept.append(product)
    return kept


@pytest.mark.parametrize("t", [0, 400, 999])
@pytest.mark.parametrize("kind", ["epsilon", "v"])
def test_a_discrete_step_by_hand(kind: str, t: int) -> None:
    x0, eps = 0.7, -1.3
    alpha, sigma = math.sqrt(alphas_cumprod()[t]), math.sqrt(1 - alphas_cumprod()[t])
    noise = NOISES[kind]()
    given = (torch.full((1, 1, 1, 1), x0), torch.full((1, 1, 1, 1), eps), torch.tensor([t]))
    assert noise.add(*given).item() == pytest.approx(alpha * x0 + sigma * eps, abs=1e-5)
    expected = eps if kind == "epsilon" else alpha * eps - sigma * x0
    assert noise.target(*given).item() == pytest.approx(expected, abs=1e-5)


def test_zero_terminal_snr_leaves_nothing_of_the_picture_at_the_last_timestep() -> None:
    """Algorithm 1 of arXiv 2305.08891 shifts the roots until the last is 0, and scales them so that the first stays."""
    roots = [math.sqrt(each) for each in alphas_cumprod()]
    first, last = roots[0], roots[-1]
    expected = [(root - last) * first / (first - last) for root in roots]
    noise = NOISES["zero terminal SNR"]()
    alpha, sigma = noise.scalings(torch.arange(1000))
    assert torch.allclose(alpha, torch.tensor(expected), atol=2e-4)
    assert (alpha[-1].item(), sigma[-1].item()) == (0.0, 1.0)
    x0, eps = torch.tensor([[0.7]]), torch.tensor([[-1.3]])
    assert noise.target(x0, eps, torch.tensor([999])).item() == pytest.approx(-0.7)
    assert noise.zero_terminal_snr


def test_zero_terminal_snr_starts_at_the_last_timestep() -> None:
    for name in catalog.DISCRETE_SAMPLERS:
        assert NOISES["zero terminal SNR"]().sampler(name, 5, CPU).times[0] == 999, name


@pytest.mark.parametrize("family", ["sd15", "sd2", "sdxl"])
def test_the_default_sampler_spends_few_steps_on_pure_noise(family: str) -> None:
    row = catalog.BaseModel(name="v", family=family, path="", resolution=512, prediction_type="v_prediction")
    chosen = generate_defaults(row)
    steps = chosen["inference_steps"]
    times = NOISES["zero terminal SNR"]().sampler(chosen["sampler"], steps, CPU).times
    assert sum(float(t) >= 900 for t in times) <= steps / 5


def test_epsilon_with_zero_terminal_snr_is_refused() -> None:
    with pytest.raises(ValueError, match="must predict v"):
        Discrete({**ZERO_TERMINAL, "prediction_type": "epsilon"}, CPU)
    with pytest.raises(ValueError, match="not sample"):
        Discrete({**CONFIG, "prediction_type": "sample"}, CPU)


@pytest.mark.parametrize("sigma", [0.0, 0.25, 1.0])
def test_a_flow_step_by_hand(sigma: float) -> None:
    x0, eps = 0.7, -1.3
    for noise, sign in ((Flow(), 1), (Flow(sign=-1), -1)):
        given = (torch.full((1, 1, 1, 1, 1), x0), torch.full((1, 1, 1, 1, 1), eps), torch.tensor([sigma]))
        assert noise.add(*given).item() == pytest.approx((1 - sigma) * x0 + sigma * eps)
        assert noise.target(*given).item() == pytest.approx(sign * (eps - x0))
        assert noise.weight(given[2], min_snr_gamma=5.0).tolist() == [1.0]


def test_a_sampler_of_flow_takes_euler_s_step() -> None:
    sampler = Flow(sign=-1).sampler("euler", 4, CPU)
    latents, answer = torch.tensor([[[[0.5]]]]), torch.tensor([[[[2.0]]]])  # x0 - eps
    now, then = sampler.times[:2].tolist()
    assert (now, then) == (1.0, pytest.approx(0.667, abs=0.01))
    assert sampler.step(answer, 0, latents, []).item() == pytest.approx(0.5 + (then - now) * -2.0, abs=1e-5)


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("steps", [20, 28, 60])  # with many, the first times of some are the same
def test_a_denoiser_that_is_right_leads_every_sampler_back_to_the_picture(kind: str, steps: int) -> None:
    """Scalings, times, spacing and sign must all agree for that."""
    noise: Noise = NOISES[kind]()
    x0 = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    for name in noise.samplers:
        sampler = noise.sampler(name, steps, CPU)
        generators = [torch.Generator().manual_seed(2)]
        latents = sampler.start(torch.randn(x0.shape, generator=generators[0]))
        for step, t in enumerate(sampler.times):
            latents = sampler.step(right_answer(noise, sampler.scale(latents, step), x0, t), step, latents, generators)
        assert (latents - x0).abs().max() < 0.15, name


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("first", [0, 7, 19])
def test_every_sampler_may_begin_in_the_middle_of_a_picture(kind: str, first: int) -> None:
    """What has the noise of a step in it is led back to the picture by the steps that are left, and is noised alike."""
    noise: Noise = NOISES[kind]()
    x0, eps = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(1)).unbind()
    for name in noise.samplers:
        sampler = noise.sampler(name, 20, CPU)
        sampler.begin(first)
        latents = sampler.noised(x0, eps, first)
        for step in range(first, 20):
            level = spread_of(sampler, step)
            assert (sampler.noised(x0, eps, step) - sampler.noised(x0, 0 * eps, step)).std() == pytest.approx(
                level * eps.std().item(), rel=1e-4
            ), name
            if step > first and name != "euler_a":  # which draws noise of its own
                assert torch.allclose(latents, sampler.noised(x0, eps, step), rtol=0.02, atol=0.15 * max(1, level)), (
                    name
                )
            t, generators = sampler.times[step], [torch.Generator().manual_seed(2)]
            answer = right_answer(noise, sampler.scale(latents, step), x0, t)
            latents = sampler.step(answer, step, latents, generators)
        assert (latents - x0).abs().max() < 0.15, name


def spread_of(sampler: Any, step: int) -> float:
    """The noise before a step, as the paper of each scheduler scales it."""
    scheduler = sampler.scheduler
    if not hasattr(scheduler, "sigmas"):
        return math.sqrt(1 - scheduler.alphas_cumprod[scheduler.timesteps[step]])
    sigma = scheduler.sigmas[step].item()
    grows = "Euler" in type(scheduler).__name__ or scheduler.config.get("use_flow_sigmas")
    return sigma if grows else sigma / math.sqrt(1 + sigma**2)


def right_answer(noise: Noise, seen: Tensor, x0: Tensor, t: Tensor) -> Tensor:
    """What to answer if the picture is x0."""
    time = (t.long() if isinstance(noise, Discrete) else t).reshape(1)
    alpha, sigma = (each.view(1, 1, 1, 1) for each in noise.scalings(time))
    return noise.target(x0, (seen - alpha * x0) / sigma, time)


@pytest.mark.parametrize("kind", ["epsilon", "v"])
def test_noise_and_target_are_those_of_diffusers(kind: str) -> None:
    noise: Any = NOISES[kind]()
    scheduler: Any = DDPMScheduler.from_config(noise.config)
    x0, eps, t = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8), torch.tensor([1, 400, 998])
    expected = eps if kind == "epsilon" else scheduler.get_velocity(x0, eps, t)
    assert torch.allclose(noise.add(x0, eps, t), scheduler.add_noise(x0, eps, t), atol=1e-6)
    assert torch.allclose(noise.target(x0, eps, t), expected, atol=1e-6)


def test_min_snr_weighs_epsilon_and_spares_v() -> None:
    t = torch.tensor([0, 500, 999])
    weights = NOISES["epsilon"]().weight(t, 5.0)
    kept = alphas_cumprod()
    snrs = [kept[each] / (1 - kept[each]) for each in t.tolist()]
    assert weights.tolist() == pytest.approx([min(snr, 5.0) / snr for snr in snrs], rel=1e-3)
    assert torch.equal(NOISES["v"]().weight(t, 5.0), torch.ones(3))
    assert torch.equal(NOISES["epsilon"]().weight(t, 0.0), torch.ones(3))


def test_times_are_spread_over_the_whole_range() -> None:
    t = NOISES["epsilon"]().draw_times(10, torch.Generator().manual_seed(0))
    assert sorted(int(each) // 100 for each in t) == list(range(10))
    sigma = Flow(density="uniform").draw_times(10, torch.Generator().manual_seed(0))
    assert sorted(int(each * 10) for each in sigma) == list(range(10))


def test_flow_learns_where_its_density_says() -> None:
    def times(**settings: Any) -> Tensor:
        return Flow(**settings).draw_times(4000, torch.Generator().manual_seed(0))

    uniform, logit_normal, shifted = times(density="uniform"), times(), times(density="uniform", shift=3.0)
    assert all(each.min() >= 0 and each.max() <= 1 for each in (uniform, logit_normal, shifted))
    assert logit_normal.logit().mean().item() == pytest.approx(0, abs=0.02)
    assert logit_normal.logit().std().item() == pytest.approx(1, abs=0.02)
    assert shifted.median().item() == pytest.approx(3 * 0.5 / (1 + 2 * 0.5), abs=0.01)
    with pytest.raises(ValueError, match="use uniform or logit_normal"):
        Flow(density="beta")


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "flow"])
def test_the_loss_of_a_batch_by_hand(kind: str, base, chibi, examples, params, monkeypatch: Any) -> None:
    """The squared errors' weighted mean over everything but the batch, for latents of four dimensions and of five."""
    family: Any = {"epsilon": base, "v_prediction": chibi, "flow": flow.TinyFlow()}[kind]
    params = replace(params, noise_offset=0.0, caption_dropout=0.0, min_snr_gamma=5.0)
    if kind == "flow":
        monkeypatch.setitem(catalog.FAMILIES, "flow", flow.FAMILY)
    data = prepare(family, examples[:2], params)
    seen: dict[str, Any] = {}

    def predict(noisy: Tensor, t: Tensor, conditioning: Any) -> Tensor:
        seen.update(noisy=noisy, t=t)
        return torch.zeros_like(noisy)

    monkeypatch.setattr(family, "predict", predict)
    loss = train.batch_loss(family, data, [0, 1], params, torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    x0 = data.batch(family, [0, 1], 0.0, generator).latents
    eps = torch.randn(x0.shape, generator=generator)
    total = 0.0
    for row in range(2):
        t = seen["t"][row].item()
        if kind == "flow":
            noisy, target, weight = (1 - t) * x0[row] + t * eps[row], x0[row] - eps[row], 1.0
        else:
            kept = alphas_cumprod()[int(t)]
            alpha, sigma = math.sqrt(kept), math.sqrt(1 - kept)
            noisy = alpha * x0[row] + sigma * eps[row]
            target = eps[row] if kind == "epsilon" else alpha * eps[row] - sigma * x0[row]
            weight = min(5.0 * (1 - kept) / kept, 1.0) if kind == "epsilon" else 1.0
        assert torch.allclose(seen["noisy"][row], noisy, atol=1e-4)
        total += weight * (target**2).sum().item() / target.numel() / 2
    assert loss.item() == pytest.approx(total, rel=1e-3)


def test_the_catalog_knows_the_samplers_of_each_noise() -> None:
    assert tuple(Discrete.samplers) == catalog.DISCRETE_SAMPLERS
    assert tuple(Flow.samplers) == catalog.FLOW_SAMPLERS


def test_an_offset_shifts_each_channel_as_a_whole(base, examples, params, monkeypatch: Any) -> None:
    """One more random number is added to all of a channel (crosslabs.org/blog/diffusion-with-offset-noise)."""
    data, seen, add = prepare(base, examples[:1], params), [], base.noise.add
    spy = SimpleNamespace(add=lambda x0, eps, t: seen.append(eps) or add(x0, eps, t))
    for name in ("draw_times", "target", "weight"):
        setattr(spy, name, getattr(base.noise, name))
    with monkeypatch.context() as patch:
        patch.setattr(base, "noise", spy)
        for offset in (0.0, 0.5):
            offset_params: TrainParams = replace(params, noise_offset=offset)
            train.batch_loss(base, data, [0], offset_params, torch.Generator().manual_seed(3))
    shift = seen[1] - seen[0]
    assert torch.allclose(shift, shift[:, :, :1, :1].expand_as(shift), atol=1e-6)
    assert len(set(shift[0, :, 0, 0].tolist())) == shift.shape[1]
