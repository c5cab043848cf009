"""Integrals over one latent coordinate, as sums of positive terms, in which nothing cancels."""

from typing import NamedTuple

import numpy as np
import torch

# What is left out of an integral is below exp(-40) = 4e-18 of it; a normal law reaches exp(-40) at
# so many standard deviations.
CUT = 40.0
REACH = (2 * CUT) ** 0.5

# As many nodes as a normal law over [-REACH, REACH], the hardest integrand here, needs.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(56)


def legendre(lower: torch.Tensor, upper: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Gauss-Legendre nodes and weights.

    Args:
        lower: ends of the intervals, of any shape.
        upper: the other ends, of the same shape.

    Returns:
        Nodes and weights, with one more axis at the end, of 56.
    """
    nodes, weights = (torch.as_tensor(a).to(lower) for a in (_NODES, _WEIGHTS))
    half = (upper - lower)[..., None] / 2
    return lower[..., None] + half * (1 + nodes), half * weights


class Truncated(NamedTuple):
    r"""A law on an interval.

    Attributes:
        log_mass: log of the integral of the density, divided by its maximum.
        mean: the mean.
        variance: the variance.
    """

    log_mass: torch.Tensor
    mean: torch.Tensor
    variance: torch.Tensor


def truncated_normal(tilt: torch.Tensor, length: torch.Tensor | float) -> Truncated:
    r"""The law on :math:`[0, l]` with density proportional to :math:`e^{-t y - y^2 / 2}`.

    It is :math:`N(-t, 1)` cut to the interval. The closed forms in the normal distribution function
    lose all digits far out (:math:`t \to \infty`, an exponential law) and on short intervals; these
    sums are right to 1e-13 everywhere.

    Args:
        tilt: ``t``, of any shape, at least :math:`-l`: the density has its maximum inside.
        length: ``l``, positive, of the same shape or a number; may be infinite.

    Returns:
        Three tensors of the shape of ``tilt``.
    """
    # Nodes are measured from the maximum: a rounding of a large y would be large in its exponent.
    peak = (-tilt).clamp(min=0)
    slope = tilt + peak
    lower = (-peak).clamp(min=-REACH)
    upper = 2 * CUT / (slope + (slope**2 + 2 * CUT).sqrt())
    y, weights = legendre(lower, torch.minimum(length - peak, upper))
    terms = weights * torch.exp(-y * (slope[..., None] + y / 2))
    mass = terms.sum(-1)
    mean = (terms * y).sum(-1) / mass
    variance = (terms * (y - mean[..., None]) ** 2).sum(-1) / mass
    return Truncated(mass.log(), peak + mean, variance)
