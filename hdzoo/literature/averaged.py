r"""The law that half-denoising with averaged noise ends with, by quadrature.

The walk of Leimkuhler and Matthews (arXiv 1203.5428) adds half of each noise now and half next
time. With :math:`\alpha = \sigma^2 / 2` and :math:`u_k` the noisy points,

.. math:: u_{k+1} = u_k + \alpha s(u_k) + \tfrac{\sigma}{2} (n_k + n_{k+1})

is no Markov chain, but :math:`y_k = u_k - \frac{\sigma}{2} n_k`, which does not know :math:`n_k`,
is:

.. math:: y_{k+1} = 2 u_k + \alpha s(u_k) - y_k, \quad u_k = y_k + \tfrac{\sigma}{2} n_k.

So where :math:`h(u) = 2 u + \alpha s(u)` grows, the density of :math:`y_{k+1} = y'` given
:math:`y` is :math:`N(u; y, \sigma^2 / 4) / h'(u)` at :math:`u = h^{-1}(y + y')`.
"""

from typing import Any

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from scipy.sparse.linalg import eigs
from scipy.special import ndtr

from hdzoo.errors import HDZooError
from hdzoo.verification.quadrature_law import GridLaw, density_law

# More than where noise is only added: a score of several modes is less smooth than a normal law.
POINTS_PER_NOISE = 3.0
# Nodes of h for each point of the chain's grid.
FINER = 32


def averaged_noise_law(target: Any, sigma: float, low: float, high: float) -> GridLaw:
    r"""The stationary law of the noisy points :math:`u_k`.

    Args:
        target: a one-dimensional `hdzoo.targets.analytic.AnalyticScore`.
        sigma: the noise level; the step size is half of its square.
        low: left end of where the chain may be.
        high: right end.

    Raises:
        HDZooError: the score falls so steeply that a step is not one to one, or the range is too
            narrow.
    """
    noise, spacing = sigma / 2, sigma / 2 / POINTS_PER_NOISE
    grid = np.linspace(low, high, int(np.ceil((high - low) / spacing)) + 1)
    spacing = grid[1] - grid[0]
    once = _kernel(target, sigma, grid)
    # Of a chain that forgets its start, the one law that a step leaves as it is.
    start = density_law(target, sigma, grid).weights
    _, vectors = eigs(once, k=1, v0=start)
    weights = vectors[:, 0].real / vectors[:, 0].real.sum()
    gaps = (grid[:, None] - grid) / noise
    density = np.exp(-(gaps**2) / 2) / (noise * np.sqrt(2 * np.pi))
    return GridLaw(grid, spacing * density @ weights, ndtr(gaps) @ weights)


def _kernel(target: Any, sigma: float, grid: np.ndarray) -> np.ndarray:
    """What share of each point goes to each, a column for each."""
    count, noise, spacing = len(grid), sigma / 2, grid[1] - grid[0]
    # A little beyond, for sums of ends.
    nodes = np.linspace(2 * grid[0] - grid[-1], 2 * grid[-1] - grid[0], 3 * FINER * count)
    score = target.score(torch.from_numpy(nodes)[:, None], sigma)[:, 0].numpy()
    sums = 2 * nodes + sigma**2 / 2 * score
    if (np.diff(sums) <= 0).any():
        raise HDZooError(
            f"at sigma = {sigma:g} the score falls by more than 4 / sigma^2 on the way; take a "
            "smaller noise level or a smoother target"
        )
    inverse = CubicSpline(sums, nodes)
    # Sums of two points of an even grid are as many as it has points, twice.
    both = np.linspace(2 * grid[0], 2 * grid[-1], 2 * count - 1)
    u, slope = inverse(both), inverse(both, 1)
    place = np.add.outer(np.arange(count), np.arange(count))
    gaps = (u[place] - grid) / noise
    shares = np.exp(-(gaps**2) / 2) / (noise * np.sqrt(2 * np.pi)) * slope[place]
    return np.asarray(spacing * shares)
