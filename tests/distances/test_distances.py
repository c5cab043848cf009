"""Distances against closed forms, brute force and the definitions."""

import itertools
import subprocess
import sys
from typing import Any

import numpy as np
import ot
import pytest
import torch
from scipy import stats
from scipy.linalg import sqrtm
from scipy.special import logsumexp

from hdzoo import HDZooError
from hdzoo.distances import divergences
from hdzoo.distances.divergences import kl_divergence, median_bandwidth, mmd
from hdzoo.distances.moments import mode_weights, moments
from hdzoo.distances.wasserstein import (
    gaussian_wasserstein2,
    sliced_wasserstein2,
    wasserstein2,
    wasserstein2_1d,
)

SAMPLE_DISTANCES = [wasserstein2, sliced_wasserstein2, mmd]


def random_covariance(rng: np.random.Generator, dimension: int, rank: int | None = None) -> Any:
    factor = rng.normal(size=(dimension, rank or dimension))
    return factor @ factor.T


# ---- between Gaussians --------------------------------------------------------------------------


@pytest.mark.parametrize("dimension", [1, 2, 5, 20])
def test_gaussians_by_matrix_roots(dimension: int) -> None:
    rng = np.random.default_rng(dimension)
    a, b = random_covariance(rng, dimension), random_covariance(rng, dimension)
    shift = rng.normal(size=dimension)
    root = np.real(sqrtm(a))
    trace = np.trace(a + b - 2 * np.real(sqrtm(root @ b @ root)))
    # sqrtm errs by 1e-15 of the condition number, here up to 1e4.
    expected = np.sqrt(shift @ shift + trace)
    assert gaussian_wasserstein2(shift, a, 0 * shift, b) == pytest.approx(expected, rel=1e-10)
    assert gaussian_wasserstein2(0 * shift, b, shift, a) == pytest.approx(expected, rel=1e-10)


def test_gaussians_on_the_line() -> None:
    """There it is the hypotenuse of the differences of means and of standard deviations."""
    # Three roundings of 1e-16.
    assert gaussian_wasserstein2(1.0, 4.0, -2.0, 36.0) == pytest.approx(5.0, rel=1e-15)
    assert gaussian_wasserstein2(torch.ones(1), torch.tensor([[4.0]]), -2, 36) == 5.0


def test_equal_gaussians_are_at_no_distance() -> None:
    rng = np.random.default_rng(0)
    for dimension, rank in [(3, 3), (10, 10), (10, 2), (40, 39)]:
        a = random_covariance(rng, dimension, rank)
        mean = rng.normal(size=dimension)
        # A norm of d^2 roundings of 1e-16 times the root of the trace, below 100, times the root of
        # the condition number, which for square random factors is of order d.
        assert gaussian_wasserstein2(mean, a, mean, a) < 1e-11
        # N(0, 4 A) is N(0, A) at twice the scale.
        assert gaussian_wasserstein2(mean, a, mean, 4 * a) == pytest.approx(
            np.trace(a) ** 0.5, rel=1e-12
        )


@pytest.mark.parametrize(
    ("a", "b", "tolerance"),
    [
        ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0 + 1e-9], 1e-5),
        ([1e8, 1e-8, 0.0], [1e8, 1.001e-8, 0.0], 1e-11),
        ([1.0, 1e-20], [1.0, 4e-20], 2e-15),
        ([0.0, 0.0], [0.0, 9.0], 2e-15),
        ([0.0, 5.0], [5.0, 0.0], 2e-15),
    ],
)
def test_diagonal_covariances_keep_their_digits(
    a: list[float], b: list[float], tolerance: float
) -> None:
    """Where the trace formula gives 1e-8 of rounding, or 0."""
    expected = np.linalg.norm(np.sqrt(a) - np.sqrt(b))
    found = gaussian_wasserstein2(np.zeros(len(a)), np.diag(a), np.zeros(len(b)), np.diag(b))
    # Each standard deviation to some 1e-15, over the relative difference of the two that differ:
    # 2e-10, 5e-4, and order 1.
    assert found == pytest.approx(expected, rel=tolerance)


