"""Presets: the recipes as they are written, on the networks that they are for, and refusals."""

import math
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel

from hdzoo import (
    ConvEnergyModel,
    GaussianMixtureScore,
    HDPipeline,
    NCSNModel,
    UNetScoreModel,
    get_preset,
    get_sampler,
)
from hdzoo.errors import HDZooError
from hdzoo.samplers.noise import Noise
from hdzoo.samplers.presets import PRESETS
from hdzoo.verification.laws import Draws

EVERY = pytest.mark.parametrize("name", PRESETS)
# First and last noise level, how many, tau above and below a level, and nu.
RECIPES = {
    "fast": (5, 0.15, 10, (1.2, 1.3, 2.6), 1.05),
    "balanced": (5, 0.05, 20, (2.2, 1, 2.2), 1),
    "best": (10.0, 0.01, 50, (2.2, 0.0, 2.2), 1.0),
}


def pipeline(**options: Any) -> HDPipeline:
    """A small network of random weights, with a walk as its own sampler."""
    options = {"data_std": 0.3081, "data_mean": 0.1307} | options
    network = UNetScoreModel(8, block_out_channels=(8, 8), norm_num_groups=4, **options)
    sampler = get_sampler("annealed-langevin")(
        5.0, 0.01, num_levels=20, step_size=3e-5, prediction_type="sample"
    )
    return HDPipeline(network, sampler)


def written_out(name: str, x: torch.Tensor, z: torch.Tensor, scale: float) -> torch.Tensor:
    """Consistent annealing of second order, from its formula."""
    first, last, number, (above, level, below), nu = RECIPES[name]
    sigmas = [scale * first * (last / first) ** (i / (number - 1)) for i in range(number)]
    h = [math.log(a / b) for a, b in pairwise(sigmas)]
    denoised = [torch.tanh(x)]
    for i in range(number - 1):
        tau = above if sigmas[i] > scale * level else below
        c = 1 + tau**2
        kept = math.exp(-c * h[i])
        w = (h[i] - (1 - kept) / c) / h[i - 1] if i > 0 else 0
        x = kept * x + (1 - kept) * denoised[-1]
        if i > 0:
            x = x + w * (denoised[-1] - denoised[-2])
        x = x + nu * sigmas[i + 1] * math.sqrt(1 - math.exp(-2 * tau**2 * h[i])) * z[i]
        denoised.append(torch.tanh(x))
    return denoised[-1]


@EVERY
@pytest.mark.parametrize("data_std", [0.3081, 0.6162])
def test_a_preset_is_its_recipe_step_by_step(name: str, data_std: float) -> None:
    """Noise levels are in terms of the data."""
    pipe = pipeline(data_std=data_std, sigma_max=20.0)
    sampler = get_preset(name).for_model(pipe)
    sampler.set_timesteps()
    number = RECIPES[name][2]
    assert len(sampler.timesteps) == number == get_preset(name).num_inference_steps
    x, z = torch.randn(4, 3).double() * 5, torch.randn(number, 4, 3).double()
    start, steps = x, []
    for t in sampler.timesteps:
        with Draws(lambda *_: z[len(steps)]):
            x = sampler.step(torch.tanh(x), t, x).prev_sample
        steps.append(t)
    expected = written_out(name, start, z, data_std / 0.3081)
    # Rounding of some 50 steps in float64.
    torch.testing.assert_close(x, expected, rtol=1e-10, atol=1e-10)


@EVERY
def test_it_starts_from_the_datas_mean_and_variance(name: str) -> None:
    sampler = get_preset(name).for_model(pipeline())
    sampler.set_timesteps()
    noise = Noise(torch.Generator().manual_seed(0), "cpu")
    state = sampler.first_state((2, 1, 8, 8), noise, 0.1307, (0, 1), 0.3081)
    z = Noise(torch.Generator().manual_seed(0), "cpu").normal((2, 1, 8, 8))
    first = RECIPES[name][0]
    torch.testing.assert_close(state, 0.1307 + math.sqrt(first**2 + 0.3081**2) * z)


def test_a_pipeline_draws_at_the_presets_cost() -> None:
    pipe = pipeline()
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = get_preset("fast").for_model(pipe)
    assert pipe(2, output_type="pt").images.shape == (2, 1, 8, 8)
    assert pipe.num_timesteps == 10
    pipe(1, 4, output_type="pt")
    assert pipe.num_timesteps == 4
    # And again, of what is a preset already.
    again = get_preset("fast").for_model(pipe)
    assert again.config["geomspace"] == [5.0, 0.15, 10]
    assert again.levels[-2] == 0.15


def test_other_samplers_keep_the_range_of_the_model() -> None:
    """A ladder that ends early is the preset's alone."""
    pipe = pipeline()
    preset = get_preset("fast").for_model(pipe)
    for name in ("annealed-langevin", "alpha-half-denoising", "consistent-annealed-sampling"):
        one, other = (get_sampler(name).from_config(p.config) for p in (preset, pipe.scheduler))
        one.set_timesteps(40)
        other.set_timesteps(40)
        assert one.levels == other.levels
        assert [m.alpha for m in one.moves] == [m.alpha for m in other.moves]
    heun = get_sampler("heun").from_config(preset.config)
    assert (heun.levels[0], heun.levels[-2]) == (5.0, 0.01)


def test_the_range_of_a_network_cuts_the_ladder() -> None:
    pipe = pipeline(sigma_max=2.0, sigma_min=0.3)
    sampler = get_preset("fast").for_model(pipe)
    assert sampler.config.geomspace == [2.0, 0.3, 10]
    assert "from 2 to 0.3, as found on digits" in get_preset("fast").describe(pipe)


