"""What every exact score model keeps, whatever its law."""

import inspect
import math
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch

from hdzoo import (
    AnnealedLangevinSampler,
    EmpiricalScore,
    GaussianMixtureScore,
    HDPipeline,
    HDZooError,
    LaplaceScore,
    SegmentScore,
    SphereScore,
)
from hdzoo.targets.analytic import AnalyticScore

SIGMAS = [1e-3, 0.01, 0.1, 0.5, 1.0, 3.0, 30.0, 1e3]
FRAME = [[0.6, 0.0], [0.0, 1.0], [-0.8, 0.0]]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=seeded(seed))


def full_mixture():
    factors = randn(3, 3, 3)
    means, weights = randn(3, 3, seed=1), [0.2, 0.3, 0.5]
    return GaussianMixtureScore.from_components(means, factors @ factors.mT, weights)


# A name, how to build it, and the noise levels that it has a density at besides the positive ones.
TARGETS: dict[str, tuple[Callable[[], AnalyticScore], list[float]]] = {
    "line mixture": (
        lambda: GaussianMixtureScore.from_components([[-1.0], [1.0]], [0.36, 0.25], [0.4, 0.6]),
        [0.0],
    ),
    "diagonal mixture": (
        lambda: GaussianMixtureScore.from_components(
            [[-1.0, 0.3], [0.5, 1.0]], [[0.5, 0.1], [0.2, 1.0]], sample_shape=(1, 2)
        ),
        [0.0],
    ),
    "full mixture": (full_mixture, [0.0]),
    "low-rank mixture": (
        lambda: GaussianMixtureScore.from_factors(
            randn(2, 4), randn(2, 4, 2, seed=1), [0.3, 0.01], [1.0, 3.0]
        ),
        [0.0],
    ),
    "singular mixture": (
        lambda: GaussianMixtureScore.from_factors(randn(2, 3), randn(2, 3, 1, seed=1)),
        [],
    ),
    "point masses": (
        lambda: GaussianMixtureScore.from_components([[-1.0, 0.0], [1.0, 0.5]], 0.0),
        [],
    ),
    "interval": (lambda: SegmentScore((1,), length=1.5), [0.0]),
    "segment": (lambda: SegmentScore.from_frame([0.3, -0.1], [1.0, 2.0], length=2.0), []),
    "thick segment": (lambda: SegmentScore((3,), length=2.0, thickness=0.2), [0.0]),
    "circle": (lambda: SphereScore((2,), radius=1.3), []),
    "thick circle": (
        lambda: SphereScore.from_frame([0.1, 0.2, 0.3], FRAME, thickness=0.1),
        [0.0],
    ),
    "sphere": (lambda: SphereScore((3,), 2, 0.7), []),
    "thick sphere": (lambda: SphereScore((4,), 2, thickness=0.3), [0.0]),
    "laplace": (lambda: LaplaceScore.from_parameters([0.5, -1.0], [0.7, 1.5]), [0.0]),
    "empirical": (lambda: EmpiricalScore.from_points(randn(20, 2), chunk_size=7), []),
}
PLANE = ["diagonal mixture", "point masses", "segment", "circle", "laplace", "empirical"]


def build(name):
    torch.manual_seed(0)
    return TARGETS[name][0]()


every_target = pytest.mark.parametrize("name", TARGETS)


def near(model, sigma, count=40):
    return model.sample(count, seeded(), sigma=sigma)


def far(model, sigma, count=10):
    """Points at up to a hundred times the distance that noise reaches."""
    directions = randn(count, *model.sample_shape, seed=2)
    reach = torch.logspace(0, 2, count, dtype=torch.float64)
    return directions * (reach * (1 + sigma)).view(-1, *[1] * len(model.sample_shape))


def gradient(model, x, sigma):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(model.log_density(x, sigma).sum(), x)[0]


# ---- the score and the posterior ----------------------------------------------------------------


@every_target
def test_score_is_the_gradient_of_the_log_density(name):
    model = build(name)
    for sigma in [*TARGETS[name][1], *SIGMAS]:
        points = near(model, sigma)
        # A segment of the line has no density outside itself without noise.
        if name != "interval" or sigma > 0:
            points = torch.cat([points, far(model, sigma)])
        error = (model.score(points, sigma) - gradient(model, points, sigma)).flatten(1).norm(dim=1)
        # Where the score vanishes, beside that at one standard deviation of data of scale 1.
        size = model.score(points, sigma).flatten(1).norm(dim=1) + 1 / (1 + sigma)
        assert (error <= 1e-10 * size).all(), (sigma, (error / size).max())


