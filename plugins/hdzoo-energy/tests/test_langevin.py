"""SGLD and low-temperature Langevin dynamics: published conventions, and exact laws."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hdzoo_energy.langevin import LowTemperatureLangevinSampler, SGLDSampler

from hdzoo import GaussianMixtureScore, HDPipeline, HDZooError, LangevinSampler, get_sampler
from hdzoo.plugins import provider
from hdzoo.samplers.noise import Noise
from hdzoo.verification import Gaussian, exact_law

# Data N(1.3, 0.8^2) and noise of 0.6: V = 1.
DATA, SIGMA = Gaussian.of(1.3, 0.64), 0.6


def law(sampler: Any, steps: int, start: Gaussian) -> tuple[float, float]:
    sampler.set_timesteps(steps)
    mean, covariance = exact_law(sampler, DATA, start)
    return mean.item(), covariance.item()


def states(sampler: Any, score: Any, x: torch.Tensor, steps: int) -> list[torch.Tensor]:
    sampler.set_timesteps(steps)
    generator, walked = torch.Generator().manual_seed(1), [x]
    for t in sampler.timesteps:
        walked.append(sampler.step(score(walked[-1]), t, walked[-1], generator).prev_sample)
    return walked


def start() -> torch.Tensor:
    return torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_registered() -> None:
    for name, found in (
        ("sgld", SGLDSampler),
        ("low-temperature-langevin", LowTemperatureLangevinSampler),
    ):
        assert get_sampler(name) is found
        assert provider("samplers", name).distribution == "hdzoo-energy"
    assert provider("reproductions", "energy-samplers").distribution == "hdzoo-energy"


# ---- SGLD -----------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.0, 0.55, 1.0])
def test_sgld_is_the_published_algorithm(gamma: float) -> None:
    """With Welling and Teh's a and b: epsilon_t = a (b + t)^-gamma, half of it for the gradient.

    To 1e-12: 20 steps of a few roundings each.
    """
    a, b, steps = 0.3, 4.0, 20
    sampler = SGLDSampler(
        sigma=SIGMA, step_size=a * b**-gamma / 2, decay=gamma, decay_offset=b, num_steps=steps
    )
    generator, x = torch.Generator().manual_seed(1), start()
    expected = [x]
    for t in range(steps):
        epsilon = a * (b + t) ** -gamma
        z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        x = x - epsilon / 2 * torch.tanh(x) + math.sqrt(epsilon) * z
        expected.append(x)
    found = states(sampler, lambda at: -torch.tanh(at), start(), steps)
    torch.testing.assert_close(torch.stack(found), torch.stack(expected), rtol=1e-12, atol=1e-12)


def test_sgld_without_decay_is_langevin() -> None:
    walks = [SGLDSampler(SIGMA, 0.1, decay=0.0), LangevinSampler(SIGMA, 0.1)]
    one, other = (states(walk, lambda at: -torch.tanh(at), start(), 9)[-1] for walk in walks)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-14)


def test_the_bias_of_sgld_decays() -> None:
    """Without decay V / (1 - alpha / 2V) = 1 / 0.9 stays; with it the bias is alpha_k / 2V at
    last.

    It follows the step with a delay of V / 2 alpha_k, 67 of the 400 steps, in which that falls by
    0.55 * 67 / 400 = 9 %; and up to the square of that.
    """
    at_rest = Gaussian.of(1.3, 1.0)
    constant = law(SGLDSampler(SIGMA, 0.2, decay=0.0), 400, at_rest)[1]
    assert constant == pytest.approx(1 / 0.9, rel=1e-12)
    decayed = law(SGLDSampler(SIGMA, 0.2, decay=0.55, decay_offset=1.0), 400, at_rest)[1]
    assert decayed - 1 == pytest.approx(1.09 * 0.2 * 400**-0.55 / 2, rel=0.03)


# ---- nearly cold ----------------------------------------------------------------------------


def test_low_temperature_langevin_is_the_tutorials_loop() -> None:
    """Noise, gradient of the energy clipped, step; the first noise is in the first state."""
    tau, clip, step_size, steps = 0.005, 0.03, 10.0, 12

    def gradient(at: torch.Tensor) -> torch.Tensor:
        """Of an energy, some of it beyond the bound."""
        return 0.05 * torch.sin(3 * at)

    sampler = LowTemperatureLangevinSampler(SIGMA)
    generator, image = torch.Generator().manual_seed(1), start()
    for step in range(steps):
        if step:
            image = image + tau * torch.randn(image.shape, generator=generator, dtype=image.dtype)
        image = image - step_size * gradient(image).clamp(-clip, clip)
    assert (gradient(start()).abs() > clip).any()
    found = states(sampler, lambda at: -gradient(at), start(), steps)[-1]
    torch.testing.assert_close(found, image, rtol=0, atol=1e-13)


def test_the_temperature() -> None:
    assert LowTemperatureLangevinSampler().temperature == pytest.approx(1.25e-6, rel=1e-12)
    unit = LowTemperatureLangevinSampler(step_size=0.3, noise=math.sqrt(0.6), clip=None)
    assert unit.temperature == pytest.approx(1)
    assert LowTemperatureLangevinSampler(noise=0).temperature == 0


@pytest.mark.parametrize("noise", [0.005, 0.3, math.sqrt(0.6)])
def test_the_stationary_law_of_a_temperature(noise: float) -> None:
    """T V / (1 - alpha / 2V) where the network is asked, and (1 - alpha / V)^2 of it at the end.

    0.7^200 = 1e-31 is left of the start.
    """
    alpha, total = 0.3, 1.0
    sampler = LowTemperatureLangevinSampler(SIGMA, alpha, noise=noise, clip=None)
    mean, variance = law(sampler, 200, Gaussian.of(0.0, 3.0))
    temperature = noise**2 / (2 * alpha)
    stationary = temperature * total / (1 - alpha / (2 * total))
    assert mean == pytest.approx(1.3, abs=1e-12)
    assert variance == pytest.approx((1 - alpha / total) ** 2 * stationary, rel=1e-10)


def test_at_temperature_1_it_is_langevin_but_for_the_last_noise() -> None:
    cold = LowTemperatureLangevinSampler(SIGMA, 0.1, noise=math.sqrt(0.2), clip=None)
    walks = [cold, LangevinSampler(SIGMA, 0.1)]
    one, other = (states(walk, lambda at: -torch.tanh(at), start(), 9) for walk in walks)
    torch.testing.assert_close(torch.stack(one[:-1]), torch.stack(other[:-1]))
    torch.testing.assert_close(one[-1], one[-2] - 0.1 * torch.tanh(one[-2]))


def test_a_cold_chain_says_nothing_of_the_weights() -> None:
    """Two modes of weight 0.1 and 0.9: from a uniform start each gets what is on its side.

    As many of 4,000 as a binomial law has within 5 standard deviations.
    """
    target = GaussianMixtureScore.from_components([[-1.0], [1.0]], 0.01, [0.1, 0.9])
    sampler = LowTemperatureLangevinSampler(sigma=0.2, step_size=0.02, noise=2e-4, clip=None)
    pipe = HDPipeline(target, sampler)
    pipe.set_progress_bar_config(disable=True)
    x = 4 * torch.rand(4000, 1, generator=torch.Generator().manual_seed(0)) - 2
    ends = pipe(latents=x, generator=torch.Generator().manual_seed(1)).images[:, 0].numpy()
    # The score is 0 between the modes where 0.1 e^{-(x + 1)^2 / 2V} (x + 1) comes to its mirror
    # image: at x = -ln(9) V / 2, up to its square, V = 0.05.
    saddle = -math.log(9) * 0.05 / 2
    share = (2 + saddle) / 4
    assert np.mean(ends < 0) == pytest.approx(share, abs=5 * math.sqrt(0.25 / 4000))
    # T V = 1e-6 * 0.05: a spread of 2e-4 about either mode, which is not at -1 or 1 exactly.
    for mode in (-1, 1):
        near = ends[np.sign(ends) == mode]
        assert np.abs(near - mode).max() < 0.01
        assert near.std() < 1e-3


# ---- where it starts, and what is refused ---------------------------------------------------


def test_it_starts_uniformly_where_there_are_pixels() -> None:
    sampler = LowTemperatureLangevinSampler()
    noise = Noise(torch.Generator().manual_seed(0))
    x = sampler.first_state((2000, 4), noise, centre=0.5, data_range=(-1.0, 1.0))
    assert -1 <= x.min() < -0.99
    assert 0.99 < x.max() <= 1
    # 8,000 numbers of standard deviation 1 / sqrt(3).
    assert abs(x.mean()) < 5 / math.sqrt(3 * 8000)
    centred = sampler.first_state((2000, 4), noise, centre=0.5)
    assert centred.std() == pytest.approx(0.1, rel=0.05)
    assert centred.mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("sampler", "options"),
    [
        (SGLDSampler, {"decay": 1.5}),
        (SGLDSampler, {"decay": -0.1}),
        (SGLDSampler, {"decay_offset": 0}),
        (SGLDSampler, {"step_size": math.nan}),
        (LowTemperatureLangevinSampler, {"noise": -1}),
        (LowTemperatureLangevinSampler, {"noise": None}),
        (LowTemperatureLangevinSampler, {"clip": 0}),
        (LowTemperatureLangevinSampler, {"clip": math.inf}),
        (LowTemperatureLangevinSampler, {"step_size": 0}),
    ],
)
def test_what_is_out_of_range_is_refused(sampler: type[Any], options: dict[str, Any]) -> None:
    with pytest.raises(HDZooError, match=next(iter(options))):
        sampler(**options)