def test_networks_of_a_noise_schedule() -> None:
    """Their levels, scaled by a guess: images in [-1, 1] have the deviation 1/2."""
    network = UNet2DModel(
        8,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
        norm_num_groups=4,
    )
    own = get_sampler("heun").from_config(DDPMScheduler().config)
    pipe = HDPipeline(network, own)
    for name, preset in PRESETS.items():
        pipe.scheduler = preset.for_model(pipe)
        first, last, number, *_ = RECIPES[name]
        levels = np.array(pipe.scheduler.levels[:-1])
        expected = 0.5 / 0.3081 * np.geomspace(first, last, number)
        # Levels that the network was trained at are 3 % apart above .1, at most; below, where
        # there are few, the nearest is no further than the least two from each other, 1.5.
        np.testing.assert_allclose(levels[expected > 0.1], expected[expected > 0.1], rtol=0.03)
        np.testing.assert_allclose(levels, expected, rtol=0.5)
        assert pipe.scheduler.config.start == "normal"
        assert "a guess at data_std: not measured" in preset.describe(pipe)


def test_networks_of_a_ladder_are_asked_on_it() -> None:
    network = NCSNModel(base_channels=8)
    ladder = network.sigmas.tolist()
    pipe = HDPipeline(network, get_sampler("annealed-langevin")(sigmas=ladder))
    sampler = get_preset("fast").for_model(pipe)
    assert list(sampler.levels[:-1]) == ladder
    network.check_sigmas(sampler.levels[:-1])
    with pytest.raises(HDZooError, match="'balanced' asks at 20 noise levels, and NCSNModel knows"):
        get_preset("balanced").for_model(pipe)
    long = SimpleNamespace(sigmas=torch.linspace(3, 0.1, 19), config={})
    assert get_preset("fast").options(long, {})["sigmas"] == long.sigmas[::2].tolist()


SINGLE = HDPipeline(ConvEnergyModel(), get_sampler("langevin")(0.005))
POINTS = GaussianMixtureScore.from_components([[0.0, 1.0]], 0.3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: get_preset("fastest"), "no preset 'fastest'; there are fast \\(10 evaluations"),
        (lambda: get_preset(["fast"]), r"no preset \['fast'\]"),
        (lambda: get_preset("fast").for_model("ncsn-mnist"), "'ncsn-mnist' is none; give the pipe"),
        (lambda: get_preset("fast").for_model(SINGLE), "knows noise levels from 0.005 to 0.005"),
        (
            lambda: get_preset("best").for_model(pipeline(sigma_max=0.5)),
            r"standard deviation is 0.308, and UNetScoreModel knows noise levels from 0.5 to 0.01",
        ),
        (
            lambda: get_preset("fast").for_model(pipeline(sigma_max=3.0, sigma_min=2.0)),
            "knows noise levels from 3 to 2; take another sampler",
        ),
        (
            lambda: get_preset("fast").for_model(HDPipeline(POINTS, get_sampler("heun")())),
            "nothing says how large the data of GaussianMixtureScore are",
        ),
    ],
)
def test_what_has_no_preset(call: Any, message: str) -> None:
    with pytest.raises(HDZooError, match=message):
        call()


# ---- a ladder of one's own ------------------------------------------------------------------

SOLVER = "dpm-solver-pp-2m"


@pytest.mark.parametrize("number", [None, 1, 2, 7, 30])
def test_geomspace_is_numpys(number: int | None) -> None:
    sampler = get_sampler(SOLVER)(sigma_max=9.0, geomspace=[3.0, 0.2, 12])
    sampler.set_timesteps(number)
    expected = np.geomspace(3.0, 0.2, number or 12)
    np.testing.assert_allclose(sampler.levels[:-1], expected, rtol=1e-13)


@pytest.mark.parametrize(
    "said", [{"sigma_max": 4.0}, {"sigma_min": 0.1}, {"sigmas": [2.0, 0.1]}, {"rho": None}]
)
def test_who_says_the_ladder_anew_means_it(said: dict[str, Any]) -> None:
    own = get_sampler(SOLVER)(5.0, 0.01, geomspace=[3.0, 0.2, 12])
    anew = type(own).from_config(own.config, **said)
    alone = get_sampler(SOLVER)(**{"sigma_max": 5.0, "sigma_min": 0.01} | said)
    assert (anew.config.geomspace, anew.levels) == (None, alone.levels)
    assert type(own).from_config(own.config, num_steps=9).num_inference_steps == 9
    both = type(own).from_config(own.config, geomspace=[2.0, 0.3, 5], **said)
    assert both.config.geomspace == [2.0, 0.3, 5]
    kept = type(own).from_config(own.config, eta=2.0)
    assert kept.levels == own.levels


@pytest.mark.parametrize(
    "value", [5, "wide", [5, 1], [1, 5, 10], [5, 5, 10], [5, 1, 0], [5, 1, 2.5]]
)
def test_what_is_no_geomspace(value: Any) -> None:
    with pytest.raises(HDZooError, match=r"geomspace is .*; it must be three numbers.*or None"):
        get_sampler(SOLVER)(geomspace=value)


def test_geomspace_of_an_array() -> None:
    sampler = get_sampler(SOLVER)(geomspace=np.array([2.0, 0.5, 3.0]))
    assert sampler.config.geomspace == [2.0, 0.5, 3]
    assert list(sampler.levels) == [2.0, pytest.approx(1.0), 0.5, 0.0]
