r"""What samples say of a law: moments, and the weights of its modes, with standard errors.

Samples are as in `hdzoo.distances.wasserstein`.
"""

from typing import NamedTuple, Protocol

import numpy as np
import torch

from hdzoo.checks import NOT_NEGATIVE, as_float64, refuse
from hdzoo.distances.arrays import Array, Float64, points_of, power_of_two
from hdzoo.errors import HDZooError


class Mixture(Protocol):
    """What `mode_weights` asks of its target."""

    def component_probabilities(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        """The posterior probability of each component at each point, shape (n, K)."""


class ModeWeights(NamedTuple):
    """The shares of the modes.

    Attributes:
        shares: shape (K,), summing to 1.
        standard_errors: of the shares, for independent samples, shape (K,).
    """

    shares: Float64
    standard_errors: Float64


def mode_weights(x: Array, target: Mixture, sigma: float = 0.0) -> ModeWeights:
    r"""The share of a sample that each component of a mixture has, by mean responsibility.

    .. math:: \hat w_k = \frac1n \sum_i r_k(x_i), \qquad
        r_k(x) = \frac{w_k p_k(x)}{\sum_j w_j p_j(x)}

    Under the target itself :math:`E r_k = w_k` exactly, however much the components overlap.
    Counting the points nearest to each has no such property; where the components are far apart
    the two agree.

    Args:
        x: points, shape (n, ...) as the target takes them, n at least 2.
        target: has ``component_probabilities(x, sigma)``, shape (n, K).
        sigma: noise level of the sample; 0 for clean ones.

    Returns:
        The shares and their standard errors, the standard deviation of :math:`r_k` over
        :math:`\sqrt n`. They hold for independent points: for chains, multiply them by the root of
        the integrated autocorrelation time.

    Raises:
        HDZooError: there are fewer than 2 points, some are not finite, or the target gives no
            probabilities.
    """
    num_points = len(points_of(x, "x", at_least=2))
    sigma = NOT_NEGATIVE("sigma", sigma)
    if not hasattr(target, "component_probabilities"):
        refuse("target", target, "a mixture, with component_probabilities")
    points = torch.as_tensor(x, dtype=torch.float64).detach()
    with torch.no_grad():
        found = target.component_probabilities(points, sigma)
    responsibilities = as_float64("component_probabilities", found)
    if responsibilities.ndim != 2 or len(responsibilities) != num_points:
        raise HDZooError(
            f"component_probabilities gives shape {responsibilities.shape} for {num_points} "
            f"points; it must give ({num_points}, K)"
        )
    # Rows summed in float32 are off by 1e-7 for each component.
    if not ((responsibilities >= 0).all() and (np.abs(responsibilities.sum(1) - 1) < 1e-3).all()):
        raise HDZooError(
            "component_probabilities gives rows that are not probabilities; they must be at least "
            "0 and sum to 1 (infinities in the target's log densities?)"
        )
    return ModeWeights(responsibilities.mean(0), responsibilities.std(0, ddof=1) / num_points**0.5)


class Moments(NamedTuple):
    """Sample moments and their standard errors.

    Attributes:
        mean: shape (d,).
        covariance: unbiased, shape (d, d).
        mean_error: standard errors of the mean, shape (d,).
        covariance_error: standard errors of the covariance's entries, shape (d, d).
    """

    mean: Float64
    covariance: Float64
    mean_error: Float64
    covariance_error: Float64


def moments(x: Array) -> Moments:
    r"""The mean and the covariance of a sample, each with its Monte Carlo standard error.

    The error of the mean is :math:`\sqrt{\Sigma_{ii} / n}`, that of the covariance
    :math:`\sqrt{Var[(x_i - m_i)(x_j - m_j)] / n}` with the sample's own fourth moments, which is
    right to order 1/n whatever the law, given that it has them. They hold for independent points.

    Args:
        x: points, shape (n, d), n at least 2.

    Returns:
        The moments, in the units of the points and their squares.

    Raises:
        HDZooError: there are fewer than 2 points, or some are not finite.
    """
    points = points_of(x, "x", at_least=2)
    n, unit = len(points), power_of_two(points)
    mean = (points / unit).mean(0)
    centred = points / unit - mean
    second = centred.T @ centred / n
    fourth = (centred**2).T @ centred**2 / n
    covariance = second * (n / (n - 1))
    found = Moments(
        unit * mean,
        unit * (unit * covariance),
        unit * np.sqrt(np.diag(covariance) / n),
        unit * (unit * np.sqrt(np.maximum(fourth - second**2, 0.0) / n)),
    )
    if not all(np.isfinite(part).all() for part in found):
        raise HDZooError(
            f"the points are of size {unit:.2g}, and their covariance is too large for a number of "
            "float64; divide them by their size"
        )
    return found
