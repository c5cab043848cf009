r"""The Wasserstein distance of order 2, between Gaussians and between samples.

A sample is a tensor or an array of points, shape (n, d), or (n,) on the line; further axes are
flattened. All is computed in float64, whatever comes in, and a distance comes back as a float.

.. math:: W_2(p, q)^2 = \inf_{\gamma \in \Gamma(p, q)} E_\gamma |x - y|^2

over all couplings, in the units of the points. Two finite samples of one law are a positive
distance apart, about :math:`n^{-1/2}` on the line and :math:`n^{-1/d}` in d > 4 dimensions: compare
with the distance between two exact samples of that size, not with 0.
"""

import numpy as np

from hdzoo.checks import COUNT, Whole, real_array
from hdzoo.distances.arrays import (
    Array,
    Float64,
    masses_of,
    pair,
    points_of,
    power_of_two,
)
from hdzoo.errors import HDZooError

# Pairs of points that the exact solver takes: about 1.2 GB, and some seconds.
MAX_COST_ENTRIES = 25_000_000
# Of a plan's cost, by how much the dual bound may be below it: 5e-10 of the distance.
MAX_GAP = 1e-9
# What NumPy's generator takes.
SEED = Whole(0, 2**32 - 1)


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
    centre_a = real_array("mean_a", mean_a).reshape(-1)
    centre_b = real_array("mean_b", mean_b).reshape(-1)
    if len(centre_a) != len(centre_b):
        raise HDZooError(
            f"the means have dimension {len(centre_a)} and {len(centre_b)}; give two Gaussians on "
            "the same space"
        )
    root_a = _covariance_factor(covariance_a, len(centre_a), "covariance_a")
    root_b = _covariance_factor(covariance_b, len(centre_b), "covariance_b")
    unit = power_of_two(root_a, root_b)
    root_a, root_b = root_a / unit, root_b / unit
    left, _, right = np.linalg.svd(root_b.T @ root_a)
    bures = unit * float(np.linalg.norm(root_a - root_b @ (left @ right)))
    # Halved, as the difference of two finite numbers may be infinite.
    halves = centre_a / 2 - centre_b / 2
    unit = power_of_two(halves)
    return _finite(float(np.hypot(2 * (unit * np.linalg.norm(halves / unit)), bures)))


def _covariance_factor(covariance: Array | float, dimension: int, name: str) -> Float64:
    """Some ``R`` with ``R R^T`` the covariance, shape (d, d)."""
    matrix = real_array(name, covariance)
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

    a, b = points_of(x, "x"), points_of(y, "y")
    if a.shape[1] != 1 or b.shape[1] != 1:
        raise HDZooError(
            f"x and y have dimension {a.shape[1]} and {b.shape[1]}; wasserstein2_1d is for the "
            "line, take wasserstein2 or sliced_wasserstein2"
        )
    p, q = masses_of(x_weights, y_weights, len(a), len(b))
    unit = power_of_two(a, b)
    cost = ot.emd2_1d(a[:, 0] / unit, b[:, 0] / unit, p, q, dense=False)
    return _finite(unit * float((cost / p.sum()) ** 0.5))


def wasserstein2(
    x: Array,
    y: Array,
    x_weights: Array | None = None,
    y_weights: Array | None = None,
) -> float:
    """The Wasserstein distance of order 2 between two samples, exactly.

    Source: Peyré and Cuturi (arXiv 1803.00567), section 3; solved by the network simplex of POT,
    in 50 n m bytes and up to n^3 operations: 1.2 GB and 9 s for 5000 points each. Its plan is known
    to be the best one by a dual bound, which differs from the plan's cost by 1e-9 of it at most. On
    the line it is `wasserstein2_1d`.

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
    from scipy.spatial.distance import cdist

    a, b = pair(x, y)
    if a.shape[1] == 1:
        return wasserstein2_1d(a, b, x_weights, y_weights)
    if len(a) * len(b) > MAX_COST_ENTRIES:
        raise HDZooError(
            f"x has {len(a)} and y {len(b)} points, {len(a) * len(b):.2g} pairs; the exact "
            f"distance takes at most {MAX_COST_ENTRIES:.2g}: give fewer points, or take "
            "sliced_wasserstein2"
        )
    p, q = masses_of(x_weights, y_weights, len(a), len(b))
    a, b, p, q = a[p > 0], b[q > 0], p[p > 0], q[q > 0]
    unit = power_of_two(a, b)
    # Not by ot.dist, whose expanded square loses half the digits between near points.
    square = _least_cost(cdist(a / unit, b / unit, "sqeuclidean"), p, q)
    return _finite(unit * (square / float(p.sum())) ** 0.5)


def _least_cost(cost: Float64, p: Float64, q: Float64) -> float:
    """The cost of the best plan from masses ``p`` to ``q``.

    The solver prices arcs to some roundings of the largest cost. Where that is too coarse, as for a
    point far out that both samples have, what no better plan can use is cut down: of a plan that
    costs ``above`` more than the bound, no arc of a better one with the mass ``m`` costs more than
    ``above / m``; twice that, so that none is as good with an arc that was cut down.

    Args:
        cost: of each arc, shape (n, m), at least 0; overwritten.
        p: shape (n,), positive.
        q: shape (m,), positive, of the same sum.
    """
    import ot

    rows = cost.min(1)
    cost -= rows[:, None]
    columns = cost.min(0)
    cost -= columns
    bound = float(p @ rows + q @ columns)
    cap = float(cost.max())
    while cap > 0:
        capped = np.minimum(cost, cap)
        capped /= cap
        _, log = ot.emd2(p, q, capped, numItermax=10**8, log=True, return_matrix=True)
        if log["warning"] is not None:
            raise HDZooError(
                f"the solver for {len(p)} and {len(q)} points gave up ({log['warning']}); give "
                "fewer points, or take sliced_wasserstein2"
            )
        above = float(np.vdot(log["G"], cost))
        # Potentials that no arc is below, whatever the solver's may be.
        right = (capped - log["u"][:, None]).min(0)
        left = (capped - right).min(1)
        gap = above - cap * float(p @ left + q @ right)
        if gap <= MAX_GAP * (bound + above):
            return bound + above
        tighter = 2 * above / float(log["G"].min(where=log["G"] > 0, initial=np.inf))
        if tighter > cap / 2:
            raise HDZooError(
                f"the plan found for {len(p)} and {len(q)} points costs {bound + above:.6g}, and "
                f"the best one may cost {gap:.2g} less (in squared units): the points, or the "
                "weights, are of too different sizes. Leave out those far away, or take "
                "sliced_wasserstein2"
            )
        cap = tighter
    return bound


def _finite(distance: float) -> float:
    if not np.isfinite(distance):
        raise HDZooError(
            "the distance is too large for a number of float64; divide the points by their size"
        )
    return distance


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

    a, b = pair(x, y)
    num_projections = COUNT("num_projections", num_projections)
    seed = SEED("seed", seed)
    directions = ot.sliced.get_random_projections(a.shape[1], num_projections, seed)
    p, q = masses_of(None, None, len(a), len(b))
    unit = power_of_two(a, b)
    a, b = a / unit, b / unit
    # Not by ot.sliced_wasserstein_distance, which holds all projections, and whose running sums of
    # weights lose more digits where the sizes differ.
    squares = [ot.emd2_1d(a @ one, b @ one, p, q, dense=False) for one in directions.T]
    return _finite(unit * float((np.mean(squares) / p.sum()) ** 0.5))
