"""`EmpiricalScore` against sums over all points at once, in float64."""

import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp, softmax

from hdzoo import EmpiricalScore, HDZooError

COUNT, SHAPE = 40, (1, 2, 3)


def points(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(COUNT, *SHAPE, dtype=dtype, generator=generator)


def noisy(count, sigma):
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(count, *SHAPE, dtype=torch.float64, generator=generator)
    return points()[:count].double() + sigma * noise


def direct(data, x, sigma):
    """Log density, posterior mean and covariance from all differences."""
    data, x = data.double().flatten(1).numpy(), x.double().flatten(1).numpy()
    differences = x[:, None] - data
    exponents = -(differences**2).sum(-1) / (2 * sigma**2)
    weights = softmax(exponents, axis=1)
    mean = weights @ data
    deviations = data - mean[:, None]
    covariance = np.einsum("nk,nkd,nke->nde", weights, deviations, deviations)
    normal = data.shape[1] / 2 * math.log(2 * math.pi * sigma**2) + math.log(len(data))
    return logsumexp(exponents, axis=1) - normal, mean, covariance


@pytest.mark.parametrize("chunk_size", [1, 7, COUNT, 4096])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sigma", [1e-3, 0.05, 0.3, 2.0, 1e3])
def test_chunks_against_all_at_once(chunk_size, dtype, sigma):
    data = points(dtype)
    model = EmpiricalScore.from_points(data, chunk_size=chunk_size)
    x = noisy(10, sigma)
    log_density, mean, covariance = direct(data, x, sigma)
    # The squares expanded around a point of the data are of size 6 + x^2, and a few roundings of
    # them over sigma^2 are in the exponents.
    slack = 4e-16 * (6 + float(x.square().flatten(1).sum(1).max())) / sigma**2 + 1e-13
    np.testing.assert_allclose(model.log_density(x, sigma), log_density, rtol=1e-13, atol=slack)
    np.testing.assert_allclose(model.denoise(x, sigma).flatten(1), mean, rtol=0, atol=slack)
    np.testing.assert_allclose(model.posterior_covariance(x, sigma), covariance, atol=slack)
    score = (torch.from_numpy(mean).view(x.shape) - x) / sigma**2
    torch.testing.assert_close(model.score(x, sigma), score, rtol=1e-12, atol=slack / sigma**2)


@pytest.mark.parametrize("offset", [0.0, 1024.0])
def test_small_noise_picks_the_nearest_point(offset):
    """In float32 a rounding of |x|^2 / sigma^2 is far more than what tells two points apart."""
    # The multiples of 2^-10 are exact in float32 at 1024 too.
    data = (points() * 1024).round() / 1024 + offset
    model, sigma = EmpiricalScore.from_points(data, chunk_size=7), 1e-3
    x = data + (noisy(COUNT, sigma) - points()).float()
    distances = torch.cdist(x.double().flatten(1), data.double().flatten(1))
    assert torch.equal(distances.argmin(1), torch.arange(COUNT))
    assert distances.topk(2, largest=False).values.diff().min() > 10 * sigma
    assert torch.equal(model.denoise(x, sigma), data)
    exact = ((data.double() - x.double()) / sigma**2).float()
    # The average is right to a rounding of the points.
    torch.testing.assert_close(model.score(x, sigma), exact, rtol=1e-6, atol=1e-3)


def test_ties_are_shared():
    model = EmpiricalScore.from_points(np.array([[-1.0], [1.0], [1.0]]), chunk_size=2)
    middle = torch.zeros(1, 1, dtype=torch.float64)
    # Two of the three points are at 1.
    assert model.denoise(middle, 1e-3).item() == pytest.approx(1 / 3, abs=1e-15)
    assert model.posterior_covariance(middle, 1e-3).item() == pytest.approx(8 / 9, abs=1e-15)


def test_far_away_nothing_overflows():
    model = EmpiricalScore.from_points(points(), chunk_size=7)
    x = torch.full((1, *SHAPE), 1e6, dtype=torch.float64)
    corner = points()[points().flatten(1).sum(1).argmax()].double()
    assert torch.equal(model.denoise(x, 1e-3)[0], corner)
    assert torch.isfinite(model.log_density(x, 1e-3)).all()


def test_moments():
    data = points(torch.float64)
    model = EmpiricalScore.from_points(data, chunk_size=7)
    flat = data.flatten(1)
    # A few roundings of sums of 40 numbers.
    torch.testing.assert_close(model.mean, flat.mean(0), rtol=0, atol=1e-15)
    torch.testing.assert_close(model.covariance, flat.T.cov(correction=0), rtol=0, atol=1e-15)


def test_samples_are_the_points_equally_often():
    data, count = points(), 40_000
    samples = EmpiricalScore.from_points(data).sample(count, torch.Generator().manual_seed(0))
    assert samples.dtype == torch.float32
    found, times = samples.unique(dim=0, return_counts=True)
    assert torch.equal(found, data.unique(dim=0))
    # Five standard errors of a proportion of 1 / 40.
    share = 1 / COUNT
    slack = 5 * math.sqrt(share * (1 - share) * count)
    assert (times - count * share).abs().max() < slack


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_points_keep_their_dtype(dtype, tmp_path):
    data = points().to(dtype)
    EmpiricalScore.from_points(data, (0.0, 1.0)).save_pretrained(tmp_path)
    model = EmpiricalScore.from_pretrained(tmp_path)
    assert model.points.dtype == dtype
    assert torch.equal(model.points, data.flatten(1))


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (torch.zeros(3), {}, r"points have the shape \(3,\); it must be \(N, \*sample_shape\)"),
        (torch.zeros(0, 2), {}, r"points have the shape \(0, 2\)"),
        (torch.zeros(3, 2, dtype=torch.uint8), {}, "points have the dtype uint8; allowed are flo"),
        (torch.full((3, 2), math.nan), {}, "points have values that are not finite; leave those"),
        (
            torch.zeros(3, 2),
            {"chunk_size": 0},
            "chunk_size is 0; it must be a whole number from 1",
        ),
    ],
)
def test_errors(data, options, message):
    with pytest.raises(HDZooError, match=message):
        EmpiricalScore.from_points(data, **options)


def test_unknown_dtype():
    with pytest.raises(
        HDZooError, match="points_dtype is 'int8'; allowed are 'float64', 'float32'"
    ):
        EmpiricalScore(points_dtype="int8")
