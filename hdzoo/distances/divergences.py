r"""Differences of two laws that are no distances of transport: MMD and Kullback-Leibler.

Samples are as in `hdzoo.distances.wasserstein`.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from hdzoo.checks import POSITIVE, Number, Whole, as_float64, real_array, refuse
from hdzoo.distances.arrays import Array, Float64, pair, power_of_two
from hdzoo.errors import HDZooError

# Entries of a matrix held at once where the whole one would not fit, 32 MB of float64.
CHUNK_ENTRIES = 2**22
# Along each axis, on the line and in the plane: some minutes.
MAX_GRID_POINTS = (10**8, 10**4)


def mmd(
    x: Array,
    y: Array,
    bandwidth: float | None = None,
    unbiased: bool = True,
) -> float:
    r"""The squared maximum mean discrepancy between two samples, with a Gaussian kernel.

    .. math:: MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y),
        \qquad k(x, y) = \exp(-|x - y|^2 / (2 h^2))

    Source: Gretton et al. (JMLR 13, 2012), equation 3 (unbiased) and 5 (biased, squared). In
    n m d operations, 32 MB at a time.

    Args:
        x: points, shape (n, d).
        y: points, shape (m, d).
        bandwidth: ``h``, in the units of the points; `median_bandwidth` by default. Numbers with
            different bandwidths cannot be compared.
        unbiased: leaves each point's product with itself out, so that the expectation is the
            discrepancy of the laws; then at least 2 points each, and it may be below 0. Otherwise
            the discrepancy of the empirical laws, at least 0, too large by about 1/n + 1/m.

    Returns:
        The square, without units, at most 2.

    Raises:
        HDZooError: the samples do not fit, or the bandwidth is not positive.
    """
    a, b = pair(x, y, at_least=2 if unbiased else 1)
    h = median_bandwidth(a, b) if bandwidth is None else POSITIVE("bandwidth", bandwidth)
    n, m = len(a), len(b)
    # k - 1 and not k: of a wide kernel, all that tells the samples apart is in its last digits. The
    # ones cancel, but for those of each point with itself.
    across = 2 * _kernel_sum(a, b, h) / (n * m)
    within_a, within_b = _kernel_sum(a, a, h), _kernel_sum(b, b, h)
    if unbiased:
        return within_a / (n * (n - 1)) + within_b / (m * (m - 1)) - across
    return within_a / n**2 + within_b / m**2 - across


def _kernel_sum(a: Float64, b: Float64, bandwidth: float) -> float:
    """The sum of ``k(x, y) - 1`` over all pairs."""
    from scipy.spatial.distance import cdist

    unit = power_of_two(a, b)
    step = max(1, CHUNK_ENTRIES // len(b))
    total = 0.0
    # A kernel far narrower than the points, or far wider, is 0 or 1 in floating point.
    with np.errstate(over="ignore", under="ignore"):
        ratio = max(np.float64(bandwidth) / unit, np.finfo(float).tiny)
        for start in range(0, len(a), step):
            distances = cdist(a[start : start + step] / unit, b / unit) / ratio
            total += float(np.expm1(-(distances**2) / 2).sum())
    return total


def median_bandwidth(x: Array, y: Array, max_points: int = 1000) -> float:
    """The median distance between two points of the pooled sample, the usual kernel bandwidth.

    Source: Gretton et al. (JMLR 13, 2012), section 8.

    Args:
        x: points, shape (n, d).
        y: points, shape (m, d).
        max_points: of a larger pool, so many are taken, evenly spaced.

    Returns:
        The distance, in the units of the points.

    Raises:
        HDZooError: the samples do not fit, or most points coincide.
    """
    from scipy.spatial.distance import pdist

    pool = np.concatenate(pair(x, y))
    max_points = Whole(2)("max_points", max_points)
    if len(pool) > max_points:
        pool = pool[np.linspace(0, len(pool) - 1, max_points).round().astype(int)]
    unit = power_of_two(pool)
    median = unit * float(np.median(pdist(pool / unit)))
    if median <= 0:
        raise HDZooError(
            "the median distance between the points is 0, as most of them coincide; give the "
            "bandwidth yourself"
        )
    return median


def kl_divergence(
    log_p: Callable[[torch.Tensor], Array],
    log_q: Callable[[torch.Tensor], Array],
    bounds: Sequence[float] | Sequence[Sequence[float]],
    num_points: int | None = None,
    tolerance: float = 1e-6,
) -> float:
    r"""The Kullback-Leibler divergence between two densities in dimension 1 or 2, by quadrature.

    .. math:: KL(p | q) = \int p \log(p / q)

    By the trapezoidal rule, which converges faster than any power of the spacing where ``p`` is
    smooth and vanishes before the bounds (Trefethen and Weideman, SIAM Review 56, 2014): between
    Gaussians a spacing of half the smallest standard deviation of ``p`` gives 14 digits.

    Args:
        log_p: log density, from points of shape (k, d), a float64 tensor, to shape (k,). Must be
            normalised, which is checked. May be minus infinity.
        log_q: the same for ``q``. Must be normalised, which is not checked, as it may have mass
            outside of the bounds.
        bounds: the lowest and the highest value, ``(low, high)`` on the line, one such pair for
            each coordinate otherwise.
        num_points: grid points along each axis; 10001 on the line and 1001 in the plane by default.
        tolerance: by how much the integral of ``p`` over the bounds may differ from 1.

    Returns:
        The divergence in nats; infinite where ``q`` vanishes and ``p`` does not.

    Raises:
        HDZooError: the bounds do not fit, a log density is not one, ``p`` does not integrate to 1,
            or the result is below 0, which a normalised ``q`` does not allow.
    """
    for name, function in (("log_p", log_p), ("log_q", log_q)):
        if not callable(function):
            refuse(name, function, "a function from points to log densities")
    tolerance = Number(above=0, below=1)("tolerance", tolerance)
    box = np.atleast_2d(real_array("bounds", bounds))
    if box.shape not in ((1, 2), (2, 2)) or not (box[:, 0] < box[:, 1]).all():
        raise HDZooError(
            f"bounds are {bounds}; give (low, high) with low < high, or two such pairs for "
            "densities in the plane"
        )
    dimension = len(box)
    per_axis = (10_001, 1001)[dimension - 1]
    if num_points is not None:
        per_axis = Whole(3, MAX_GRID_POINTS[dimension - 1])("num_points", num_points)
    axes = [np.linspace(low, high, per_axis) for low, high in box]
    # A row of the first axis is the grid of the others.
    rest = axes[1] if dimension == 2 else np.zeros(1)
    rest_weights = _trapezoid_weights(rest) if dimension == 2 else np.ones(1)
    mass = divergence = 0.0
    step = max(1, CHUNK_ENTRIES // 16 // len(rest))
    first_weights = _trapezoid_weights(axes[0])
    for start in range(0, per_axis, step):
        first = axes[0][start : start + step]
        grid = np.stack(np.meshgrid(first, rest, indexing="ij"), -1).reshape(-1, 2)[:, :dimension]
        weights = np.outer(first_weights[start : start + step], rest_weights).reshape(-1)
        points = torch.from_numpy(np.ascontiguousarray(grid))
        logs_p, logs_q = (
            _log_density(function, points, name)
            for function, name in ((log_p, "log_p"), (log_q, "log_q"))
        )
        with np.errstate(over="ignore"):  # the mass will tell
            cells = weights * np.exp(logs_p)
        # Where p vanishes so does p log(p / q), but not in floating point.
        held = cells > 0
        mass += float(cells.sum())
        divergence += float((cells[held] * (logs_p[held] - logs_q[held])).sum())
    if not abs(mass - 1) <= tolerance:
        raise HDZooError(
            f"p integrates to {mass:.9g} over the bounds {box.tolist()} with {per_axis} points "
            f"along each axis, not to 1 within {tolerance:g}: widen the bounds if p has mass "
            "outside, raise num_points if p is narrower than the spacing, or normalise log_p"
        )
    if divergence < -tolerance:
        raise HDZooError(
            f"the divergence comes out as {divergence:.6g}, below 0; normalise log_q, which "
            "integrates to more than 1"
        )
    return max(divergence, 0.0)


def _trapezoid_weights(axis: Float64) -> Float64:
    weights = np.full(len(axis), (axis[-1] - axis[0]) / (len(axis) - 1))
    weights[[0, -1]] /= 2
    return weights


def _log_density(
    function: Callable[[torch.Tensor], Array], points: torch.Tensor, name: str
) -> Float64:
    logs = as_float64(name, function(points))
    if logs.size != len(points):
        raise HDZooError(
            f"{name} gives shape {logs.shape} for points of shape {tuple(points.shape)}; it must "
            f"give ({len(points)},)"
        )
    bad = np.isnan(logs) | (logs == np.inf)
    if bad.any():
        index = int(bad.reshape(-1).argmax())
        raise HDZooError(
            f"{name} is {logs.reshape(-1)[index]} at {points[index].tolist()}; a log density is "
            "finite or minus infinity"
        )
    return logs.reshape(-1)