@every_target
def test_energy_is_given_to_those_who_ask(name, monkeypatch):
    """Its gradient is minus the score: far from the data too."""
    model = build(name)
    points = torch.cat([near(model, 0.5), far(model, 0.5)]).requires_grad_()
    sigma = torch.tensor(0.5, dtype=torch.float64)
    output = model(points, sigma, extras=("energy",))
    assert output.energy.shape == (50,)
    assert torch.equal(output.energy, -model.log_density(points, sigma))
    slope = torch.autograd.grad(output.energy.sum(), points)[0]
    # As in the test of the score above.
    torch.testing.assert_close(slope, -output.sample, rtol=1e-6, atol=1e-6)
    as_tuple = model(points, sigma, return_dict=False, extras=("energy",))
    assert torch.equal(as_tuple[0], output.sample)
    assert torch.equal(as_tuple[1], output.energy)

    # Who does not ask, does not pay.
    monkeypatch.setattr(type(model), "_log_density", None)
    assert model(points, sigma).energy is None
    assert len(model(points, sigma, return_dict=False)) == 1


def test_what_a_target_does_not_give():
    model = build("line mixture")
    with pytest.raises(HDZooError, match="asked for 'variance' beside its score; it gives energy"):
        model(randn(3, 1), 0.5, extras=("energy", "variance"))


@every_target
@pytest.mark.parametrize("sigma", [0.1, 0.5, 2.0])
def test_posterior_covariance_is_second_order_tweedie(name, sigma):
    model = build(name)
    dimension = model.dimension
    points = near(model, sigma, 6)
    found = model.posterior_covariance(points, sigma)
    assert found.shape == (6, dimension, dimension)
    for x, covariance in zip(points, found, strict=True):
        hessian = torch.autograd.functional.hessian(
            lambda flat: model.log_density(flat.view(1, *model.sample_shape), sigma).sum(),
            x.flatten(),
        )
        exact = sigma**2 * (torch.eye(dimension) + sigma**2 * hessian)
        # The two terms, of size sigma^2, cancel where the posterior is narrow.
        torch.testing.assert_close(covariance, exact, rtol=0, atol=1e-10 * sigma**2)


@every_target
def test_posterior_covariance_is_one(name):
    """Symmetric and positive semidefinite, and never more than the noise leaves open."""
    model = build(name)
    for sigma in SIGMAS:
        points = torch.cat([near(model, sigma, 10), far(model, sigma)])
        covariance = model.posterior_covariance(points, sigma)
        eigenvalues = torch.linalg.eigvalsh(covariance)
        assert torch.equal(covariance, covariance.mT) or torch.allclose(
            covariance, covariance.mT, rtol=0, atol=1e-14 * float(eigenvalues.max())
        )
        # A rounding or ten of the largest eigenvalue.
        assert (eigenvalues >= -1e-14 * eigenvalues[:, -1:]).all()


@every_target
def test_denoiser_is_tweedie(name):
    model = build(name)
    for sigma in SIGMAS:
        points = near(model, sigma)
        tweedie = points + sigma**2 * model.score(points, sigma)
        # The two terms cancel; a few roundings of x, and of sigma^2 s, which is about sigma. The
        # Laplace score is a difference of shares, over a scale of 0.7 or more, and the shares come
        # from logarithms up to 7, which are rounded by 1e-15.
        slack = 1e-14 * float(points.abs().max() + sigma)
        slack += 3e-15 * sigma**2 if name == "laplace" else 0
        torch.testing.assert_close(model.denoise(points, sigma), tweedie, rtol=0, atol=slack)


@every_target
def test_without_noise_the_denoiser_returns_the_point(name):
    model = build(name)
    if TARGETS[name][1]:
        points = near(model, 0.0)
        # Up to the roundings of going to another basis and back.
        torch.testing.assert_close(model.denoise(points, 0.0), points, rtol=0, atol=1e-14)
        # The squares of such roundings.
        assert model.posterior_covariance(points, 0.0).abs().max() < 1e-28


