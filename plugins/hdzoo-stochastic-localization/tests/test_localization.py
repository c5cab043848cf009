"""Stochastic localization: what it is the same as, and numbers worked out apart from the code."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hdzoo_stochastic_localization.euler import StochasticLocalizationSampler
from hdzoo_stochastic_localization.second_order import (
    StochasticLocalization2Sampler,
    root_weights,
)

from hdzoo import HDZooError, get_sampler
from hdzoo.plugins import provider
from hdzoo.samplers.base import Move
from hdzoo.targets import GaussianMixtureScore
from hdzoo.verification import Gaussian, exact_law
from hdzoo.verification.checks import CheckFailed
from hdzoo.verification.closed_form import check_exact_law
from hdzoo.verification.draws import Draws
from hdzoo.verification.laws import run_chain
from hdzoo.verification.limit import check_limit

# Data N(1.3, 0.8^2), and L steps of time delta.
MEAN, STD, STEPS, DELTA = 1.3, 0.8, 50, 0.4
DATA = Gaussian.of(MEAN, STD**2)
UNIFORM = {
    "spacing": "uniform",
    "sigma_max": DELTA**-0.5,
    "sigma_min": (STEPS * DELTA) ** -0.5,
}
# Three directions, one of them without width, turned.
TURNED = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
WIDE = Gaussian(np.array([1.0, -0.5, 0.3]), TURNED * np.array([1.0, 0.3, 0.0]) @ TURNED.T)


def at(sampler, steps: int):
    sampler.set_timesteps(steps)
    return sampler


def given(noises: torch.Tensor) -> Draws:
    """Whatever is drawn is these, in turn."""
    return Draws(lambda number, shape: noises[number])


def same_laws(one: Gaussian, other: Gaussian) -> None:
    # Some 50 steps of a few roundings of 1e-16 of numbers of order 1.
    np.testing.assert_allclose(one.mean, other.mean, rtol=0, atol=1e-12)
    np.testing.assert_allclose(one.covariance, other.covariance, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["stochastic-localization", "stochastic-localization-2"])
def test_registered(name: str) -> None:
    assert get_sampler(name).__module__.startswith("hdzoo_stochastic_localization.")
    assert provider("samplers", name).distribution == "hdzoo-stochastic-localization"


# ---- what Euler's scheme is ----------------------------------------------------------------------


def test_uniform_time() -> None:
    sampler = at(StochasticLocalizationSampler(**UNIFORM), STEPS)
    expected = 1 / np.sqrt(DELTA * np.arange(1, STEPS + 1))
    np.testing.assert_allclose(sampler.sigmas[:-1].numpy(), expected, rtol=1e-13)


@pytest.mark.parametrize("spacing", ["uniform", "log"])
@pytest.mark.parametrize("data", [DATA, WIDE], ids=["line", "singular"])
def test_it_is_consistent_annealed_sampling(spacing: str, data: Gaussian) -> None:
    """On the levels 1 / sqrt(k delta), with a full read-out: move by move, and so in law."""
    sampler = at(StochasticLocalizationSampler(**UNIFORM | {"spacing": spacing}), STEPS)
    levels = sampler.sigmas[:-1].tolist()
    consistent = get_sampler("consistent-annealed-sampling")(sigmas=levels, readout="full")
    consistent.set_timesteps(STEPS)
    for one, other in zip(sampler.moves, consistent.moves, strict=True):
        assert one == pytest.approx(other, rel=1e-12, abs=1e-12)
    start = data.noisy(DELTA**-0.5)
    same_laws(exact_law(sampler, data, start), exact_law(consistent, data, start))


def sequential_measurements(first: torch.Tensor, noises: torch.Tensor) -> torch.Tensor:
    """Saremi, Park and Bach's chain, its inner chain replaced by "denoise, renoise".

    The first measurement is given. Every other is the mean of the data given those before it, with
    the noise of a measurement; what is returned is the mean given all of them.
    """
    sigma, score, mean = DELTA**-0.5, WIDE.score(), first
    for t, z in enumerate(noises, 2):
        level = sigma / math.sqrt(t - 1)
        y = mean + level**2 * score(mean, level) + sigma * z
        mean = mean + (y - mean) / t
    level = sigma / math.sqrt(len(noises) + 1)
    return mean + level**2 * score(mean, level)


def test_it_is_sequential_measurements_denoised_and_renoised() -> None:
    """From the same noises the same samples, so the same law."""
    rng = torch.Generator().manual_seed(0)
    first, *noises = torch.randn(STEPS, 20, 3, generator=rng, dtype=torch.float64)
    first = torch.from_numpy(WIDE.mean) + DELTA**-0.5 * first
    sampler = at(StochasticLocalizationSampler(**UNIFORM), STEPS)
    found = run_chain(sampler, WIDE.score(), first, given(torch.stack(noises)))
    expected = sequential_measurements(first, torch.stack(noises))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_montanaris_variance() -> None:
    """Of the posterior mean after K steps: delta sum_k (s^2 / (1 + s^2 (k + 1) delta))^2."""
    start = Gaussian.of(MEAN, 1 / DELTA)
    law = exact_law(at(StochasticLocalizationSampler(**UNIFORM), STEPS), DATA, start)
    gains = STD**2 / (1 + STD**2 * DELTA * np.arange(1, STEPS + 1))
    assert law.mean.item() == pytest.approx(MEAN, abs=1e-12)
    assert law.covariance.item() == pytest.approx(DELTA * (gains**2).sum(), abs=1e-12)
    # Worked out apart from this code, to six digits.
    assert law.covariance.item() == pytest.approx(0.519034, abs=5e-7)


# ---- second order --------------------------------------------------------------------------------


def test_exact_variance_of_second_order() -> None:
    """With enough products that of the posterior mean, s^2 - s^2 / (1 + s^2 K delta)."""
    exact = STD**2 - STD**2 / (1 + STD**2 * STEPS * DELTA)
    assert exact == pytest.approx(0.593623, abs=5e-7)
    errors = []
    for products in (0, 1, 2, 4):
        sampler = StochasticLocalization2Sampler(products=products, **UNIFORM)
        sampler.set_timesteps(1 + (1 + products) * (STEPS - 1))
        law = exact_law(sampler, DATA, DATA.noisy(DELTA**-0.5))
        errors.append(abs(law.covariance.item() - exact))
    # Chebyshev's error on the root, whose branch point is at -1 / u <= -1, falls by 3 + sqrt(8) for
    # each product; the variance is a sum of such errors.
    assert all(after < before / 4 for before, after in pairwise(errors))
    assert errors[-1] < 5e-6


def test_without_products_it_is_eulers_scheme() -> None:
    second = at(StochasticLocalization2Sampler(products=0, **UNIFORM), STEPS)
    euler = at(StochasticLocalizationSampler(**UNIFORM), STEPS)
    same_laws(exact_law(second, WIDE), exact_law(euler, WIDE))


def test_exact_where_data_are_points_or_wide() -> None:
    """One product is exact at R = 0 and at R = 1: there the end has the law of the denoised data.

    From the noisy data at 5 down to 0.1, in directions without width and of width 1e4, where R is 1
    to within 2.5e-7 of it.
    """
    data = Gaussian.of([0.5, 0.0], [0.0, 1e8])
    sampler = at(StochasticLocalization2Sampler(sigma_max=5.0, sigma_min=0.1), 21)
    law = exact_law(sampler, data, data.noisy(5.0))
    exact = np.diag([0.0, 1e16 / (1e8 + 0.01)])
    np.testing.assert_allclose(law.mean, data.mean, rtol=0, atol=1e-9)
    np.testing.assert_allclose(law.covariance, exact, rtol=1e-6, atol=1e-20)


def test_products_are_of_the_posterior_covariance() -> None:
    """One step on a mixture, whose posterior covariance is known."""
    model = GaussianMixtureScore.from_components(
        [[-1.0, 0.5], [1.0, -0.5]], [[[0.3, 0.1], [0.1, 0.2]], [[0.1, 0.0], [0.0, 0.4]]], [0.4, 0.6]
    )
    rng = torch.Generator().manual_seed(0)
    x, z = torch.randn(2, 8, 2, generator=rng, dtype=torch.float64)
    sampler = StochasticLocalization2Sampler(products=2, probe=1e-5)
    sampler.set_timesteps(sigmas=[0.8, 0.8, 0.8, 0.5])
    state = x
    with given(z[None]):
        for t in sampler.timesteps[:3]:
            state = sampler.step(model.score(state, float(t)), t, state).prev_sample
    covariance = model.posterior_covariance(x, 0.8) / 0.8**2
    once = (covariance @ z[..., None])[..., 0]
    twice = (covariance @ once[..., None])[..., 0]
    c0, c1, c2 = root_weights(0.8**2 / 0.5**2 - 1, 2)
    difference = 0.8**2 - 0.5**2
    expected = x + difference * model.score(x, 0.8)
    expected += 0.5 / 0.8 * math.sqrt(difference) * (c0 * z + c1 * once + c2 * twice)
    # The quotient's error is of the order of the probe.
    torch.testing.assert_close(state, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("degree", [0, 1, 2, 5])
def test_root(degree: int) -> None:
    weights = root_weights(3.0, degree)
    nodes = np.array([0.0]) if degree == 0 else np.array([0.0, 1.0])
    np.testing.assert_allclose(
        np.polynomial.polynomial.polyval(nodes, weights), np.sqrt(1 + 3 * nodes), rtol=1e-12
    )


@pytest.mark.parametrize(
    ("evaluations", "products", "counts"),
    [
        (1, 1, [1]),
        (2, 1, [1, 1]),
        (3, 1, [2, 1]),
        (6, 1, [1, 2, 2, 1]),
        (7, 2, [3, 3, 1]),
        (9, 2, [2, 3, 3, 1]),
        (4, 0, [1, 1, 1, 1]),
    ],
)
def test_evaluations_are_counted(evaluations: int, products: int, counts: list[int]) -> None:
    """A step of m products takes m + 1 evaluations; where there are fewer, the larger levels lack
    them."""
    sampler = at(StochasticLocalization2Sampler(products=products), evaluations)
    _, found = np.unique(-sampler.sigmas[:-1].numpy(), return_counts=True)
    assert found.tolist() == counts


def test_options_are_refused() -> None:
    for option, value in (("products", -1), ("probe", 0.0), ("probe", 2.0), ("spacing", "even")):
        with pytest.raises(HDZooError, match=option):
            StochasticLocalization2Sampler(**{option: value})
    with pytest.raises(HDZooError, match="repeated"):
        StochasticLocalizationSampler().set_timesteps(sigmas=[1.0, 1.0, 0.5])
    with pytest.raises(HDZooError, match="the last noise level is repeated"):
        StochasticLocalization2Sampler().set_timesteps(sigmas=[1.0, 0.5, 0.5])


# ---- planted faults ------------------------------------------------------------------------------


class NoiseOfTheFirstLevel(StochasticLocalizationSampler):
    """Euler's scheme of the reverse process, whose noise is larger."""

    def plan(self, sigmas, counts):
        return [
            move if move.noise == 0 else move._replace(noise=move.alpha**0.5)
            for move in super().plan(sigmas, counts)
        ]