def test_commuting_covariances() -> None:
    """With common eigenvectors the distance is that of the roots of the eigenvalues."""
    rng = np.random.default_rng(1)
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    a = np.geomspace(1, 1e-4, 6)
    for b in (a * (1 + 1e-6), a[::-1], np.append(a[:3], np.zeros(3))):
        found = gaussian_wasserstein2(
            np.zeros(6), (rotation * a) @ rotation.T, np.zeros(6), (rotation * b) @ rotation.T
        )
        # 1e-15 times the root of the condition number, 100, of numbers of size 1.
        assert found == pytest.approx(np.linalg.norm(np.sqrt(a) - np.sqrt(b)), abs=1e-13)


def test_singular_covariances() -> None:
    rng = np.random.default_rng(2)
    embedding = np.linalg.qr(rng.normal(size=(9, 3)))[0]
    a, b = random_covariance(rng, 3), random_covariance(rng, 3)
    inside = gaussian_wasserstein2(np.zeros(3), a, np.zeros(3), b)
    embedded = gaussian_wasserstein2(
        np.zeros(9), embedding @ a @ embedding.T, np.zeros(9), embedding @ b @ embedding.T
    )
    # Null directions are dropped, so what is left errs like covariances of full rank.
    assert embedded == pytest.approx(inside, rel=1e-11)
    # On orthogonal subspaces, every coupling is as good: the traces add up.
    x, y = np.diag([1.0, 2.0, 0.0, 0.0]), np.diag([0.0, 0.0, 3.0, 4.0])
    assert gaussian_wasserstein2(np.zeros(4), x, np.zeros(4), y) == pytest.approx(
        10**0.5, rel=1e-14
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(2), np.eye(2), np.zeros(3), np.eye(3)), "dimension 2 and 3"),
        ((np.zeros(2), np.ones(2), np.zeros(2), np.eye(2)), r"covariance_a has shape \(2,\)"),
        (
            (np.zeros(2), np.eye(2), np.zeros(2), np.diag([1.0, -1.0])),
            "covariance_b .* variance -1",
        ),
        ((np.zeros(2), [[1.0, 0.5], [0.1, 1.0]], np.zeros(2), np.eye(2)), "not symmetric"),
        ((np.zeros(2), [[1.0, 2.0], [2.0, 1.0]], np.zeros(2), np.eye(2)), "eigenvalue -1"),
        ((np.zeros(2), [[1.0, 0.5], [0.5, 0.0]], np.zeros(2), np.eye(2)), "eigenvalue -0"),
        ((np.full(2, np.nan), np.eye(2), np.zeros(2), np.eye(2)), "mean_a has 2 of 2 values"),
        ((np.zeros(1), np.inf, np.zeros(1), 1.0), "covariance_a has 1 of 1 values"),
    ],
)
def test_bad_gaussians(arguments: Any, message: str) -> None:
    with pytest.raises(HDZooError, match=message):
        gaussian_wasserstein2(*arguments)


# ---- between samples ----------------------------------------------------------------------------


def test_equal_sizes_on_the_line_are_sorted() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=501), rng.standard_cauchy(size=501)
    expected = np.mean((np.sort(x) - np.sort(y)) ** 2) ** 0.5
    # A sum of 501 terms; and the slivers of 1e-16 of mass that rounded weights misplace.
    assert wasserstein2_1d(x, y) == pytest.approx(expected, rel=1e-12)
    assert wasserstein2_1d(x, x[::-1].copy()) == 0


def test_unequal_sizes_on_the_line() -> None:
    # Quantiles 0, 1, 2 on thirds and 0, 3 on halves differ by 0, 1, 2, 1 on 1/3, 1/6, 1/6, 1/3.
    expected = (1 / 6 + 4 / 6 + 1 / 3) ** 0.5
    assert wasserstein2_1d([2, 0, 1], [3, 0]) == pytest.approx(expected, rel=1e-14)
    assert wasserstein2_1d([3, 0], [2, 0, 1]) == pytest.approx(expected, rel=1e-14)
    x = np.random.default_rng(0).normal(size=1000)
    # The documented 1e-8 of the range, which is below 10.
    assert wasserstein2_1d(x, np.repeat(x, 3)) < 1e-7


def test_weights_on_the_line_are_repetitions() -> None:
    rng = np.random.default_rng(0)
    x, y, counts = rng.normal(size=30), rng.normal(size=40), rng.integers(0, 5, size=30)
    expected = wasserstein2_1d(np.repeat(x, counts), y)
    assert wasserstein2_1d(x, y, x_weights=counts) == pytest.approx(expected, rel=1e-12)
    assert wasserstein2_1d(y, x, y_weights=counts / 7) == pytest.approx(expected, rel=1e-12)


