"""Objectives and noise levels against closed forms on Gaussian data."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from hdzoo.errors import HDZooError
from hdzoo.scores.conversions import PREDICTION_TYPES, score_weights
from hdzoo.training.losses import held_out_loss
from hdzoo.training.objectives import (
    SIGMA_DISTRIBUTIONS,
    denoising_score_matching,
    draw_sigmas,
    karras_weight,
    loss_per_dimension,
    song_ermon_weight,
)

# Data N(MEAN, STD^2) in D dimensions; V = STD^2 + sigma^2 is the variance of the noisy samples.
MEAN, STD, D = 1.3, 0.8, 64
LADDER = torch.tensor([5.0, 1.0, 0.2, 0.01])


class GaussianDenoiser(nn.Module):
    """The exact denoiser of N(MEAN, STD^2), a score network of the range [0.01, 10]."""

    prediction_type = "sample"

    def __init__(self):
        super().__init__()
        self.std = nn.Parameter(torch.tensor(STD))
        self.config = type("Config", (dict,), {"__getattr__": dict.__getitem__})(
            sigma_min=0.01, sigma_max=10.0
        )

    def forward(self, sample, timestep, return_dict=True):
        sigma = timestep.view(-1, 1, 1, 1)
        gain = self.std**2 / (self.std**2 + sigma**2)
        return (MEAN + gain * (sample - MEAN),)


def gaussian_batch(sigma, size=20_000):
    generator = torch.Generator().manual_seed(0)
    clean = MEAN + STD * torch.randn(size, D, generator=generator, dtype=torch.float64)
    noise = torch.randn(size, D, generator=generator, dtype=torch.float64)
    return clean, noise


def tolerance(value, samples):
    """Four standard errors: a mean of ``samples`` squares of normals has the relative standard
    error sqrt(2 / samples)."""
    return 4 * value * math.sqrt(2 / samples)


@pytest.mark.parametrize("sigma", [0.1, 0.8, 3.0])
def test_dsm_of_a_linear_score_is_its_closed_form(sigma):
    # With s(x) = -k (x - m), s + z / sigma is normal: variance k^2 STD^2 + (1 / sigma - k sigma)^2.
    for k in (0.0, 0.5, 1 / (STD**2 + sigma**2)):
        loss = mean_loss(sigma, k)
        expected = 0.5 * (k**2 * STD**2 + (1 / sigma - k * sigma) ** 2)
        assert loss == pytest.approx(expected, abs=tolerance(expected, 20_000 * D))


def mean_loss(sigma, k):
    """Of the score -k (x - m), per dimension."""
    clean, noise = gaussian_batch(sigma)
    sigmas = torch.full((len(noise),), sigma, dtype=torch.float64)
    losses = denoising_score_matching(lambda x: -k * (x - MEAN), clean, noise, sigmas)
    return losses.mean().item() / D


def test_dsm_is_least_at_the_exact_score():
    # c / (2 sigma^2) a dimension with c = STD^2 / V; quadratic in k, so symmetric around 1 / V.
    sigma = 0.6
    v = STD**2 + sigma**2
    best, low, high = (sigma**2 * mean_loss(sigma, k) for k in (1 / v, 0.9 / v, 1.1 / v))
    c = STD**2 / v
    assert best == pytest.approx(c / 2, abs=tolerance(c / 2, 20_000 * D))
    # Moving k by 0.1 / V costs sigma^2 V (0.1 / V)^2 / 2. The gradient there has mean 0: it is
    # sigma^2 x (z / sigma - x / V), a product of independent normals, with the deviation sigma STD.
    cost = 0.005 * sigma**2 / v
    slack = 4 * (0.1 / v) * sigma * STD / math.sqrt(20_000 * D)
    assert low - best == pytest.approx(cost, abs=slack)
    assert high - best == pytest.approx(cost, abs=slack)
    assert slack < cost


def test_dsm_is_of_each_sample_and_sums_over_pixels():
    clean, noise = torch.randn(3, 2, 4, 4), torch.ones(3, 2, 4, 4)
    losses = denoising_score_matching(torch.zeros_like, clean, noise, torch.tensor([1.0, 2.0, 4.0]))
    assert losses.tolist() == [16.0, 4.0, 1.0]


def test_song_ermon_weight_is_the_variance():
    assert song_ermon_weight(torch.tensor([0.5, 3.0])).tolist() == [0.25, 9.0]


def test_karras_weight_is_that_of_the_denoiser():
    # Karras et al. weigh |D - x0|^2 so; the error of the score is |D - x0| / sigma^2.
    sigmas = torch.logspace(-2, 1, 7, dtype=torch.float64)
    of_denoiser = (sigmas**2 + STD**2) / (sigmas * STD) ** 2
    weight = karras_weight(sigmas, STD)
    torch.testing.assert_close(weight / (of_denoiser * sigmas**4), torch.ones_like(sigmas))


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("sigma", [0.1, 0.8, 3.0])
def test_loss_per_dimension_of_the_exact_score_is_c(prediction_type, sigma):
    clean, noise = gaussian_batch(sigma)
    noisy = clean + sigma * noise
    score = -(noisy - MEAN) / (STD**2 + sigma**2)
    a, b = score_weights(prediction_type, sigma)
    loss = loss_per_dimension((score - b * noisy) / a, noisy, noise, sigma, prediction_type)
    c = STD**2 / (STD**2 + sigma**2)
    assert loss.shape == (len(noise),)
    assert loss.mean().item() == pytest.approx(c, abs=tolerance(c, noise.numel()))


def test_loss_per_dimension_of_a_score_of_zero_is_one():
    clean, noise = gaussian_batch(0.5)
    noisy = clean + 0.5 * noise
    loss = loss_per_dimension(torch.zeros_like(noisy), noisy, noise, 0.5, "score").mean().item()
    assert loss == pytest.approx(1, abs=tolerance(1, noise.numel()))


def test_held_out_loss_of_the_exact_denoiser_is_its_closed_form():
    generator = torch.Generator().manual_seed(1)
    images = MEAN + STD * torch.randn(2000, 1, 8, 8, generator=generator)
    before = torch.get_rng_state()
    result = held_out_loss(GaussianDenoiser(), images.split(500), seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    assert result["sigmas"] == [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0]
    for sigma, loss in zip(result["sigmas"], result["loss"], strict=True):
        c = STD**2 / (STD**2 + sigma**2)
        # The losses are rounded to six places.
        assert loss == pytest.approx(c, abs=tolerance(c, images.numel()) + 1e-6)
    assert held_out_loss(GaussianDenoiser(), images.split(500), seed=0) == result


@pytest.mark.parametrize("distribution", SIGMA_DISTRIBUTIONS)
def test_drawn_sigmas_stay_in_range_and_follow_the_seed(distribution):
    def draw():
        torch.manual_seed(3)
        return draw_sigmas(distribution, 1000, LADDER, -1.2, 1.2)

    sigmas = draw()
    assert sigmas.shape == (1000,)
    assert sigmas.dtype == LADDER.dtype
    # exp(log(.)) of the ends rounds, by a few units in the last place of a float32.
    assert sigmas.min() >= LADDER[-1] * (1 - 1e-6)
    assert sigmas.max() <= LADDER[0] * (1 + 1e-6)
    assert torch.equal(sigmas, draw())


def test_ladder_draws_each_rung_equally_often():
    torch.manual_seed(0)
    sigmas = draw_sigmas("ladder", 40_000, LADDER, 0, 1)
    counts = [(sigmas == rung).sum().item() for rung in LADDER]
    assert sum(counts) == 40_000
    # Such a test fails once in 10^4 seeds; this seed is fixed.
    assert stats.chisquare(counts).pvalue > 1e-4


def test_log_uniform_is_uniform_in_log_sigma():
    torch.manual_seed(0)
    logs = draw_sigmas("log-uniform", 20_000, LADDER, 0, 1).log().numpy()
    low, high = math.log(0.01), math.log(5)
    assert stats.kstest(logs, stats.uniform(low, high - low).cdf).pvalue > 1e-4


def test_log_normal_is_normal_in_log_sigma_and_clipped():
    torch.manual_seed(0)
    logs = draw_sigmas("log-normal", 20_000, LADDER, -1.2, 1.2).log().numpy()
    low, high = math.log(0.01), math.log(5)
    law = stats.norm(-1.2, 1.2)
    inside = logs[(logs > low + 1e-5) & (logs < high - 1e-5)]
    truncated = stats.truncnorm((low + 1.2) / 1.2, (high + 1.2) / 1.2, -1.2, 1.2)
    assert stats.kstest(inside, truncated.cdf).pvalue > 1e-4
    # What lies beyond an end is put on it: binomial counts, within four standard deviations.
    for count, p in ((logs < low + 1e-5, law.cdf(low)), (logs > high - 1e-5, law.sf(high))):
        assert abs(count.sum() - 20_000 * p) < 4 * np.sqrt(20_000 * p * (1 - p))


def test_unknown_distribution_is_refused():
    with pytest.raises(HDZooError, match=r"'normal'.*ladder, log-uniform, log-normal"):
        draw_sigmas("normal", 2, LADDER, 0, 1)
