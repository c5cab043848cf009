"""`LaplaceScore` against the convolution integral and against its formulas in 400 digits."""

import math
from itertools import pairwise

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import quad

from hdzoo import HDZooError, LaplaceScore

SCALE = 0.7


def model():
    return LaplaceScore.from_parameters(0.0, SCALE)


def found(x, sigma):
    """Log density, score, posterior mean and variance at one point."""
    point = torch.tensor([[x]], dtype=torch.float64)
    law = model()
    return [
        method(point, sigma).item()
        for method in (law.log_density, law.score, law.denoise, law.posterior_covariance)
    ]


def exact(x, sigma):
    """The same in 400 digits, with the variance from the derivative of the score."""
    with mpmath.workdps(400):
        x, sigma, scale = mpmath.mpf(x), mpmath.mpf(sigma), mpmath.mpf(SCALE)
        right = mpmath.exp(-x / scale) * mpmath.ncdf(x / sigma - sigma / scale)
        left = mpmath.exp(x / scale) * mpmath.ncdf(-x / sigma - sigma / scale)
        total, difference = right + left, right - left
        log_density = mpmath.log(total / (2 * scale)) + (sigma / scale) ** 2 / 2
        score = -difference / total / scale
        # The derivatives of both normal distribution functions, times their exponentials.
        edge = mpmath.exp(-((x / sigma) ** 2 + (sigma / scale) ** 2) / 2)
        edge = edge / (sigma * mpmath.sqrt(2 * mpmath.pi))
        slope = -total / scale + 2 * edge
        growth = -difference / scale
        curvature = -(slope / total - difference * growth / total**2) / scale
        variance = sigma**2 * (1 + sigma**2 * curvature)
        return [float(v) for v in (log_density, score, x + sigma**2 * score, variance)]


@pytest.mark.parametrize("sigma", [1e-6, 1e-3, 0.01, 0.1, 1.0, 10.0, 1e3])
def test_against_400_digits(sigma):
    for x in (1e-9, 0.01, 0.3, -0.74, 5.0, -100.0, 1e3, 3 * sigma, sigma**2 / SCALE):
        log_density, score, mean, variance = found(x, sigma)
        want = exact(x, sigma)
        # A dozen roundings of 1e-16, and the quadrature's 1e-14. The score is a difference of
        # shares, from logarithms up to log(sigma), over the scale; and the posterior mean one of
        # terms as large as the scale.
        assert log_density == pytest.approx(want[0], rel=2e-15, abs=2e-15)
        assert score == pytest.approx(want[1], rel=1e-14, abs=1e-15 / SCALE)
        assert mean == pytest.approx(want[2], rel=1e-14, abs=1e-14 * SCALE)
        assert variance == pytest.approx(want[3], rel=1e-13)


@pytest.mark.parametrize("sigma", [0.1, 0.7, 3.0])
def test_against_the_convolution_integral(sigma):
    for x in (-4.0, -0.2, 0.0, 1.3):

        def moment(power, x=x):
            def integrand(t):
                noise = stats.norm.pdf(x, t, sigma)
                return t**power * stats.laplace.pdf(t, scale=SCALE) * noise

            ends = sorted({x - 12 * sigma, 0.0, x + 12 * sigma})
            parts = [quad(integrand, a, b, epsabs=0, epsrel=1e-11) for a, b in pairwise(ends)]
            return sum(part[0] for part in parts)

        mass, first, second = (moment(power) for power in range(3))
        mean = first / mass
        want = [math.log(mass), (mean - x) / sigma**2, mean, second / mass - mean**2]
        # quad is asked for 1e-11; over sigma^2 in the score.
        np.testing.assert_allclose(found(x, sigma), want, rtol=1e-8, atol=1e-8)


def test_without_noise():
    law = LaplaceScore.from_parameters([0.5, -1.0], [0.7, 1.5])
    x = torch.tensor([[0.6, -3.0], [-2.0, 0.0]], dtype=torch.float64)
    signs = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    scales = torch.tensor([0.7, 1.5], dtype=torch.float64)
    torch.testing.assert_close(law.score(x, 0.0), -signs / scales)
    want = stats.laplace.logpdf(x.numpy(), [0.5, -1.0], [0.7, 1.5]).sum(1)
    np.testing.assert_allclose(law.log_density(x, 0.0), want, rtol=1e-14)
    torch.testing.assert_close(law.covariance, torch.diag(2 * scales**2))


def test_law_of_samples():
    samples = model().sample(100_000, torch.Generator().manual_seed(0))
    # Kolmogorov and Smirnov: wrong one time in ten thousand.
    assert stats.kstest(samples[:, 0].numpy(), "laplace", (0, SCALE)).pvalue > 1e-4


def test_images():
    law = LaplaceScore.from_parameters(torch.zeros(1, 2, 2), 1.0, data_range=(0.0, 1.0))
    assert law.sample_shape == (1, 2, 2)
    assert law.sample(3).shape == (3, 1, 2, 2)


def test_errors():
    with pytest.raises(HDZooError, match="scale has the value 0; it must be positive"):
        LaplaceScore.from_parameters([0.0, 1.0], [1.0, 0.0])
    with pytest.raises(HDZooError, match="center has 2 values and scale 3; center needs one for"):
        LaplaceScore.from_parameters([0.0, 1.0], [1.0, 1.0, 1.0])
    with pytest.raises(HDZooError, match=r"sample_shape is \(3,\), center has 2 values"):
        LaplaceScore.from_parameters([0.0, 1.0], 1.0, sample_shape=(3,))