# ---- the density --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["line mixture", "interval"])
@pytest.mark.parametrize("sigma", [0.0, 0.01, 0.3, 2.0])
def test_density_on_the_line_integrates_to_one(name, sigma):
    model = build(name)
    reach = 8 + 10 * sigma
    # 20 nodes between edges no further apart than the scale of the density; the ends of the
    # interval, at 0.75, are edges.
    edges = np.linspace(-reach, reach, 1 + 2 * math.ceil(reach / max(sigma, 0.01)))
    edges = np.union1d(edges, [-0.75, 0.75])
    nodes, weights = np.polynomial.legendre.leggauss(20)
    half = np.diff(edges)[:, None] / 2
    points = torch.from_numpy((edges[:-1, None] + half * (1 + nodes)).reshape(-1, 1))
    density = model.log_density(points, sigma).exp().numpy()
    # Roundings; there is less than 1e-20 outside.
    assert density @ (half * weights).ravel() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("name", PLANE)
def test_density_on_the_plane_integrates_to_one(name):
    model, sigma = build(name), 0.4
    # The trapezoidal rule on a density that is smooth on the scale 1.5 h is wrong by e^-44. Laplace
    # tails have e^-30 = 1e-13 beyond 45; the others less beyond 12.
    reach, h = 46 if name == "laplace" else 12, sigma / 1.5
    line = torch.arange(-reach, reach, h, dtype=torch.float64)
    points = torch.cartesian_prod(line, line).view(-1, *model.sample_shape)
    mass = model.log_density(points, sigma).exp().sum() * h**2
    assert mass.item() == pytest.approx(1, abs=1e-12)


# ---- samples ------------------------------------------------------------------------------------


@every_target
@pytest.mark.parametrize("sigma", [0.0, 0.7])
def test_moments_of_samples(name, sigma):
    model, count = build(name), 100_000
    samples = model.sample(count, seeded(3), sigma=sigma)
    assert samples.shape == (count, *model.sample_shape)
    flat = samples.flatten(1).double()
    mean, covariance = model.mean.double(), model.covariance.double()
    covariance = covariance + sigma**2 * torch.eye(model.dimension)
    # Five standard errors, and roundings where the law is degenerate.
    error = (covariance.diagonal() / count).sqrt()
    assert ((flat.mean(0) - mean).abs() <= 5 * error + 1e-12).all()
    products = (flat - mean)[:, :, None] * (flat - mean)[:, None, :]
    error = products.std(0) / math.sqrt(count)
    assert ((products.mean(0) - covariance).abs() <= 5 * error + 1e-12).all()


@every_target
def test_samples_follow_the_density(name):
    """The mean of the squared score is what Tweedie's formula says: a test of the whole law.

    E |s|^2 = (d - tr E Cov[x_0 | x] / sigma^2) / sigma^2, because E |sigma s + z|^2 is the trace of
    the posterior covariance over sigma^2.
    """
    model, sigma, count = build(name), 0.5, 10_000
    points = model.sample(count, seeded(4), sigma=sigma)
    open_part = model.posterior_covariance(points, sigma).diagonal(dim1=1, dim2=2).sum(1)
    squares = model.score(points, sigma).flatten(1).square().sum(1)
    difference = squares - (model.dimension - open_part / sigma**2) / sigma**2
    assert abs(difference.mean()) <= 5 * difference.std() / math.sqrt(count) + 1e-12


@every_target
def test_samples_depend_on_the_generator_alone(name):
    model = build(name)
    first = model.sample(5, seeded(7), sigma=0.1)
    torch.manual_seed(99)
    assert torch.equal(first, model.sample(5, seeded(7), sigma=0.1))
    assert not torch.equal(first, model.sample(5, seeded(8), sigma=0.1))


# ---- as a network -------------------------------------------------------------------------------


@every_target
def test_a_noise_level_for_each_point(name):
    model = build(name)
    levels = torch.tensor([0.05, 0.4, 3.0], dtype=torch.float64)
    points = near(model, 0.5, 3)
    for method in (
        model.score,
        model.denoise,
        model.log_density,
        model.posterior_covariance,
        lambda x, sigma: model(x, sigma).sample,
    ):
        alone = [method(points[i, None], levels[i].item()) for i in range(3)]
        # Sums over a batch may be taken in another order.
        torch.testing.assert_close(method(points, levels), torch.cat(alone), rtol=1e-11, atol=1e-13)
        together = method(points, levels[0])
        torch.testing.assert_close(together[0, None], alone[0], rtol=1e-11, atol=1e-13)


@every_target
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_forward_is_the_score(name, dtype):
    model = build(name)
    points = near(model, 0.2).to(dtype)
    output = model(points, torch.tensor(0.2)).sample
    assert output.dtype == dtype
    assert output.shape == points.shape
    # 0.2 in float32 is off by 1.5e-8 of itself, and so the score by a few times that, and by
    # 6e-8 where it is rounded.
    exact = gradient(model, points.double(), 0.2).to(dtype)
    torch.testing.assert_close(output, exact, rtol=1e-6, atol=1e-6)
    assert torch.equal(model(points, torch.tensor(0.2), return_dict=False)[0], output)


