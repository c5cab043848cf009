r"""How far a sample is from a law, or two laws from each other, as pure functions.

A sample is a tensor or an array of points, shape (n, d), or (n,) on the line; further axes are
flattened. All is computed in float64, whatever comes in, and a distance comes back as a float.

The Wasserstein distance of order 2 is

.. math:: W_2(p, q)^2 = \inf_{\gamma \in \Gamma(p, q)} E_\gamma |x - y|^2

over all couplings, in the units of the points. Two finite samples of one law are a positive
distance apart, about :math:`n^{-1/2}` on the line and :math:`n^{-1/d}` in d > 4 dimensions: compare
with the distance between two exact samples of that size, not with 0.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from hdzoo.errors import HDZooError

Array = torch.Tensor | npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]

# Entries of a matrix held at once where the whole one would not fit, 32 MB of float64.
CHUNK_ENTRIES = 2**22
# Pairs of points that the exact solver takes: about 1 GB, and some seconds.
MAX_COST_ENTRIES = 25_000_000


# ---- between Gaussians --------------------------------------------------------------------------


def gaussian_wasserstein2(
    mean_a: Array | float,
    covariance_a: Array | float,
    mean_b: Array | float,
    covariance_b: Array | float,
) -> float:
    r"""The Wasserstein distance of order 2 between two Gaussians, in closed form.

    .. math:: W_2^2 = |m_a - m_b|^2 + \min_{U^T U = I} \|R_a - R_b U\|_F^2,
        \qquad R R^T = \Sigma

    The minimum is the squared Bures distance,
    :math:`tr(\Sigma_a + \Sigma_b - 2 (\Sigma_a^{1/2} \Sigma_b \Sigma_a^{1/2})^{1/2})`. As a norm
    of a difference it keeps the digits that the trace would cancel. The error is about 1e-15 times
    the largest standard deviation, times the root of the condition number of the correlations; for
    diagonal covariances it is about 1e-15 of each coordinate's own. Directions of the correlations
    whose variance is lost to rounding, relative 1e-15 d, count as none.

    Source: Dowson and Landau (1982); the form as a minimum: Bhatia, Jain and Lim (arXiv
    1712.01504).

    Args:
        mean_a: mean, shape (d,), or a number on the line.
        covariance_a: covariance, shape (d, d), or a number, the variance; may be singular.
        mean_b: as ``mean_a``.
        covariance_b: as ``covariance_a``.

    Returns:
        The distance, not its square.

    Raises:
        HDZooError: the shapes do not fit, or a covariance is not symmetric with eigenvalues of at
            least 0 (both to 1e-6, so that float32 passes).
    """
    centre_a = float64_array(mean_a, "mean_a").reshape(-1)
    centre_b = float64_array(mean_b, "mean_b").reshape(-1)
    if len(centre_a) != len(centre_b):
        raise HDZooError(
            f"the means have dimension {len(centre_a)} and {len(centre_b)}; give two Gaussians on "
            "the same space"
        )
    root_a = _covariance_factor(covariance_a, len(centre_a), "covariance_a")
    root_b = _covariance_factor(covariance_b, len(centre_b), "covariance_b")
    left, _, right = np.linalg.svd(root_b.T @ root_a)
    bures = np.linalg.norm(root_a - root_b @ (left @ right))
    return float(np.hypot(np.linalg.norm(centre_a - centre_b), bures))


def _covariance_factor(covariance: Array | float, dimension: int, name: str) -> Float64:
    """Some ``R`` with ``R R^T`` the covariance, shape (d, d)."""
    matrix = float64_array(covariance, name)
    if dimension == 1 and matrix.size == 1:
        matrix = matrix.reshape(1, 1)
    if matrix.shape != (dimension, dimension):
        raise HDZooError(
            f"{name} has shape {matrix.shape}; with means of dimension {dimension} it must be "
            f"({dimension}, {dimension})"
        )
    variances = np.diag(matrix)
    if (variances < 0).any():
        raise HDZooError(f"{name} holds the variance {variances.min():g}; a variance is at least 0")
    # Correlations, not covariances, are factored, so that small coordinates keep their digits.
    scale = np.sqrt(variances)
    divisor = np.where(scale > 0, scale, scale.max() or 1.0)
    correlation = matrix / divisor[:, None] / divisor
    asymmetry = np.abs(correlation - correlation.T).max()
    if asymmetry > 1e-6:
        raise HDZooError(
            f"{name} is not symmetric: two opposite correlations differ by {asymmetry:.3g}; give "
            "a covariance"
        )
    values, vectors = np.linalg.eigh((correlation + correlation.T) / 2)
    if values[0] < -1e-6 * max(values[-1], 1.0):
        raise HDZooError(
            f"{name} has the eigenvalue {values[0]:.3g} (of its correlations); a covariance has "
            "none below 0"
        )
    # What rounding leaves of a zero eigenvalue would show as its root, 1e-8.
    lost = 4 * dimension * np.finfo(float).eps * values[-1]
    factor: Float64 = divisor[:, None] * vectors * np.sqrt(np.where(values > lost, values, 0.0))
    return factor


# ---- between samples ----------------------------------------------------------------------------


def wasserstein2_1d(
    x: Array,
    y: Array,
    x_weights: Array | None = None,
    y_weights: Array | None = None,
) -> float:
    r"""The Wasserstein distance of order 2 between two samples on the line, exactly.

    .. math:: W_2^2 = \int_0^1 (F_x^{-1}(u) - F_y^{-1}(u))^2 du

    Source: Peyré and Cuturi (arXiv 1803.00567), remark 2.30; solved by POT, in n log n.

    Args:
        x: points, shape (n,) or (n, 1).
        y: points, shape (m,) or (m, 1); ``m`` need not be ``n``.
        x_weights: at least 0, shape (n,); they are divided by their sum. Uniform by default.
        y_weights: the same for ``y``, shape (m,).

    Returns:
        The distance, in the units of the points. For sizes that differ it is good to about 1e-8
        times the range of the points (the root of a rounding).

    Raises:
        HDZooError: the points are not on the line or not finite, or the weights do not fit.
    """
    import ot

    a, b = _points(x, "x"), _points(y, "y")
    if a.shape[1] != 1 or b.shape[1] != 1:
        raise HDZooError(
            f"x and y have dimension {a.shape[1]} and {b.shape[1]}; wasserstein2_1d is for the "
            "line, take wasserstein2 or sliced_wasserstein2"
        )
    p, q = _weights(x_weights, len(a), "x_weights"), _weights(y_weights, len(b), "y_weights")
    return float(ot.emd2_1d(a[:, 0], b[:, 0], p, q, dense=False) ** 0.5)


def wasserstein2(
    x: Array,
    y: Array,
    x_weights: Array | None = None,
    y_weights: Array | None = None,
) -> float:
    """The Wasserstein distance of order 2 between two samples, exactly.

    Source: Peyré and Cuturi (arXiv 1803.00567), section 3; solved by the network simplex of POT,
    in 40 n m bytes and up to n^3 operations: 1 GB and 5 s for 5000 points each. On the line it is
    `wasserstein2_1d`.

    Args:
        x: points, shape (n, d).
        y: points, shape (m, d).
        x_weights: at least 0, shape (n,); they are divided by their sum. Uniform by default.
        y_weights: the same for ``y``, shape (m,).

    Returns:
        The distance, in the units of the points.

    Raises:
        HDZooError: the samples or the weights do not fit, there are more than 25 million pairs of
            points, or the solver does not come to an end.
    """
    import ot
    from scipy.spatial.distance import cdist

    a, b = _pair(x, y)
    if a.shape[1] == 1:
        return wasserstein2_1d(a, b, x_weights, y_weights)
    p, q = _weights(x_weights, len(a), "x_weights"), _weights(y_weights, len(b), "y_weights")
    if len(a) * len(b) > MAX_COST_ENTRIES:
        raise HDZooError(
            f"x has {len(a)} and y {len(b)} points, {len(a) * len(b):.2g} pairs; the exact "
            f"distance takes at most {MAX_COST_ENTRIES:.2g}: give fewer points, or take "
            "sliced_wasserstein2"
        )
    # Not by ot.dist, whose expanded square loses half the digits between near points.
    cost = cdist(a, b, "sqeuclidean")
    square, log = ot.emd2(p, q, cost, numItermax=10**8, log=True)
    if log["warning"] is not None:
        raise HDZooError(
            f"the solver for {len(a)} and {len(b)} points gave up ({log['warning']}); give fewer "
            "points, or take sliced_wasserstein2"
        )
    return float(max(square, 0.0) ** 0.5)


def sliced_wasserstein2(x: Array, y: Array, num_projections: int = 128, seed: int = 0) -> float:
    r"""The sliced Wasserstein distance of order 2 between two samples.

    .. math:: SW_2^2 = E_\theta W_2(\theta^T x, \theta^T y)^2, \quad \theta \sim U(S^{d-1})

    the mean being over ``num_projections`` random directions, the same for the same seed. Over all
    directions it is at most :math:`W_2 / \sqrt d`, which it is for a shift. On the line it is
    :math:`W_2`. For samples of any size: it takes a sort for each direction.

    Source: Bonneel, Rabin, Peyré and Pfister (2015); computed by POT.

    Args:
        x: points, shape (n, d).
        y: points, shape (m, d).
        num_projections: directions, at least 1.
        seed: fixes the directions.

    Returns:
        The distance, in the units of the points.

    Raises:
        HDZooError: the samples do not fit, or there is no direction.
    """
    import ot

    a, b = _pair(x, y)
    if num_projections < 1:
        raise HDZooError(f"num_projections is {num_projections}; it must be at least 1")
    directions = ot.sliced.get_random_projections(a.shape[1], num_projections, seed)
    # Not by ot.sliced_wasserstein_distance, which holds all projections, and whose running sums of
    # weights lose more digits where the sizes differ.
    squares = [ot.emd2_1d(a @ one, b @ one, dense=False) for one in directions.T]
    return float(np.mean(squares) ** 0.5)


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
    a, b = _pair(x, y, at_least=2 if unbiased else 1)
    h = median_bandwidth(a, b) if bandwidth is None else float(bandwidth)
    if not (np.isfinite(h) and h > 0):
        raise HDZooError(f"bandwidth is {h}; it must be finite and positive")
    n, m = len(a), len(b)
    within_a, within_b = _kernel_sum(a, a, h), _kernel_sum(b, b, h)
    across = 2 * _kernel_sum(a, b, h) / (n * m)
    if unbiased:  # k(x, x) is 1 exactly
        return (within_a - n) / (n * (n - 1)) + (within_b - m) / (m * (m - 1)) - across
    return within_a / n**2 + within_b / m**2 - across


def _kernel_sum(a: Float64, b: Float64, bandwidth: float) -> float:
    from scipy.spatial.distance import cdist

    step = max(1, CHUNK_ENTRIES // len(b))
    total = 0.0
    for start in range(0, len(a), step):
        squares = cdist(a[start : start + step], b, "sqeuclidean")
        total += float(np.exp(squares / (-2 * bandwidth**2)).sum())
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

    pool = np.concatenate(_pair(x, y))
    if len(pool) > max_points:
        pool = pool[np.linspace(0, len(pool) - 1, max_points).round().astype(int)]
    median = float(np.median(pdist(pool)))
    if median <= 0:
        raise HDZooError(
            "the median distance between the points is 0, as most of them coincide; give the "
            "bandwidth yourself"
        )
    return median


# ---- between densities --------------------------------------------------------------------------


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
    box = np.atleast_2d(float64_array(np.asarray(bounds), "bounds"))
    if box.shape not in ((1, 2), (2, 2)) or not (box[:, 0] < box[:, 1]).all():
        raise HDZooError(
            f"bounds are {bounds}; give (low, high) with low < high, or two such pairs for "
            "densities in the plane"
        )
    dimension = len(box)
    per_axis = num_points if num_points is not None else (10_001, 1001)[dimension - 1]
    if per_axis < 3:
        raise HDZooError(f"num_points is {per_axis}; a grid has at least 3 along each axis")
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
    logs = _to_numpy(function(points))
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


# ---- shares and moments -------------------------------------------------------------------------


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
    points = torch.as_tensor(x).detach().double()
    num_points = len(_points(points, "x", at_least=2))
    with torch.no_grad():
        responsibilities = _to_numpy(target.component_probabilities(points, sigma))
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
    points = _points(x, "x", at_least=2)
    n = len(points)
    mean = points.mean(0)
    centred = points - mean
    second = centred.T @ centred / n
    fourth = (centred**2).T @ centred**2 / n
    covariance = second * (n / (n - 1))
    return Moments(
        mean,
        covariance,
        np.sqrt(np.diag(covariance) / n),
        np.sqrt(np.maximum(fourth - second**2, 0.0) / n),
    )


# ---- what comes in ------------------------------------------------------------------------------


def _to_numpy(values: Any) -> Float64:
    if isinstance(values, torch.Tensor):
        # numpy has no bfloat16, so the tensor is widened first.
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)


def float64_array(values: Any, name: str) -> Float64:
    """A tensor, an array or a number as a float64 array.

    Args:
        values: what to convert; any shape, any device.
        name: what to call it in an error.

    Returns:
        The same shape; a view where nothing had to be converted.

    Raises:
        HDZooError: a value is not finite.
    """
    array = _to_numpy(values)
    wrong = array.size - int(np.isfinite(array).sum())
    if wrong:
        raise HDZooError(
            f"{name} has {wrong} of {array.size} values that are not finite; look for where the "
            "sampler diverged, or leave those points out"
        )
    return array


def _points(values: Any, name: str, at_least: int = 1) -> Float64:
    array = float64_array(values, name)
    if array.ndim == 0 or len(array) < at_least or array.size == 0:
        raise HDZooError(
            f"{name} has shape {array.shape}; give a sample of shape (n, d), n at least {at_least}"
        )
    return array.reshape(len(array), -1)


def _pair(x: Any, y: Any, at_least: int = 1) -> tuple[Float64, Float64]:
    a, b = _points(x, "x", at_least), _points(y, "y", at_least)
    if a.shape[1] != b.shape[1]:
        raise HDZooError(
            f"x has points of dimension {a.shape[1]} and y of {b.shape[1]}; they must be the same"
        )
    return a, b


def _weights(values: Any, num_points: int, name: str) -> Float64:
    if values is None:
        return np.full(num_points, 1 / num_points)
    weights = float64_array(values, name)
    if weights.shape != (num_points,) or (weights < 0).any() or weights.sum() <= 0:
        raise HDZooError(
            f"{name} has shape {weights.shape}, smallest value {weights.min(initial=0):g} and sum "
            f"{weights.sum():g}; it must have shape ({num_points},), no value below 0 and a "
            "positive sum"
        )
    return weights / weights.sum()
