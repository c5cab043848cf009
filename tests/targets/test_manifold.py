"""`SegmentScore` and `SphereScore` against closed forms in many digits and latent integrals."""

import math

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats

from hdzoo import HDZooError, SegmentScore, SphereScore
from hdzoo.targets.quadrature import truncated_normal

LENGTH, RADIUS = 1.5, 1.3
CENTER = [0.3, -0.2, 0.5, 0.0, 1.0]


def point(*coordinates):
    return torch.tensor([coordinates], dtype=torch.float64)


def frame(size):
    """Directions in R^5 that are orthonormal and no axes."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(5, size, dtype=torch.float64, generator=generator)
    return torch.linalg.qr(vectors)[0]


# ---- closed forms in many digits ----------------------------------------------------------------


def cut_normal(lower, upper):
    """Mass, mean and variance of N(0, 1) cut to an interval, by its distribution function."""
    if lower < 0 and upper < 0:
        # The complement has all digits on the other side only.
        mass, mean, variance = cut_normal(-upper, -lower)
        return mass, -mean, variance
    tails = [mpmath.erfc(z / mpmath.sqrt(2)) / 2 for z in (lower, upper)]
    density = [mpmath.npdf(z) for z in (lower, upper)]
    mass, mean = tails[0] - tails[1], (density[0] - density[1]) / (tails[0] - tails[1])
    # z * density(z) is 0 at infinity.
    edges = lower * density[0], 0 if mpmath.isinf(upper) else upper * density[1]
    return mass, mean, 1 + (edges[0] - edges[1]) / mass - mean**2


@pytest.mark.parametrize("length", [1e-6, 0.01, 1.0, 30.0, 1e4, math.inf])
def test_truncated_normal_against_400_digits(length):
    for tilt in (-1e4, -30.0, -3.0, -1e-3, 0.0, 1e-3, 1.0, 10.0, 1e3, 1e6):
        if tilt < -length:
            continue
        law = truncated_normal(*torch.tensor([tilt, length], dtype=torch.float64))
        with mpmath.workdps(400):
            lower = mpmath.mpf(tilt)
            mass, mean, variance = cut_normal(lower, lower + mpmath.mpf(length))
            mass = mass / mpmath.npdf(max(lower, 0))
            want = [float(v) for v in (mpmath.log(mass), mean - lower, variance)]
        # The smallest of the nodes' weights are right to 4e-13, and sums to 1e-14 or so.
        np.testing.assert_allclose(law.log_mass, want[0], rtol=3e-14, atol=3e-14)
        np.testing.assert_allclose(law.mean, want[1], rtol=1e-13)
        np.testing.assert_allclose(law.variance, want[2], rtol=1e-13)


@pytest.mark.parametrize("sigma", [1e-3, 0.01, 0.1, 1.0, 10.0, 1e3, 1e5])
def test_segment_against_400_digits(sigma):
    model = SegmentScore((1,), length=LENGTH)
    for y in (0.01, -0.3, 0.74, 0.75, -0.76, 1.0, 5.0, -1e3, 1e5, 3 * sigma):
        with mpmath.workdps(400):
            x, s = mpmath.mpf(y), mpmath.mpf(sigma)
            ends = [(sign * mpmath.mpf(LENGTH) / 2 - x) / s for sign in (-1, 1)]
            mass, mean, variance = cut_normal(*ends)
            want = mpmath.log(mass / LENGTH), mean / s, x + s * mean, s**2 * variance
            log_density, score, denoised, spread = [float(v) for v in want]
        found = point(y)
        np.testing.assert_allclose(model.log_density(found, sigma), log_density, rtol=2e-14)
        # Relative, however small: deep inside, a score is exp(-y^2 / 2 sigma^2) / sigma. float64
        # ends at 1e-308.
        np.testing.assert_allclose(model.score(found, sigma).item(), score, rtol=1e-12, atol=1e-300)
        # Beside the length of the segment.
        np.testing.assert_allclose(model.denoise(found, sigma).item(), denoised, atol=1e-15)
        covariance = model.posterior_covariance(found, sigma).item()
        np.testing.assert_allclose(covariance, spread, rtol=1e-13)


@pytest.mark.parametrize("sphere_dimension", [1, 2])
@pytest.mark.parametrize("sigma", [1e-4, 1e-3, 0.1, 1.0, 1e3])
def test_sphere_against_60_digits(sphere_dimension, sigma):
    model = SphereScore((sphere_dimension + 1,), sphere_dimension, RADIUS)
    for r in (1e-9, 0.01, 1.29, RADIUS, 1.31, 5.0, 1e3):
        with mpmath.workdps(60):
            x, s, radius = mpmath.mpf(r), mpmath.mpf(sigma), mpmath.mpf(RADIUS)
            kappa = x * radius / s**2
            if sphere_dimension == 1:
                log_mass = mpmath.log(mpmath.besseli(0, kappa))
                cosine = mpmath.besseli(1, kappa) / mpmath.besseli(0, kappa)
            else:
                log_mass = mpmath.log(mpmath.sinh(kappa) / kappa)
                cosine = mpmath.coth(kappa) - 1 / kappa
            across = cosine / kappa
            along = 1 - sphere_dimension * across - cosine**2
            normal = mpmath.log(2 * mpmath.pi * s**2) * (sphere_dimension + 1) / 2
            log_density = float(log_mass - (x**2 + radius**2) / (2 * s**2) - normal)
            score = float((radius * cosine - x) / s**2)
            mean, along, across = float(radius * cosine), float(along), float(across)
        found = point(r, *[0.0] * sphere_dimension)
        np.testing.assert_allclose(
            model.log_density(found, sigma), log_density, rtol=2e-14, atol=1e-13
        )
        # The difference of two radii: a rounding of them over sigma^2.
        slack = 3e-16 * (RADIUS + r * 1e-3) / sigma**2
        np.testing.assert_allclose(model.score(found, sigma)[0, 0], score, rtol=1e-13, atol=slack)
        np.testing.assert_allclose(model.denoise(found, sigma)[0, 0], mean, rtol=1e-14)
        covariance = model.posterior_covariance(found, sigma)[0] / RADIUS**2
        want = np.diag([along, *[across] * sphere_dimension])
        np.testing.assert_allclose(covariance, want, rtol=1e-13, atol=0)


# ---- latent integrals ---------------------------------------------------------------------------


def segment_points():
    nodes, weights = np.polynomial.legendre.leggauss(400)
    return LENGTH / 2 * nodes[:, None], weights / 2


def circle_points():
    angles = np.arange(400) * (2 * np.pi / 400)
    return RADIUS * np.stack([np.cos(angles), np.sin(angles)], 1), np.full(400, 1 / 400)


def sphere_points():
    """Gauss-Legendre in the height, in which a sphere is uniform, and the trapezoidal rule."""
    heights, weights = np.polynomial.legendre.leggauss(100)
    angles = np.arange(200) * (2 * np.pi / 200)
    height, angle = (a.ravel() for a in np.meshgrid(heights, angles, indexing="ij"))
    across = np.sqrt(1 - height**2)
    points = RADIUS * np.stack([across * np.cos(angle), across * np.sin(angle), height], 1)
    return points, np.repeat(weights / 2, 200) / 200


@pytest.mark.parametrize("thickness", [0.0, 0.3])
@pytest.mark.parametrize("sigma", [0.2, 1.0])
@pytest.mark.parametrize("kind", ["segment", "circle", "sphere"])
def test_against_the_integral_over_the_manifold(kind, thickness, sigma):
    size, latent = {
        "segment": (1, segment_points),
        "circle": (2, circle_points),
        "sphere": (3, sphere_points),
    }[kind]
    basis = frame(size)
    if kind == "segment":
        model = SegmentScore.from_frame(CENTER, basis[:, 0], length=LENGTH, thickness=thickness)
    else:
        model = SphereScore.from_frame(
            CENTER, basis, sphere_dimension=size - 1, radius=RADIUS, thickness=thickness
        )
    inside, weights = latent()
    manifold = np.array(CENTER) + inside @ basis.numpy().T
    total = sigma**2 + thickness**2
    points = model.sample(4, torch.Generator().manual_seed(1), sigma=sigma)
    points = torch.cat([points, torch.stack([model.center, model.center + 2 * basis.sum(1)])])
    for x in points:
        exponents = -((x.numpy() - manifold) ** 2).sum(1) / (2 * total)
        masses = weights * np.exp(exponents)
        density = masses.sum() / (2 * math.pi * total) ** 2.5
        masses = masses / masses.sum()
        mean = masses @ manifold
        deviations = manifold - mean
        spread = (masses[:, None] * deviations).T @ deviations
        # Given m and x, x_0 is normal: the product of N(m, thickness^2) and N(x, sigma^2).
        share = sigma**2 / total
        kept = thickness**2 * share * np.eye(5) + share**2 * spread
        denoised = share * mean + (1 - share) * x.numpy()
        x = x[None]
        # The rules are right to a rounding at these scales; over sigma^2 = 0.04 in the score.
        close = {"rtol": 1e-12, "atol": 1e-13}
        np.testing.assert_allclose(model.log_density(x, sigma), np.log(density), **close)
        np.testing.assert_allclose(model.denoise(x, sigma)[0], denoised, **close)
        np.testing.assert_allclose(model.posterior_covariance(x, sigma)[0], kept, **close)
        score = (mean - x[0].numpy()) / total
        np.testing.assert_allclose(model.score(x, sigma)[0], score, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sigma", [0.1, 0.8])
def test_density_around_a_sphere_integrates_to_one(sigma):
    model = SphereScore((3,), 2, RADIUS)
    nodes, weights = np.polynomial.legendre.leggauss(200)
    reach = RADIUS + 10 * sigma
    radii = reach * (1 + nodes) / 2
    points = torch.from_numpy(radii[:, None] * np.array([0.6, 0.0, -0.8]))
    shells = 4 * np.pi * radii**2 * model.log_density(points, sigma).exp().numpy()
    assert shells @ (reach / 2 * weights) == pytest.approx(1, abs=1e-12)


# ---- special places -----------------------------------------------------------------------------


def test_interval_without_noise():
    model = SegmentScore.from_frame([1.0], [1.0], length=LENGTH)
    inside, outside = point(0.26, 1.0, 1.74).T, point(0.24, 1.76).T
    want = torch.full((3,), -math.log(LENGTH), dtype=torch.float64)
    torch.testing.assert_close(model.log_density(inside, 0.0), want)
    assert torch.equal(model.score(inside, 0.0), torch.zeros(3, 1))
    assert torch.equal(model.log_density(outside, 0.0), torch.full((2,), -math.inf))
    assert model.score(outside, 0.0).isnan().all()


@pytest.mark.parametrize("sphere_dimension", [1, 2])
def test_center_of_a_sphere(sphere_dimension):
    """Every direction is as likely as another."""
    size = sphere_dimension + 1
    model = SphereScore((size,), sphere_dimension, RADIUS)
    x = torch.zeros(1, size, dtype=torch.float64)
    assert torch.equal(model.score(x, 0.1), torch.zeros(1, size))
    isotropic = RADIUS**2 / size * torch.eye(size, dtype=torch.float64)
    covariance = model.posterior_covariance(x, 0.1)[0]
    torch.testing.assert_close(covariance, isotropic, rtol=0, atol=1e-14)


# ---- samples and frames -------------------------------------------------------------------------


def test_samples_are_uniform():
    generator = torch.Generator().manual_seed(0)
    segment = SegmentScore.from_frame(CENTER, frame(1), length=LENGTH)
    circle = SphereScore.from_frame(CENTER, frame(2), radius=RADIUS)
    sphere = SphereScore.from_frame(CENTER, frame(3), sphere_dimension=2, radius=RADIUS)
    coordinates = []
    for model in (segment, circle, sphere):
        offsets = model.sample(50_000, generator) - torch.tensor(CENTER, dtype=torch.float64)
        inside = offsets @ model.basis
        # On the manifold to a rounding or ten.
        torch.testing.assert_close(inside @ model.basis.T, offsets, rtol=0, atol=1e-15)
        if model is not segment:
            radii = inside.norm(dim=1)
            torch.testing.assert_close(radii, torch.full_like(radii, RADIUS), rtol=1e-14, atol=0)
        coordinates.append(inside.numpy())
    position = coordinates[0][:, 0] / LENGTH + 0.5
    turn = np.arctan2(*coordinates[1].T) / (2 * np.pi) + 0.5
    # A sphere is uniform in each coordinate (Archimedes).
    heights = coordinates[2] / (2 * RADIUS) + 0.5
    for uniform in (position, turn, *heights.T):
        # Kolmogorov and Smirnov: each of the five is wrong one time in ten thousand.
        assert stats.kstest(uniform, "uniform").pvalue > 1e-4


def test_moments():
    basis, thickness = frame(3), 0.2
    noise = thickness**2 * torch.eye(5, dtype=torch.float64)
    config = {"radius": RADIUS, "thickness": thickness}
    for model, plane in (
        (SphereScore.from_frame(CENTER, basis, sphere_dimension=2, **config), RADIUS**2 / 3),
        (SphereScore.from_frame(CENTER, basis[:, :2], **config), RADIUS**2 / 2),
        (
            SegmentScore.from_frame(CENTER, basis[:, 0], length=LENGTH, thickness=thickness),
            LENGTH**2 / 12,
        ),
    ):
        directions = basis[:, : model.basis.shape[1]]
        assert model.mean.tolist() == CENTER
        want = plane * directions @ directions.T + noise
        torch.testing.assert_close(model.covariance, want, rtol=0, atol=1e-15)


def test_frame_is_made_orthonormal():
    """The plane of (1, 1, 0) and (0, 2, 0) is the first two axes'."""
    model = SphereScore.from_frame([0.0, 0.0, 1.0], [[1.0, 0.0], [1.0, 2.0], [0.0, 0.0]])
    torch.testing.assert_close(model.basis.T @ model.basis, torch.eye(2, dtype=torch.float64))
    samples = model.sample(10)
    torch.testing.assert_close(samples[:, 2], torch.ones(10, dtype=torch.float64))
    torch.testing.assert_close(samples[:, :2].norm(dim=1), torch.ones(10, dtype=torch.float64))
    for sign in (1, -1):
        given = sign * frame(2)
        kept = SphereScore.from_frame(CENTER, given).basis
        torch.testing.assert_close(kept.data, given, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SegmentScore(length=0.0), r"length is 0\.0; it must be a finite number above 0"),
        (lambda: SphereScore(radius=-1.0), r"radius is -1\.0; it must be a finite number above 0"),
        (
            lambda: SphereScore(sphere_dimension=3),
            "sphere_dimension is 3; it must be a whole number from 1 to 2",
        ),
        (
            lambda: SegmentScore(thickness=-0.1),
            r"thickness is -0\.1; it must be a finite number of at least 0",
        ),
        (
            lambda: SphereScore((2,), sphere_dimension=2),
            r"sample_shape is \(2,\), which has 2 coordinates; this manifold needs at least 3",
        ),
        (
            lambda: SphereScore.from_frame([0.0, 0.0], [1.0, 0.0]),
            r"basis has the shape \(2, 1\); this manifold needs \(2, 2\)",
        ),
        (
            lambda: SphereScore.from_frame([0.0, 0.0], [[1.0, 2.0], [1.0, 2.0]]),
            "the columns of basis are not linearly independent; give others",
        ),
    ],
)
def test_errors(build, message):
    with pytest.raises(HDZooError, match=message):
        build()