def test_quantile_grids_of_gaussians() -> None:
    n = 4000
    z = stats.norm.ppf((np.arange(n) + 0.5) / n)
    found = wasserstein2_1d(z, 1 + 2 * z)
    # The quantiles differ by 1 + z, of mean square 1 + mean z^2 on the grid and 2 in the limit.
    assert found == pytest.approx((1 + np.mean(z**2)) ** 0.5, rel=1e-13)
    # The grid lacks a variance of order 1/n, most of it in the tails; a quarter of it is the error.
    assert found == pytest.approx(gaussian_wasserstein2(0, 1, 1, 4), rel=1 / n)


@pytest.mark.parametrize("size", [1, 2, 5, 7])
def test_exact_distance_is_the_best_permutation(size: int) -> None:
    rng = np.random.default_rng(size)
    x, y = rng.normal(size=(size, 3)), rng.normal(size=(size, 3))
    costs = ((x[:, None] - y) ** 2).sum(-1)
    rows = np.arange(size)
    best = min(costs[rows, list(order)].mean() for order in itertools.permutations(rows))
    assert wasserstein2(x, y) == pytest.approx(best**0.5, rel=1e-12)
    assert wasserstein2(y, x) == pytest.approx(best**0.5, rel=1e-12)


def test_exact_distance_with_weights() -> None:
    rng = np.random.default_rng(0)
    x, y, counts = rng.normal(size=(4, 2)), rng.normal(size=(6, 2)), np.array([1, 2, 0, 3])
    expected = wasserstein2(np.repeat(x, counts, axis=0), y)
    assert wasserstein2(x, y, x_weights=counts) == pytest.approx(expected, rel=1e-12)
    assert wasserstein2(y, x, y_weights=counts) == pytest.approx(expected, rel=1e-12)


def test_exact_distance_of_a_shift_and_on_the_line() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 4))
    # For a shift the identity is optimal. Near points keep their digits.
    for shift in (3.0, 1e-9):
        # x + shift rounds by 1e-16 of x.
        assert wasserstein2(x, x + shift) == pytest.approx(2 * shift, rel=1e-15 / shift + 1e-12)
    assert wasserstein2(x[:, 0], x[:50, 1]) == wasserstein2_1d(x[:, 0], x[:50, 1])
    # A line in the plane is a line.
    flat = np.stack([x[:, 0], 0 * x[:, 0]], 1), np.stack([x[:50, 1], 0 * x[:50, 1]], 1)
    assert wasserstein2(*flat) == pytest.approx(wasserstein2_1d(x[:, 0], x[:50, 1]), rel=1e-7)


@pytest.mark.parametrize("scale", [1e-150, 1e-9, 1e-6, 1e9, 1e150])
@pytest.mark.parametrize("distance", [wasserstein2, wasserstein2_1d, sliced_wasserstein2])
def test_units_do_not_matter(distance: Any, scale: float) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), rng.normal(size=(40, 3))
    if distance is wasserstein2_1d:
        x, y = x[:, 0], y[:, 0]
    # The points round by 1e-16; the best plan is no worse than one that is best to that.
    assert distance(scale * x, scale * y) / scale == pytest.approx(distance(x, y), rel=1e-12)


@pytest.mark.parametrize("far", [1e3, 1e6, 1e9, 1e12])
def test_a_far_point_of_both_samples_stays_where_it_is(far: float) -> None:
    """It moves nowhere, so that it only dilutes what the others cost."""
    rng = np.random.default_rng(0)
    x, y, point = rng.normal(size=(40, 3)), rng.normal(size=(40, 3)), np.full((1, 3), far)
    both = np.vstack([x, point]), np.vstack([y, point])
    expected = wasserstein2(x, y) * (40 / 41) ** 0.5
    assert wasserstein2(*both) == pytest.approx(expected, rel=1e-9)
    line = wasserstein2_1d(both[0][:, 0], both[1][:, 0])
    expected = wasserstein2_1d(x[:, 0], y[:, 0]) * (40 / 41) ** 0.5
    # Sums of the squares of the points, not of their differences, would lose 1e24 of them.
    assert line == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("size", [1e-320, 1e-200, 1e200, 1e308])
