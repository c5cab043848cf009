"""Bit-flip noise, the denoiser, the two scores and the jumps, against sums over all points."""

import math

import pytest
import torch
from hdzoo_binary import exact
from hdzoo_binary.signs import (
    draw_signs,
    flip_probability,
    jump,
    log_odds_of_noise,
    posterior_mean,
    signs_score,
)
from hdzoo_binary.targets import SignsMixtureScore, independent_signs, ising, signs_mixture

from hdzoo.samplers.noise import Noise

TARGETS = [independent_signs, signs_mixture, ising]
SIGMAS = [0.7, 1.0, 2.5]


def data_law(model: SignsMixtureScore) -> torch.Tensor:
    """The law of the data by its definition, sum_k w_k prod_i (1 + x_i m_ki) / 2."""
    points = exact.states(model.dimension)
    each = (1 + points[:, None] * model.means) / 2
    return (model.weights * each.prod(2)).sum(1)


def same(found: torch.Tensor, expected: torch.Tensor) -> None:
    # Sums over up to 512 points of numbers of order 1, in float64.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def noise(seed: int = 0) -> Noise:
    return Noise(torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("sigma", SIGMAS)
def test_noisy_law_is_that_of_bit_flips(target, sigma: float) -> None:
    """The density with normal noise, on signs, is the law of signs turned over."""
    model = target()
    points, turned = exact.states(model.dimension), 1 / (1 + math.exp(2 / sigma**2))
    apart = (points[:, None] != points).sum(2)
    apart = apart.double()
    matrix = turned**apart * (1 - turned) ** (model.dimension - apart)
    same(exact.flips(model.dimension, sigma), matrix)
    same(exact.noisy_law(model, sigma), data_law(model) @ matrix)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("sigma", SIGMAS)
def test_denoiser_and_scores(target, sigma: float) -> None:
    model = target()
    points, law = exact.states(model.dimension), data_law(model)
    # By Bayes' rule, with the likelihood exp(x0 . y / sigma^2).
    joint = law * (points @ points.T / sigma**2).exp()
    mean = (joint @ points) / joint.sum(1, keepdim=True)
    same(posterior_mean(points, model.score(points, sigma), sigma), mean)
    same(signs_score(points, mean, sigma, "gradient"), mean / sigma**2)
    # The difference, from the law itself.
    log_q, index = joint.sum(1).log(), torch.arange(len(points))
    for i in range(model.dimension):
        bit = 2 ** (model.dimension - 1 - i)
        half = (log_q[index | bit] - log_q[index & ~bit]) / 2
        same(signs_score(points, mean, sigma, "difference")[:, i], half)


def test_gradient_is_that_of_the_extended_law() -> None:
    model, sigma = signs_mixture(), 1.3
    points = exact.states(8)
    y = points.clone().requires_grad_()
    extended = (data_law(model) * (y @ points.T / sigma**2).exp()).sum(1).log()
    (gradient,) = torch.autograd.grad(extended.sum(), y)
    same(exact.scores(model, sigma, "gradient"), gradient)


def test_scores_agree_as_noise_grows() -> None:
    """The next term of the expansion is of order 1 / sigma^4."""
    gaps = []
    for sigma in (4.0, 8.0):
        one, other = (
            exact.scores(signs_mixture(), sigma, kind) for kind in ("gradient", "difference")
        )
        gaps.append((one - other).abs().max())
    assert gaps[0] / gaps[1] == pytest.approx(16, rel=0.1)


def test_product_prior_in_closed_form() -> None:
    """E[x | y] = tanh(b + a y) and E[y] = tanh b tanh a, with a = 1 / sigma^2."""
    b, sigma = torch.tensor([0.3, -1.2], dtype=torch.float64), 0.9
    model = SignsMixtureScore.from_components(b.tanh()[None])
    points = exact.states(2)
    same(model.denoise(points, sigma), (b + points / sigma**2).tanh())
    mean = exact.noisy_law(model, sigma) @ points
    same(mean, b.tanh() * math.tanh(1 / sigma**2))


# ---- draws and jumps -----------------------------------------------------------------------------


def test_rounding_has_the_law_of_independent_data_and_sign_has_not() -> None:
    model, sigma = independent_signs(), 1.2
    mean = model.denoise(exact.states(6), sigma)
    noisy = exact.noisy_law(model, sigma)
    rounded = noisy @ exact.independent(2 * mean.atanh())
    assert exact.total_variation(rounded, data_law(model)) < 1e-12
    # One measurement with |b| < 1 / sigma^2: the sign is the noisy one, and nothing is denoised.
    weak = model.means[0].atanh().abs() < 1 / sigma**2
    assert weak.tolist() == [False, True, True, True, True, False]
    signs = jump(mean, "sign", noise())
    assert torch.equal(signs[:, weak], exact.states(6)[:, weak])


def test_jumps_and_draws() -> None:
    count = 200_000
    mean = torch.tensor([-1.0, -0.5, 0.0, 0.7, 1.0], dtype=torch.float64).expand(count, 5)
    rounded = jump(mean, "rounding", noise())
    assert set(rounded.unique().tolist()) == {-1.0, 1.0}
    # Five standard errors of a mean of signs.
    slack = 5 * ((1 - mean[0] ** 2) / count).sqrt() + 1e-12
    assert ((rounded.mean(0) - mean[0]).abs() <= slack).all()
    assert jump(mean[:1], "sign", noise()).tolist() == [[-1.0, -1.0, 1.0, 1.0, 1.0]]
    kept = draw_signs(log_odds_of_noise(torch.ones(count, 1).double(), 1.5), noise()) > 0
    turned = flip_probability(1.5)
    assert turned == pytest.approx(1 / (1 + math.exp(2 / 2.25)), rel=1e-12)
    assert abs(1 - kept.double().mean() - turned) < 5 * (turned * (1 - turned) / count) ** 0.5


def test_posterior_mean_of_a_network_that_leaves_the_interval() -> None:
    x = torch.tensor([1.0, -1.0])
    assert posterior_mean(x, torch.tensor([0.5, -3.0]), 1.0).tolist() == [1.0, -1.0]
    score = signs_score(x, torch.tensor([1.0, 1.0]), 0.2, "difference")
    # A clean sign that is certain: half the difference is 1 / sigma^2.
    assert score.tolist() == pytest.approx([25.0, 25.0], rel=1e-5)