class TimeFromTheEnd(StochasticLocalizationSampler):
    """The step of time that comes after."""

    def plan(self, sigmas, counts):
        moves = super().plan(sigmas, counts)
        alphas = [*(move.alpha for move in moves[1:]), moves[-1].alpha]
        return [move._replace(alpha=alpha) for move, alpha in zip(moves, alphas, strict=True)]


class ProductsOfTheWrongState(StochasticLocalization2Sampler):
    """The score where the network was asked before, in place of that at the state."""

    def update(self, k, x, score, noise):
        moved = super().update(k, x, score, noise)
        if self.memory:
            self.memory["score"] = score
        return moved


@pytest.mark.parametrize(
    "fault",
    [NoiseOfTheFirstLevel, TimeFromTheEnd, ProductsOfTheWrongState],
    ids=lambda c: c.__name__,
)
def test_faults_are_found(fault) -> None:
    with pytest.raises(CheckFailed, match="not that of the declared closed form"):
        check_exact_law(fault)


class NoiseLeftOut(StochasticLocalizationSampler):
    """No noise, and a closed form that says so."""

    def plan(self, sigmas, counts):
        return [Move(move.sigma, move.alpha) for move in super().plan(sigmas, counts)]

    def closed_form(self, start):
        law = start
        for move in self.moves:
            law = law.gradient(move.alpha, move.sigma)
        return law


def test_a_fault_that_chain_and_closed_form_share_is_found() -> None:
    with pytest.raises(CheckFailed, match="does not converge to the data"):
        check_limit(NoiseLeftOut)