@pytest.mark.parametrize("distance", [wasserstein2, wasserstein2_1d])
def test_weights_of_any_size_are_shares(distance: Any, size: float) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), rng.normal(size=(40, 3))
    if distance is wasserstein2_1d:
        x, y = x[:, 0], y[:, 0]
    weights = np.full(40, size)
    expected = pytest.approx(distance(x, y), rel=1e-12)
    assert distance(x, y, weights) == expected
    assert distance(x, y, None, weights) == expected


def test_exact_distance_has_a_limit() -> None:
    with pytest.raises(HDZooError, match=r"5001 and y 5000 points, 2.5e\+07 pairs.*sliced"):
        wasserstein2(np.zeros((5001, 2)), np.zeros((5000, 2)))


def test_solver_that_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    emd2 = ot.emd2
    monkeypatch.setattr(ot, "emd2", lambda *a, **k: emd2(*a, **{**k, "numItermax": 1}))
    rng = np.random.default_rng(0)
    with (
        pytest.raises(HDZooError, match=r"gave up .*sliced"),
        pytest.warns(UserWarning, match="numItermax"),
    ):
        wasserstein2(rng.normal(size=(50, 2)), rng.normal(size=(50, 2)))


def test_sliced_distance_is_the_mean_of_projections() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(100, 3)), 2 + rng.normal(size=(100, 3))
    directions = ot.sliced.get_random_projections(3, 20, 5)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=0), 1, rtol=1e-15)
    gaps = np.sort(x @ directions, 0) - np.sort(y @ directions, 0)
    expected = np.mean(gaps**2) ** 0.5
    found = sliced_wasserstein2(x, y, num_projections=20, seed=5)
    assert found == pytest.approx(expected, rel=1e-13)
    assert sliced_wasserstein2(x, y, num_projections=20, seed=6) != found
    # The library's own, all directions at once.
    whole = ot.sliced_wasserstein_distance(x, y[:70], n_projections=20, seed=5)
    # Each sliver of 1e-16 of mass misplaced by up to the range squared, over the distance squared.
    assert sliced_wasserstein2(x, y[:70], 20, 5) == pytest.approx(whole, rel=1e-11)


def test_sliced_distance_of_a_shift_and_on_the_line() -> None:
    rng = np.random.default_rng(0)
    x, shift = rng.normal(size=(20, 3)), np.array([1.0, -2.0, 2.0])
    # A squared coordinate on the sphere has mean 1/3 and variance 4/45, so that the mean of 4000
    # directions errs by 1.4 %, and its root by half of that; 4 standard errors.
    assert sliced_wasserstein2(x, x + shift, 4000) == pytest.approx(3 / 3**0.5, rel=0.028)
    a, b = x[:, 0], x[:11, 1]
    assert sliced_wasserstein2(a, b, 3) == pytest.approx(wasserstein2_1d(a, b), rel=1e-7)


def kernel_means(x: Any, y: Any, bandwidth: float) -> tuple[float, float, float]:
    """Double loops over the definition, without a point's product with itself."""

    def k(a: Any, b: Any) -> float:
        return float(np.exp(-((a - b) ** 2).sum() / (2 * bandwidth**2)))

    within_x = np.mean([k(a, b) for a, b in itertools.permutations(x, 2)])
    within_y = np.mean([k(a, b) for a, b in itertools.permutations(y, 2)])
    return float(within_x), float(within_y), np.mean([k(a, b) for a in x for b in y]).item()


def test_mmd_is_its_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    n, m = 13, 9
    x, y = rng.normal(size=(n, 2)), 0.5 + rng.normal(size=(m, 2))
    within_x, within_y, across = kernel_means(x, y, 0.7)
    unbiased = within_x + within_y - 2 * across
    # The diagonals, each 1, come in with the shares 1/n and 1/m.
    with_x, with_y = within_x + (1 - within_x) / n, within_y + (1 - within_y) / m
    biased = with_x + with_y - 2 * across
    for entries in (2**22, 1, 20):
        monkeypatch.setattr(divergences, "CHUNK_ENTRIES", entries)
        # Sums of 100 numbers up to 1.
        assert mmd(x, y, bandwidth=0.7) == pytest.approx(unbiased, abs=1e-14)
        assert mmd(x, y, bandwidth=0.7, unbiased=False) == pytest.approx(biased, abs=1e-14)
    assert mmd(x, x, bandwidth=0.7, unbiased=False) == pytest.approx(0, abs=1e-15)


