"""`GaussianMixtureScore` against convolution integrals and Bayes' rule with matrices."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import quad

from hdzoo import GaussianMixtureScore, HDZooError

WEIGHTS, MEANS, STDS = [0.3, 0.7], [-1.0, 1.5], [0.4, 0.8]


def randn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def spread(count, dimension, rank=None, seed=0):
    """Covariances, positive definite, or of a rank."""
    factors = randn(count, dimension, rank or dimension, seed=seed)
    return factors @ factors.mT / dimension


def bayes(weights, means, covariances, x, sigma):
    """Log density, responsibilities, posterior mean and covariance, by inverting matrices."""
    eye = torch.eye(means.shape[1], dtype=torch.float64)
    joint, inner, matrices = [], [], []
    for weight, mean, covariance in zip(weights, means, covariances, strict=True):
        total = covariance + sigma**2 * eye
        law = torch.distributions.MultivariateNormal(mean, total)
        joint.append(math.log(weight) + law.log_prob(x))
        gain = torch.linalg.solve(total, covariance).mT
        inner.append(mean + (x - mean) @ gain.T)
        matrices.append(covariance - gain @ covariance)
    joint, inner, matrices = torch.stack(joint, 1), torch.stack(inner, 1), torch.stack(matrices)
    shares = joint.softmax(1)
    mean = torch.einsum("nk,nkd->nd", shares, inner)
    second = torch.einsum("nk,nkd,nke->nde", shares, inner, inner)
    within = torch.einsum("nk,kde->nde", shares, matrices)
    return joint.logsumexp(1), shares, mean, within + second - mean[:, :, None] * mean[:, None]


# ---- against quadrature -------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.1, 0.5, 2.0])
def test_line_against_the_convolution_integral(sigma):
    variances = [std**2 for std in STDS]
    model = GaussianMixtureScore.from_components([[m] for m in MEANS], variances, WEIGHTS)

    def prior(t):
        return sum(
            w * stats.norm.pdf(t, m, s) for w, m, s in zip(WEIGHTS, MEANS, STDS, strict=True)
        )

    for x in (-6.0, -1.2, 0.1, 0.9, 4.0):
        # The noise puts all of the integrand within ten standard deviations of x, or of the data.
        ends = max(-10.0, x - 10 * sigma), min(12.0, x + 10 * sigma)

        def moment(power, ends=ends, x=x):
            def integrand(t):
                return t**power * prior(t) * stats.norm.pdf(x, t, sigma)

            return quad(integrand, *ends, epsabs=0, epsrel=1e-11, limit=200)[0]

        mass, first, second = (moment(power) for power in range(3))
        mean = first / mass
        point = torch.tensor([[x]], dtype=torch.float64)
        # quad is asked for 1e-11; the variance is a difference of second moments up to 36.
        assert model.log_density(point, sigma).item() == pytest.approx(math.log(mass), abs=1e-9)
        assert model.denoise(point, sigma).item() == pytest.approx(mean, abs=1e-9)
        assert model.score(point, sigma).item() == pytest.approx((mean - x) / sigma**2, abs=1e-6)
        variance = model.posterior_covariance(point, sigma).item()
        assert variance == pytest.approx(second / mass - mean**2, abs=1e-8)


@pytest.mark.parametrize("sigma", [0.2, 1.0])
def test_plane_against_the_convolution_integral(sigma):
    means, covariances = randn(2, 2), spread(2, 2, seed=1) + 0.1 * torch.eye(2)
    model = GaussianMixtureScore.from_components(means, covariances, WEIGHTS)
    # The trapezoidal rule: the integrand's scale is at least 0.17, 3 spacings, and it is below
    # e^-50 beyond 10.
    line = np.arange(-10, 10, 0.05)
    grid = np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    prior = sum(
        w * stats.multivariate_normal.pdf(grid, m, c)
        for w, m, c in zip(WEIGHTS, means.numpy(), covariances.numpy(), strict=True)
    )
    for x in ([0.0, 0.0], [1.0, -2.0], [-0.7, 1.5]):
        noise = stats.multivariate_normal.pdf(grid, x, sigma**2 * np.eye(2))
        masses = prior * noise * 0.05**2
        mean = masses @ grid / masses.sum()
        covariance = (masses[:, None] * (grid - mean)).T @ (grid - mean) / masses.sum()
        point = torch.tensor([x], dtype=torch.float64)
        found = (
            model.log_density(point, sigma)[0],
            model.denoise(point, sigma)[0],
            model.score(point, sigma)[0],
            model.posterior_covariance(point, sigma)[0],
        )
        exact = (np.log(masses.sum()), mean, (mean - x) / sigma**2, covariance)
        for have, want in zip(found, exact, strict=True):
            # Roundings of the sum over 160,000 terms, over sigma^2 in the score.
            np.testing.assert_allclose(have, want, rtol=1e-10, atol=1e-11)


# ---- against matrices ---------------------------------------------------------------------------


def number(means):
    return 0.3, 0.3 * torch.eye(means.shape[1], dtype=torch.float64).expand(len(means), -1, -1)


def isotropic(means):
    variances = torch.rand(len(means), dtype=torch.float64) + 0.1
    eye = torch.eye(means.shape[1], dtype=torch.float64)
    return variances, variances[:, None, None] * eye


def diagonal(means):
    variances = torch.rand(means.shape, dtype=torch.float64) + 0.1
    return variances, torch.diag_embed(variances)


def full(means):
    covariances = spread(*means.shape, seed=1)
    return covariances, covariances


# As many components as coordinates: only the number of axes tells the kinds apart.
@pytest.mark.parametrize(("count", "dimension"), [(1, 3), (3, 3), (2, 5), (4, 1)])
@pytest.mark.parametrize("kind", [number, isotropic, diagonal, full])
@pytest.mark.parametrize("sigma", [0.05, 1.0, 40.0])
def test_every_kind_of_covariance_against_bayes(count, dimension, kind, sigma):
    torch.manual_seed(0)
    means, weights = randn(count, dimension), torch.rand(count) + 0.2
    given, covariances = kind(means)
    model = GaussianMixtureScore.from_components(means, given, weights)
    x = means[:1] + (0.7 + sigma) * randn(20, dimension, seed=2)
    shares = weights.double() / weights.double().sum()
    log_density, probabilities, mean, covariance = bayes(shares, means, covariances, x, sigma)
    # Conditioning: the covariances' eigenvalues go down to 1e-4, and x up to 100.
    close = {"rtol": 1e-9, "atol": 1e-10}
    torch.testing.assert_close(model.log_density(x, sigma), log_density, **close)
    torch.testing.assert_close(model.component_probabilities(x, sigma), probabilities, **close)
    torch.testing.assert_close(model.denoise(x, sigma), mean, **close)
    torch.testing.assert_close(model.posterior_covariance(x, sigma), covariance, **close)
    torch.testing.assert_close(model.score(x, sigma), (mean - x) / sigma**2, rtol=1e-9, atol=1e-7)
    offsets = means - shares @ means
    total = torch.einsum("k,kde->de", shares, covariances + offsets[:, :, None] * offsets[:, None])
    torch.testing.assert_close(model.mean, shares @ means, **close)
    torch.testing.assert_close(model.covariance, total, **close)


@pytest.mark.parametrize("rank", [1, 3, 6])
@pytest.mark.parametrize("sigma", [0.0, 0.05, 1.0])
def test_low_rank_against_bayes(rank, sigma):
    means, factors, rest = randn(2, 6), randn(2, 6, rank, seed=1), torch.tensor([0.3, 0.02])
    model = GaussianMixtureScore.from_factors(means, factors, rest, WEIGHTS)
    covariances = factors @ factors.mT + rest.double()[:, None, None] * torch.eye(6)
    x = model.sample(20, torch.Generator().manual_seed(2), sigma=sigma)
    log_density, probabilities, mean, covariance = bayes(WEIGHTS, means, covariances, x, sigma)
    close = {"rtol": 1e-10, "atol": 1e-11}
    torch.testing.assert_close(model.log_density(x, sigma), log_density, **close)
    torch.testing.assert_close(model.component_probabilities(x, sigma), probabilities, **close)
    torch.testing.assert_close(model.denoise(x, sigma), mean, **close)
    torch.testing.assert_close(model.posterior_covariance(x, sigma), covariance, **close)
    offsets = means - model.mean
    weights = torch.tensor(WEIGHTS, dtype=torch.float64)
    total = torch.einsum("k,kde->de", weights, covariances + offsets[:, :, None] * offsets[:, None])
    torch.testing.assert_close(model.covariance, total, **close)


def test_many_dimensions():
    """Low rank in 2,000 dimensions, by the matrix inversion and determinant lemmas."""
    dimension, rank, sigma = 2000, 5, 0.1
    means, rest = randn(2, dimension), [0.5, 1e-4]
    factors = randn(2, dimension, rank, seed=1)
    model = GaussianMixtureScore.from_factors(means, factors, rest, WEIGHTS)
    x = means[[0, 1, 1]] + torch.stack([factors[0, :, 0], factors[1, :, 1], factors[0, :, 0]])
    joint, scores = [], []
    for weight, mean, factor, variance in zip(WEIGHTS, means, factors, rest, strict=True):
        noise, offset = variance + sigma**2, x - mean
        small = torch.eye(rank, dtype=torch.float64) + factor.T @ factor / noise
        solved = offset - (torch.linalg.solve(small, factor.T @ offset.T).T @ factor.T) / noise
        scores.append(-solved / noise)
        log_det = torch.logdet(small) + dimension * math.log(noise)
        quadratic = (offset * solved).sum(1) / noise
        normal = log_det + dimension * math.log(2 * math.pi)
        joint.append(math.log(weight) - (quadratic + normal) / 2)
    joint, scores = torch.stack(joint, 1), torch.stack(scores, 1)
    # The densities are e^(-10,000) or less; a rounding of that in the exponents.
    torch.testing.assert_close(model.log_density(x, sigma), joint.logsumexp(1), rtol=1e-10, atol=0)
    score = torch.einsum("nk,nkd->nd", joint.softmax(1), scores)
    torch.testing.assert_close(model.score(x, sigma), score, rtol=1e-8, atol=1e-8)
    assert model.sample(3, sigma=sigma).shape == (3, dimension)


def test_responsibilities_far_out():
    model = GaussianMixtureScore.from_components([[-1.0], [1.0]], 0.0, WEIGHTS)
    x = torch.tensor([[-1e6], [-1.0], [1.0], [1e6]], dtype=torch.float64)
    probabilities = model.component_probabilities(x, 1e-3)
    assert probabilities.tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]
    # Half-way the prior decides.
    half = model.component_probabilities(torch.zeros(1, 1), 1e-3)
    torch.testing.assert_close(half, torch.tensor([WEIGHTS]))


def test_weights_of_samples():
    """Each mode gets its weight, and within it the samples have its law."""
    means = torch.tensor([[-20.0, 0.0], [20.0, 0.0]], dtype=torch.float64)
    covariances = spread(2, 2)
    model = GaussianMixtureScore.from_components(means, covariances, WEIGHTS)
    samples = model.sample(100_000, torch.Generator().manual_seed(0))
    right = samples[:, 0] > 0
    # Five standard errors of a proportion.
    assert abs(right.double().mean() - 0.7) < 5 * math.sqrt(0.3 * 0.7 / 100_000)
    for mine, mean, covariance in zip((~right, right), means, covariances, strict=True):
        whitened = torch.linalg.solve_triangular(
            torch.linalg.cholesky(covariance), (samples[mine] - mean).T, upper=False
        )
        # Kolmogorov and Smirnov: each of the four is wrong one time in ten thousand.
        assert all(stats.kstest(row, "norm").pvalue > 1e-4 for row in whitened.numpy())


def test_one_gaussian_without_its_axis():
    """Means (d,) and covariances (), (d,) and (d, d) are those of one component."""
    mean = torch.tensor([1.0, -1.0], dtype=torch.float64)
    for given, covariance in (
        (0.5, 0.5 * torch.eye(2)),
        ([0.5, 2.0], torch.diag(torch.tensor([0.5, 2.0]))),
        ([[1.0, 0.5], [0.5, 1.0]], torch.tensor([[1.0, 0.5], [0.5, 1.0]])),
    ):
        model = GaussianMixtureScore.from_components(mean, given)
        torch.testing.assert_close(model.covariance, covariance.double(), rtol=0, atol=1e-15)
        assert torch.equal(model.mean, mean)
    line = GaussianMixtureScore.from_components(1.3, 0.64)
    assert (line.sample_shape, line.mean.item(), line.covariance.item()) == ((1,), 1.3, 0.64)


def test_singular_covariance_stays_singular():
    direction = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    model = GaussianMixtureScore.from_components(torch.zeros(3), direction.outer(direction))
    # The other two are 0 and not a rounding: there is no density.
    variances = model.basis_variances[0].tolist()
    assert variances[:2] == [0, 0]
    assert variances[2] == pytest.approx(14)
    with pytest.raises(HDZooError, match="the data have no density without noise"):
        model.log_density(torch.zeros(1, 3), 0.0)
    # From a point off the line the score points at the line: the pull is the distance over
    # sigma^2, to a rounding of it.
    across = torch.tensor([[2.0, -1.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(model.score(across, 1e-3), -across * 1e6, rtol=1e-9, atol=1e-6)


def test_images():
    shape = (3, 2, 2)
    model = GaussianMixtureScore.from_components(
        torch.zeros(12), 1.0, sample_shape=shape, data_range=(0.0, 1.0)
    )
    assert model.sample(2).shape == (2, *shape)
    assert (model.config.data_range, model.sample_shape) == ((0.0, 1.0), shape)
    x = torch.ones(2, *shape)
    # N(0, 1 + 2^2)
    torch.testing.assert_close(model.score(x, 2.0), -x / 5)


def test_as_it_is_a_standard_normal():
    for rank in (None, 1, 3):
        model = GaussianMixtureScore((3,), num_components=2, rank=rank)
        x = randn(5, 3)
        torch.testing.assert_close(model.score(x, 1.0), -x / 2)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda f: f.from_components(torch.zeros(2, 2, 2), 1.0), r"means have the shape \(2, 2, 2"),
        (
            lambda f: f.from_components(torch.zeros(2, 3), torch.ones(3)),
            r"covariances have the shape \(3,\) for 2 components of dimension 3; allowed are a num",
        ),
        (lambda f: f.from_components([0.0], -1.0), "covariances have the value -1; a variance mu"),
        (
            lambda f: f.from_components([0.0], math.nan),
            "covariances has 1 of 1 values that are not finite",
        ),
        (
            lambda f: f.from_components([0.0, 0.0], [[1.0, 0.5], [0.2, 1.0]]),
            r"covariance 0 is not symmetric: it differs from its transpose by 0\.3",
        ),
        (
            lambda f: f.from_components([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]]),
            "covariance 0 has the eigenvalue -1; it must be positive semidefinite",
        ),
        (
            lambda f: f.from_components([[0.0], [1.0]], 1.0, [1.0, 0.0]),
            r"weights have the shape \(2,\) and the smallest is 0; there must be 2",
        ),
        (
            lambda f: f.from_components([[0.0], [1.0]], 1.0, [1.0]),
            r"weights have the shape \(1,\) and the smallest is 1; there must be 2",
        ),
        (
            lambda f: f.from_components([0.0, 0.0], 1.0, sample_shape=(3, 1)),
            r"sample_shape is \(3, 1\), which has 3 coordinates, and means have 2",
        ),
        (
            lambda f: f.from_factors(torch.zeros(2, 3), torch.zeros(2, 3, 4)),
            r"factors have the shape \(2, 3, 4\).*it must be \(2, 3, r\), r at most 3",
        ),
        (
            lambda f: f.from_factors(torch.zeros(2, 3), torch.zeros(2, 3, 1), torch.ones(3)),
            r"rest_variances have the shape \(3,\); give a number or 2 of them",
        ),
        (
            lambda f: f.from_factors(torch.zeros(1, 3), torch.zeros(1, 3, 1), -0.5),
            "rest_variances have the value -0.5; a variance must be at least 0",
        ),
    ],
)
def test_errors(build, message):
    with pytest.raises(HDZooError, match=message):
        build(GaussianMixtureScore)
