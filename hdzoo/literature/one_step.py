"""Distances of noisy data to the data, and of what one denoising step makes of them."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.interpolate import CubicSpline

from hdzoo.distances.wasserstein import gaussian_wasserstein2
from hdzoo.literature.denoising import denoised, one_readout
from hdzoo.targets.manifold import SegmentScore, SphereScore
from hdzoo.targets.mixture import GaussianMixtureScore
from hdzoo.targets.named import laplace, two_gaussians, two_points
from hdzoo.verification.laws import Gaussian, Score, exact_law
from hdzoo.verification.quadrature_law import REACH, GridLaw, Quantile, density_law

READOUTS = ("none", "half", "full")
NUM_POINTS = 8001

# By read-out.
Distances = dict[str, float]
# By kind of data; functions of the noise level.
Curves = dict[str, Callable[[float], Distances]]


# ---- distances ----------------------------------------------------------------------------------


def on_a_line(target: Any, quantile: "Quantile | GridLaw", reach: float, sigma: float) -> Distances:
    """Distances of noisy and of denoised data to the data.

    Args:
        target: a one-dimensional `hdzoo.targets.analytic.AnalyticScore`.
        quantile: the data's quantile function, or their law.
        reach: the data are within it of 0, but for 1e-16 of them.
        sigma: the noise level.
    """
    end = reach + REACH * sigma
    noisy = density_law(target, sigma, np.linspace(-end, end, NUM_POINTS))
    return _distances(noisy, target.score, quantile, sigma)


def on_a_circle(thickness: float, sigma: float) -> Distances:
    """The same on the unit circle, whose points have been moved by Gaussian noise.

    All laws are rotation-invariant, so the best coupling is along the radii, and the step at a
    point of the first axis stays on it.

    Args:
        thickness: standard deviation of that noise, which belongs to the data.
        sigma: the noise level.
    """
    target = SphereScore((2,), sphere_dimension=1, thickness=thickness)

    def score(x: torch.Tensor, level: float) -> torch.Tensor:
        return target.score(torch.cat([x, torch.zeros_like(x)], dim=1), level)[:, :1]

    clean = _radii(target, 0.0, thickness) if thickness > 0 else np.ones_like
    return _distances(_radii(target, sigma, math.hypot(sigma, thickness)), score, clean, sigma)


def _radii(target: SphereScore, sigma: float, spread: float) -> GridLaw:
    """The law of the distance from the center."""
    radii = np.linspace(max(0.0, 1 - REACH * spread), 1 + REACH * spread, NUM_POINTS)
    points = torch.from_numpy(np.stack([radii, 0 * radii], axis=1))
    density = 2 * np.pi * radii * target.log_density(points, sigma).exp().numpy()
    weights = density * (radii[1] - radii[0])
    return GridLaw(radii, weights, CubicSpline(radii, density).antiderivative()(radii))


def _distances(noisy: GridLaw, score: Score, data: "Quantile | GridLaw", sigma: float) -> Distances:
    found = {r: denoised(noisy, score, sigma, r).wasserstein2(data) for r in READOUTS[1:]}
    return {"none": noisy.wasserstein2(data), **found}


def on_gaussian(variances: Sequence[float] | np.ndarray, sigma: float) -> Distances:
    """The same on Gaussian data with given eigenvalues, which may be 0.

    Args:
        variances: one for each dimension.
        sigma: the noise level.
    """
    target = Gaussian.of(np.zeros(len(variances)), variances)
    noisy = target.noisy(sigma)
    laws = {r: exact_law(one_readout(sigma, r), target, noisy) for r in READOUTS[1:]}
    laws = {"none": noisy, **laws}
    return {name: gaussian_wasserstein2(*law, *target) for name, law in laws.items()}


def mmd(target: Any, reach: float, sigma: float) -> Distances:
    """The maximum mean discrepancy instead, with a Gaussian kernel of bandwidth 1.

    Args:
        target: one-dimensional, with a smooth density.
        reach: as in `on_a_line`.
        sigma: the noise level.
    """
    end = reach + REACH * sigma
    grid = np.linspace(-end, end, 801)
    data, noisy = density_law(target, 0.0, grid), density_law(target, sigma, grid)
    laws = {"none": noisy}
    laws |= {r: denoised(noisy, target.score, sigma, r) for r in READOUTS[1:]}
    found = {}
    for name, law in laws.items():
        points = np.concatenate([law.points, data.points])
        weights = np.concatenate([law.weights, -data.weights])
        kernel = np.exp(-((points[:, None] - points) ** 2) / 2)
        found[name] = math.sqrt(max(weights @ kernel @ weights, 0.0))
    return found


# ---- the data -----------------------------------------------------------------------------------


def subspace(dimension: int, within: int) -> np.ndarray:
    """Eigenvalues of a standard normal law on a subspace."""
    return np.repeat([1.0, 0.0], [within, dimension - within])


def uniform_quantile(share: np.ndarray) -> np.ndarray:
    return 2 * share - 1


def laplace_quantile(share: np.ndarray) -> np.ndarray:
    # A share within rounding of 0 or 1 has no quantile; the law has no weight there.
    tail = np.clip(np.minimum(share, 1 - share), 1e-17, None)
    return np.sign(0.5 - share) * np.log(2 * tail)


def points_quantile(share: np.ndarray) -> np.ndarray:
    return np.where(share < 0.5, -1.0, 1.0)


def two_wide_points(width: float, sigma: float) -> Distances:
    """Two Gaussians at -1 and 1 of a given standard deviation."""
    target, reach = GaussianMixtureScore.from_components([[-1.0], [1.0]], width**2), 1 + 9.5 * width
    data = density_law(target, 0.0, np.linspace(-reach, reach, NUM_POINTS))
    return on_a_line(target, data, reach, sigma)


def curves() -> Curves:
    """Distances as functions of the noise level, for each kind of data."""
    mixture = two_gaussians()
    mixture_law = density_law(mixture, 0.0, np.linspace(-7, 7, NUM_POINTS))
    uniform = SegmentScore((1,), length=2.0)
    return {
        "Gaussian": partial(on_gaussian, [1.0]),
        "two Gaussians": partial(on_a_line, mixture, mixture_law, 6.5),
        "Laplace": partial(on_a_line, laplace(), laplace_quantile, 37.0),
        "uniform": partial(on_a_line, uniform, uniform_quantile, 1.0),
        "point": partial(on_gaussian, [0.0]),
        "two points": partial(on_a_line, two_points(), points_quantile, 1.0),
        "circle": partial(on_a_circle, 0.0),
        "subspace": partial(on_gaussian, subspace(64, 8)),
    }