def test_mmd_is_unbiased() -> None:
    """Its mean over samples is the closed form for Gaussians."""
    rng = np.random.default_rng(0)
    h, mean = 1.3, np.array([0.6, 0.0])
    a, b = np.diag([1.0, 2.0]), np.array([[1.5, 0.5], [0.5, 0.8]])

    def mean_kernel(shift: Any, covariance: Any) -> float:
        """``E exp(-|z|^2 / (2 h^2))`` for ``z ~ N(shift, covariance)``, a Gaussian integral."""
        total = np.eye(2) + covariance / h**2
        exponent = shift @ np.linalg.solve(total, shift) / (2 * h**2)
        return float(np.exp(-exponent) / np.linalg.det(total) ** 0.5)

    zero = np.zeros(2)
    expected = mean_kernel(zero, 2 * a) + mean_kernel(zero, 2 * b) - 2 * mean_kernel(mean, a + b)
    draws, biased = [], []
    for _ in range(400):
        x = rng.multivariate_normal(zero, a, size=40)
        y = rng.multivariate_normal(mean, b, size=30)
        draws.append(mmd(x, y, bandwidth=h))
        biased.append(mmd(x, y, bandwidth=h, unbiased=False))
    error = np.std(draws, ddof=1) / len(draws) ** 0.5
    assert error < 0.1 * expected
    assert abs(np.mean(draws) - expected) < 4 * error
    # The bias is what the diagonals add, (1 - E k) / n each.
    bias = (1 - mean_kernel(zero, 2 * a)) / 40 + (1 - mean_kernel(zero, 2 * b)) / 30
    assert abs(np.mean(biased) - expected - bias) < 4 * error


def test_mmd_at_extreme_bandwidths() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), rng.normal(size=(40, 3)) + 1
    # Wide: the kernel is 1 - |x - y|^2 / (2 b^2), and of the squares only twice that of the means'
    # difference is left, with the unbiased means' own variance taken off.
    shift = x.mean(0) - y.mean(0)
    spread = (x.var(0, ddof=1).sum() + y.var(0, ddof=1).sum()) / 40
    for bandwidth in (1e6, 1e9, 1e100):
        expected = (shift @ shift - spread) / bandwidth**2
        assert mmd(x, y, bandwidth) == pytest.approx(expected, rel=1e-9)
    # Narrow: no two points are near one another.
    for bandwidth in (1e-300, 1e-9):
        assert mmd(x, y, bandwidth) == 0
    for wrong in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(HDZooError, match=f"bandwidth is {wrong}; it must be a finite"):
            mmd(x, y, wrong)


def test_median_bandwidth() -> None:
    assert median_bandwidth(np.array([0.0, 1.0]), np.array([10.0])) == 9.0  # of 1, 9, 10
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3000, 2)), rng.normal(size=(3000, 2))
    # |x - x'|^2 / 2 is chi squared with 2 degrees: median 2 ln 2. The share of the distances below
    # it, a U-statistic of 1000 points, has a variance of at most 2 / 1000 / 4 (Hoeffding), and they
    # have the density 0.42 there; 4 standard errors.
    median = (4 * np.log(2)) ** 0.5
    assert median_bandwidth(x, y) == pytest.approx(median, abs=4 * (2 / 4000) ** 0.5 / 0.42)
    assert mmd(x[:50], y[:50]) == mmd(x[:50], y[:50], bandwidth=median_bandwidth(x[:50], y[:50]))