@every_target
def test_float32_points_are_computed_in_float64(name):
    model, sigma = build(name), 1e-3
    points = near(model, sigma).float()
    exact = model.score(points.double(), sigma).float()
    assert torch.equal(model.score(points, sigma), exact)


@every_target
def test_saved_and_loaded(name, tmp_path):
    model = build(name)
    model.save_pretrained(tmp_path)
    for options in ({}, {"dtype": torch.float64}):
        loaded = type(model).from_pretrained(tmp_path, **options)
        for key in inspect.signature(type(model)).parameters:
            was, now = model.config[key], loaded.config[key]
            assert now == (list(was) if isinstance(was, tuple) else was)
        saved, found = model.state_dict(), loaded.state_dict()
        assert saved.keys() == found.keys()
        assert all(torch.equal(saved[key], found[key]) for key in saved)
        assert not any(parameter.requires_grad for parameter in loaded.parameters())
        points = near(model, 0.3)
        assert torch.equal(loaded.score(points, 0.3), model.score(points, 0.3))


@every_target
def test_pipeline(name, tmp_path):
    model, count, sigma = build(name), 2000, 0.2
    sampler = AnnealedLangevinSampler(sigma_max=2.0, sigma_min=sigma, num_levels=8)
    HDPipeline(model, sampler).save_pretrained(tmp_path)
    pipe = HDPipeline.from_pretrained(tmp_path, dtype=torch.float64)
    pipe.set_progress_bar_config(disable=True)
    assert type(pipe.unet) is type(model)
    saved, found = model.state_dict(), pipe.unet.state_dict()
    assert all(torch.equal(saved[key], found[key]) for key in saved)
    samples = pipe(count, 80, generator=seeded()).images
    assert samples.shape == (count, *model.sample_shape)
    assert samples.dtype == torch.float32
    # By Tweedie, sigma^2 E |s|^2 = d - tr E Cov[x_0 | x] / sigma^2 <= d on exact noisy samples;
    # Langevin steps of 0.2 sigma^2 spread them by 1 / (1 - 0.1) at most, and there is a sampling
    # error. The start, at ten times the noise, has up to 100 d.
    squares = sigma**2 * model.score(samples, sigma).flatten(1).square().sum(1)
    assert squares.mean() <= model.dimension / 0.9 + 5 * squares.std() / math.sqrt(count)


# ---- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [-1.0, math.nan, math.inf])
def test_noise_level_out_of_range(sigma):
    model = build("laplace")
    for method in (model.score, model.log_density, model.denoise, model.posterior_covariance):
        with pytest.raises(HDZooError, match=f"sigma is {sigma}; it must be a finite number of"):
            method(torch.zeros(1, 2), sigma)
    with pytest.raises(HDZooError, match="it must be a finite number of at least 0"):
        model.sample(3, sigma=sigma)


@every_target
def test_noise_levels_whose_squares_are_no_numbers(name):
    model = build(name)
    x = torch.zeros(3, *model.sample_shape)
    for sigma in (1e-200, 1e-16, 1e16, 1e200):
        for given in (sigma, torch.tensor([1.0, sigma, 0.5], dtype=torch.float64)):
            for method in (model, model.score, model.denoise):
                with pytest.raises(HDZooError, match=re.escape(f"sigma is {sigma}; it must be ")):
                    method(x, given)
    for sigma in (1e-15, 1e15):
        assert model.score(x, sigma).isfinite().all()


@pytest.mark.parametrize("name", [name for name in TARGETS if not TARGETS[name][1]])
def test_no_density_without_noise(name):
    model = build(name)
    with pytest.raises(HDZooError, match=r"sigma is 0.*above 0, for the data have no density"):
        model.score(torch.zeros(1, *model.sample_shape), 0.0)


def test_shapes_that_do_not_fit():
    model = build("diagonal mixture")
    with pytest.raises(HDZooError, match=r"have the shape \(4, 2\); this target needs \(n, 1, 2\)"):
        model.score(torch.zeros(4, 2), 1.0)
    with pytest.raises(HDZooError, match="sigma has 3 noise levels for 4 points; give one, or one"):
        model.score(torch.zeros(4, 1, 2), torch.ones(3))
    with pytest.raises(HDZooError, match="num_samples is 0; it must be a whole number from 1"):
        model.sample(0)