@pytest.mark.parametrize("distance", SAMPLE_DISTANCES)
def test_any_array(distance: Any) -> None:
    """Tensors of any precision, arrays, images: the numbers are what counts."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(12, 2, 3, generator=generator).bfloat16()
    y = torch.randn(10, 2, 3, generator=generator).bfloat16()
    flat_x, flat_y = x.double().flatten(1), y.double().flatten(1)
    expected = distance(flat_x.numpy(), flat_y.numpy())
    assert isinstance(expected, float)
    assert distance(x, y) == expected
    assert distance(x.float().requires_grad_(), y.half()) == expected
    assert distance(flat_x.float().numpy(), flat_y) == expected


@pytest.mark.parametrize("distance", SAMPLE_DISTANCES)
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((5, 2)), np.zeros((5, 3)), "dimension 2 and y of 3"),
        (np.zeros((0, 2)), np.zeros((5, 2)), r"x has shape \(0, 2\)"),
        (np.zeros((5, 2)), np.float64(3.0), r"y has shape \(\)"),
        (np.array([[0.0, np.nan], [1.0, np.inf]]), np.zeros((5, 2)), "x has 2 of 4 values.*finite"),
    ],
)
def test_bad_samples(distance: Any, x: Any, y: Any, message: str) -> None:
    with pytest.raises(HDZooError, match=message):
        distance(x, y)


def test_bad_arguments() -> None:
    x, y = np.arange(6.0).reshape(3, 2), np.ones((4, 2))
    for weights in (np.ones(2), np.array([1.0, -1.0, 1.0]), np.zeros(3)):
        with pytest.raises(HDZooError, match=r"x_weights has shape.* must have shape \(3,\)"):
            wasserstein2(x, y, x_weights=weights)
        with pytest.raises(HDZooError, match="y_weights has shape"):
            wasserstein2_1d(y[:, 0], x[:, 0], y_weights=weights)
    with pytest.raises(HDZooError, match=r"dimension 2 and 2.*for the line"):
        wasserstein2_1d(x, y)
    with pytest.raises(HDZooError, match="num_projections is 0"):
        sliced_wasserstein2(x, y, num_projections=0)
    for bandwidth in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(HDZooError, match="bandwidth is"):
            mmd(x, y, bandwidth=bandwidth)
    with pytest.raises(HDZooError, match="coincide"):
        mmd(y, y)
    with pytest.raises(HDZooError, match="n at least 2"):
        mmd(x[:1], y, bandwidth=1.0)
    assert mmd(x[:1], x[:1], bandwidth=1.0, unbiased=False) == 0


# ---- between densities --------------------------------------------------------------------------


def normal_log_density(mean: Any, covariance: Any) -> Any:
    law = stats.multivariate_normal(mean, covariance)
    return lambda x: law.logpdf(x.numpy())


def gaussian_kl(mean_p: Any, p: Any, mean_q: Any, q: Any) -> float:
    shift, ratio = mean_q - mean_p, np.linalg.solve(q, p)
    mahalanobis = shift @ np.linalg.solve(q, shift)
    return float((np.trace(ratio) - len(p) + mahalanobis - np.log(np.linalg.det(ratio))) / 2)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.5, 0.7), (-3.0, 5.0), (1e-6, 1.0)])
def test_divergence_on_the_line(mean: float, std: float) -> None:
    expected = np.log(std) + (1 + mean**2) / (2 * std**2) - 0.5
    found = kl_divergence(
        lambda x: stats.norm.logpdf(x[:, 0]),
        lambda x: stats.norm.logpdf(x[:, 0], mean, std),
        (-9, 9),
    )
    # Sums of 10001 terms of both signs, 1e-15 in all, and 1e-18 of mass outside.
    assert found == pytest.approx(expected, rel=1e-13, abs=2e-15)
    # Half a standard deviation of spacing is already enough.
    p = torch.distributions.Normal(torch.tensor(0.0).double(), 1.0)
    q = torch.distributions.Normal(torch.tensor(mean).double(), std)
    coarse = kl_divergence(
        lambda x: p.log_prob(x)[:, 0], lambda x: q.log_prob(x)[:, 0], [[-9, 9]], num_points=37
    )
    assert coarse == pytest.approx(expected, rel=1e-13, abs=2e-15)


def test_divergence_in_the_plane() -> None:
    p, q = np.array([[1.0, 0.6], [0.6, 0.5]]), np.array([[2.0, -0.3], [-0.3, 0.4]])
    mean = np.array([0.3, -0.2])
    log_p, log_q = normal_log_density(np.zeros(2), p), normal_log_density(mean, q)
    expected = gaussian_kl(np.zeros(2), p, mean, q)
    # 9 standard deviations each way; as above.
    found = kl_divergence(log_p, log_q, [(-9, 9), (-6.5, 6.5)])
    assert found == pytest.approx(expected, rel=1e-13)
    assert kl_divergence(log_p, log_p, [(-9, 9), (-6.5, 6.5)], num_points=201) == 0


def test_divergence_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    log_p, log_q = normal_log_density(np.zeros(2), np.eye(2)), normal_log_density([1, 0], np.eye(2))
    monkeypatch.setattr(divergences, "CHUNK_ENTRIES", 16 * 101 * 7)
    found = kl_divergence(log_p, log_q, [(-9, 9), (-9, 9)], num_points=101)
    assert found == pytest.approx(0.5, rel=1e-13)


def test_divergence_where_a_density_vanishes() -> None:
    uniform = {k: stats.uniform(0, k).logpdf for k in (1, 2)}
    # A constant is integrated exactly: log 2.
    found = kl_divergence(lambda x: uniform[1](x[:, 0]), lambda x: uniform[2](x[:, 0]), (0, 1))
    assert found == pytest.approx(np.log(2), rel=1e-13)
    assert kl_divergence(lambda x: uniform[2](x[:, 0]), lambda x: uniform[1](x[:, 0]), (0, 2)) == (
        np.inf
    )
    # Both vanish on half of the bounds; the jump costs half a cell, so the tolerance is wider.
    both = kl_divergence(
        lambda x: uniform[1](x[:, 0]), lambda x: uniform[1](x[:, 0]), (0, 2), tolerance=1e-3
    )
    assert both == 0


def test_bad_densities() -> None:
    def normal(x: torch.Tensor) -> Any:
        return stats.norm.logpdf(x[:, 0])

    with pytest.raises(HDZooError, match=r"p integrates to 0\.6826.*widen the bounds"):
        kl_divergence(normal, normal, (-1, 1))
    with pytest.raises(HDZooError, match=r"with 5 points along each axis.*raise num_points"):
        kl_divergence(normal, normal, (-9, 9), num_points=5)
    with pytest.raises(HDZooError, match=r"integrates to 2.*normalise log_p"):
        kl_divergence(lambda x: normal(x) + np.log(2), normal, (-9, 9))
    with pytest.raises(HDZooError, match="integrates to inf"):
        kl_divergence(lambda x: normal(x) + 1000, normal, (-9, 9))
    with pytest.raises(HDZooError, match=r"-0\.693147, below 0; normalise log_q"):
        kl_divergence(normal, lambda x: normal(x) + np.log(2), (-9, 9))
    with pytest.raises(HDZooError, match=r"log_q is nan at \[-9\.0\]"):
        kl_divergence(normal, lambda x: normal(x) * np.nan, (-9, 9))
    with pytest.raises(HDZooError, match=r"log_p gives shape \(\)"):
        kl_divergence(lambda x: np.float64(0), normal, (-9, 9))
    for bounds in ((1, -1), (0, 0), (0, 1, 2), [(0, 1)] * 3, [(0, 1), (1, 1)]):
        with pytest.raises(HDZooError, match="bounds are"):
            kl_divergence(normal, normal, bounds)
    with pytest.raises(HDZooError, match="num_points is 2"):
        kl_divergence(normal, normal, (-9, 9), num_points=2)


# ---- shares and moments -------------------------------------------------------------------------


class OverlappingMixture:
    """Two Gaussians on the line, one standard deviation from the other."""

    weights = np.array([0.3, 0.7])
    means = np.array([0.0, 1.5])

    def component_probabilities(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        std = (1 + sigma**2) ** 0.5
        logs = np.log(self.weights) + stats.norm.logpdf(x.double().numpy(), self.means, std)
        return torch.from_numpy(np.exp(logs - logsumexp(logs, axis=1, keepdims=True))).to(x.dtype)

    def sample(self, rng: np.random.Generator, size: int) -> Any:
        component = rng.choice(2, p=self.weights, size=size)
        return rng.normal(self.means[component])[:, None]


def test_mode_weights_of_exact_samples() -> None:
    target, rng = OverlappingMixture(), np.random.default_rng(0)
    scores = []
    for _ in range(400):
        found = mode_weights(target.sample(rng, 200), target)
        assert found.shares.sum() == pytest.approx(1, rel=1e-14)
        scores.append((found.shares - target.weights)[0] / found.standard_errors[0])
    # Normal up to order 200^(-1/2): mean 0 and variance 1, known to 1/20 and sqrt(2)/20; 4 of them.
    assert abs(np.mean(scores)) < 4 / 20
    assert abs(np.var(scores) - 1) < 4 * 2**0.5 / 20
    # Counting the more probable component would be off by 0.05 or more, hundreds of these errors.
    large = target.sample(rng, 200_000)
    found = mode_weights(large, target)
    assert (np.abs(found.shares - target.weights) < 4 * found.standard_errors).all()
    assert found.standard_errors.max() < 1e-3
    with torch.no_grad():
        counted = target.component_probabilities(torch.from_numpy(large), 0.0).argmax(1) == 0
    assert abs(counted.double().mean() - 0.3) > 0.05


def test_mode_weights_of_noisy_samples_and_of_tensors() -> None:
    target, rng = OverlappingMixture(), np.random.default_rng(1)
    clean = target.sample(rng, 100_000)
    noisy = torch.from_numpy(clean + 2 * rng.normal(size=clean.shape)).float()
    found = mode_weights(noisy, target, sigma=2.0)
    assert (np.abs(found.shares - target.weights) < 4 * found.standard_errors).all()
    # Without the noise level the components are too narrow, and the shares wrong.
    wrong = mode_weights(noisy, target)
    assert (np.abs(wrong.shares - target.weights) > 10 * wrong.standard_errors).all()


def test_bad_mode_weights() -> None:
    class Stub:
        def __init__(self, answer: Any) -> None:
            self.answer = answer

        def component_probabilities(self, x: torch.Tensor, sigma: float) -> Any:
            return self.answer

    x = torch.zeros(3, 2)
    for answer in (torch.ones(3), torch.ones(2, 1)):
        with pytest.raises(HDZooError, match=r"must give \(3, K\)"):
            mode_weights(x, Stub(answer))
    for answer in (
        torch.ones(3, 2),
        torch.full((3, 1), torch.nan),
        torch.tensor([[2.0, -1.0]] * 3),
    ):
        with pytest.raises(HDZooError, match="not probabilities"):
            mode_weights(x, Stub(answer))
    with pytest.raises(HDZooError, match="n at least 2"):
        mode_weights(x[:1], Stub(torch.ones(1, 1)))
    with pytest.raises(HDZooError, match="not finite"):
        mode_weights(x * torch.nan, Stub(torch.ones(3, 1)))


def test_moments() -> None:
    rng = np.random.default_rng(0)
    covariance = np.array([[2.0, 0.8], [0.8, 1.0]])
    x = rng.multivariate_normal([1.0, -3.0], covariance, size=100_000)
    found = moments(torch.from_numpy(x))
    np.testing.assert_allclose(found.mean, x.mean(0), rtol=1e-13)
    np.testing.assert_allclose(found.covariance, np.cov(x.T), rtol=1e-11)
    np.testing.assert_allclose(found.mean_error, stats.sem(x), rtol=1e-11)
    # Isserlis: Var[x_i x_j] = C_ii C_jj + C_ij^2. Its estimate, a mean of fourth powers, errs by
    # sqrt(E x^8 - (E x^4)^2) / (2 sqrt n) = 9.8 / 2 / 316, and the root half of that; 4 of them.
    variances = np.outer(np.diag(covariance), np.diag(covariance)) + covariance**2
    np.testing.assert_allclose(found.covariance_error, np.sqrt(variances / len(x)), rtol=0.031)
    assert (np.abs(found.mean - [1.0, -3.0]) < 4 * found.mean_error).all()
    assert (np.abs(found.covariance - covariance) < 4 * found.covariance_error).all()


def test_moments_of_a_line_and_of_constants() -> None:
    found = moments(np.array([1.0, 3.0]))
    assert (found.mean, found.covariance, found.mean_error) == ([2.0], [[2.0]], [1.0])
    assert moments(np.ones((5, 2))).covariance_error.max() == 0
    with pytest.raises(HDZooError, match="n at least 2"):
        moments(np.ones((1, 2)))


def test_heavy_packages_wait() -> None:
    """The extra is asked for by the functions that need it, not by the import."""
    code = (
        "import sys, hdzoo.distances.wasserstein, hdzoo.distances.chains; "
        "sys.exit(bool({'ot', 'arviz_stats', 'sklearn'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
