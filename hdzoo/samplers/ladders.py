"""Noise ladders and step-size rules, as pure functions.

A ladder descends: its first level is the largest. A step size is ``alpha`` in the Langevin step
``x + alpha * score + sqrt(2 alpha) z``; ``eta = alpha / sigma^2`` is the same without units.
"""

import math
from array import array
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hdzoo.checks import (
    COUNT,
    HIGHEST_NOISE,
    LOWEST_NOISE,
    MAX_LEVELS,
    NOISE_LEVEL,
    NOT_NEGATIVE,
    POSITIVE,
    Maybe,
    Number,
    Whole,
    as_float64,
    floating,
    refuse,
)
from hdzoo.errors import HDZooError

# Network evaluations of one chain: three hours at a millisecond each.
MAX_EVALUATIONS = 10_000_000
EVALUATIONS = Whole(1, MAX_EVALUATIONS)
# Above, the roots of neighbouring levels would differ by roundings.
RHO = Maybe(Number(1, 1000))


def geometric_ladder(sigma_max: float, sigma_min: float, num_levels: int) -> list[float]:
    """Geometric noise levels, ``sigma_i = sigma_max (sigma_min / sigma_max)^((i-1) / (L-1))``.

    Source: Song and Ermon (arXiv 1907.05600), section 3.2.

    Args:
        sigma_max: the first level.
        sigma_min: the last level; below ``sigma_max``, above 0.
        num_levels: how many; with 1, only ``sigma_min``.

    Returns:
        ``num_levels`` descending noise levels; the ends are exact.

    Raises:
        HDZooError: the levels would not descend or would not be positive.
    """
    num_levels = Whole(1, MAX_LEVELS)("num_levels", num_levels)
    sigma_min = NOISE_LEVEL("sigma_min", sigma_min)
    if num_levels == 1:
        return [sigma_min]
    sigma_max = NOISE_LEVEL("sigma_max", sigma_max)
    if not sigma_max > sigma_min:
        raise HDZooError(
            f"sigma_max is {sigma_max} and sigma_min is {sigma_min}; a ladder descends between "
            "positive noise levels, so sigma_max > sigma_min > 0"
        )
    ratio = math.log(sigma_min / sigma_max) / (num_levels - 1)
    inner = [sigma_max * math.exp(ratio * i) for i in range(1, num_levels - 1)]
    return [sigma_max, *inner, sigma_min]


def check_ladder(sigmas: Sequence[float]) -> list[float]:
    """Checks an explicit ladder.

    Args:
        sigmas: noise levels.

    Returns:
        The same as a list of floats.

    Raises:
        HDZooError: it is empty, a level is no finite and positive number, or it does not descend.
    """
    ladder = check_levels(sigmas)
    rises = np.flatnonzero(np.diff(ladder) >= 0)
    if len(rises):
        above, below = ladder[rises[0] : rises[0] + 2]
        raise HDZooError(
            f"the ladder goes from {above:g} to {below:g}; noise levels descend, the largest "
            "comes first"
        )
    return ladder.tolist()


def check_levels(sigmas: Any) -> npt.NDArray[np.float64]:
    """Noise levels in any order, as an array of shape (levels,).

    Raises:
        HDZooError: they are none, or one is not finite and positive.
    """
    levels = check_schedule("sigmas", sigmas)
    broken = levels[~((levels >= LOWEST_NOISE) & (levels <= HIGHEST_NOISE))]
    if len(broken):
        raise HDZooError(
            f"the ladder holds {broken[0]}; noise levels are finite and positive, {NOISE_LEVEL}"
        )
    return levels


def check_schedule(name: str, values: Any) -> npt.NDArray[np.float64]:
    """As many numbers as a chain may have evaluations, as an array of shape (evaluations,).

    Args:
        name: of the argument.
        values: of it: a list, a tuple, an array or a tensor; they are counted first.

    Raises:
        HDZooError: they are no numbers, too many, or none.
    """
    if not hasattr(values, "__len__") or isinstance(values, str | bytes | dict | set):
        refuse(name, values, "a list of numbers")
    # A tensor of no axis has a length that cannot be asked for.
    count = len(values) if getattr(values, "ndim", 1) else 0
    if not 0 < count <= MAX_EVALUATIONS:
        raise HDZooError(
            f"the ladder has no noise level, or too many: {name} has {count:,}; give 1 to "
            f"{MAX_EVALUATIONS:,}"
        )
    numbers = as_float64(name, values)
    if numbers.ndim != 1:
        refuse(name, numbers, "a list of numbers")
    return numbers


def floats(numbers: np.ndarray | Sequence[float]) -> "array[float]":
    """An array as a sequence of Python's numbers, which NumPy reads without a copy: of a million
    levels a list takes longer than all that is computed of them.

    Args:
        numbers: shape (n,).
    """
    copied = array("d")
    copied.frombytes(np.ascontiguousarray(numbers, dtype=float).data.cast("B"))
    return copied


def refine_ladder(
    sigmas: Sequence[float], num_levels: int, rho: float | None = None
) -> Sequence[float]:
    """Puts ``num_levels`` levels on a ladder's curve, by linear interpolation.

    Of ``log sigma``: a geometric ladder becomes the geometric ladder with the same ends, as
    consistent annealed sampling asks for (Jolicoeur-Martineau et al., arXiv 2009.05475, section
    3.2). Or of ``sigma^(1 / rho)``: two levels become the schedule of Karras et al. (arXiv
    2206.00364), equation 5.

    Args:
        sigmas: descending noise levels.
        num_levels: how many to return.
        rho: from 1 to 1000; None, its limit, for the logarithm.

    Returns:
        ``num_levels`` descending noise levels with the same ends (the last one alone for 1).

    Raises:
        HDZooError: ``num_levels`` is below 1, or above 1 when the ladder has a single level, or
            ``rho`` is out of its range.
    """
    ladder, num_levels = floats(check_ladder(sigmas)), EVALUATIONS("num_levels", num_levels)
    rho = RHO("rho", rho)
    if num_levels == len(ladder):
        return ladder
    if len(ladder) == 1:
        raise HDZooError(
            f"a ladder of 1 level cannot be resampled to {num_levels}; give a ladder with at least "
            "2 levels"
        )
    if num_levels == 1:
        return ladder[-1:]
    places = np.array([math.log(sigma) if rho is None else sigma ** (1 / rho) for sigma in ladder])
    positions = np.arange(1, num_levels - 1) * (len(ladder) - 1) / (num_levels - 1)
    inner = np.interp(positions, np.arange(len(ladder)), places)
    inner = np.exp(inner) if rho is None else inner**rho
    return ladder[:1] + floats(inner) + ladder[-1:]


def share_steps(num_steps: int, num_levels: int) -> Sequence[int]:
    """Shares steps among the rungs; where it does not divide, the smaller noise gets more.

    Args:
        num_steps: steps in all, at least ``num_levels``.
        num_levels: rungs.

    Returns:
        The number of steps on each rung, largest noise level first.
    """
    num_levels = COUNT("num_levels", num_levels)
    each, rest = divmod(Whole(num_levels)("num_steps", num_steps), num_levels)
    return array("q", [each]) * (num_levels - rest) + array("q", [each + 1]) * rest


def asked_once(counts: Sequence[int], sampler: str) -> None:
    """Refuses a schedule that asks more than once at a noise level.

    Args:
        counts: network evaluations on each level.
        sampler: which goes on to the next level each time, for the message.

    Raises:
        HDZooError: it does.
    """
    if np.max(counts) > 1:
        raise HDZooError(
            f"a noise level is repeated; {sampler} asks the network once at each, so give "
            "descending sigmas"
        )


def churned_ladder(
    sigmas: Sequence[float], churn: float, churn_min: float = 0.0, churn_max: float | None = None
) -> list[float]:
    r"""Noise levels raised before each step, :math:`\hat\sigma_i = (1 + \gamma_i) \sigma_i`.

    With :math:`\gamma_i = \min(S_{churn} / L, \sqrt 2 - 1)` where
    :math:`S_{min} \le \sigma_i \le S_{max}`, and 0 elsewhere. No level is raised above the first.

    Source: Karras et al. (arXiv 2206.00364), Algorithm 2.

    Args:
        sigmas: descending noise levels, length L.
        churn: how much in all; 0 raises none.
        churn_min: the lowest level that is raised.
        churn_max: the highest one; None for no limit.

    Returns:
        As many noise levels.

    Raises:
        HDZooError: a number is negative.
    """
    gamma = min(NOT_NEGATIVE("churn", churn) / len(sigmas), math.sqrt(2) - 1)
    low = NOT_NEGATIVE("churn_min", churn_min)
    high = math.inf if churn_max is None else NOT_NEGATIVE("churn_max", churn_max)
    return [
        min(sigma * (1 + gamma), sigmas[0]) if low <= sigma <= high else sigma for sigma in sigmas
    ]


def langevin_step_sizes(sigmas: Sequence[float], step_size: float) -> list[float]:
    """Step sizes in proportion to the variance, ``alpha_i = step_size * sigma_i^2 / sigma_L^2``.

    Source: Song and Ermon (arXiv 1907.05600), Algorithm 1, line 4, where ``step_size`` is
    ``epsilon``.

    Args:
        sigmas: descending noise levels, length L.
        step_size: ``alpha`` at the last level.

    Returns:
        ``alpha`` at each level.
    """
    return (step_size * (np.asarray(sigmas) / sigmas[-1]) ** 2).tolist()


def ncsnv2_sigma_max(samples: torch.Tensor, chunk_size: int = 1024) -> float:
    """Technique 1 of NCSNv2: the largest Euclidean distance between two data points.

    Source: Song and Ermon (arXiv 2006.09011), section 3.1.

    Args:
        samples: data, shape (n, ...), n at least 2.
        chunk_size: rows of the distance matrix to hold at once.

    Returns:
        The first noise level of the ladder, in the data's units.
    """
    points = floating("samples", samples, "shape (n, ...)").flatten(1)
    if len(points) < 2 or not torch.isfinite(points).all():
        refuse("samples", samples, "at least 2 points, all of finite numbers")
    chunk_size = COUNT("chunk_size", chunk_size)
    return max(torch.cdist(chunk, points).max().item() for chunk in points.split(chunk_size))


def ncsnv2_num_levels(sigma_max: float, sigma_min: float, dimension: int) -> int:
    r"""Technique 2 of NCSNv2: the number of geometric levels whose shells overlap by half.

    The ratio ``gamma`` of neighbouring levels solves

    .. math:: \Phi(\sqrt{2 D} (\gamma - 1) + 3 \gamma) - \Phi(\sqrt{2 D} (\gamma - 1) - 3 \gamma)
        = \frac12

    Source: Song and Ermon (arXiv 2006.09011), section 3.2, equation 4.

    Args:
        sigma_max: the first noise level.
        sigma_min: the last one.
        dimension: ``D``, the number of pixels times channels.

    Returns:
        The number of levels, at least 2.

    Raises:
        HDZooError: the dimension is below 5, where the equation has no solution.
    """
    sigma_max, sigma_min = POSITIVE("sigma_max", sigma_max), POSITIVE("sigma_min", sigma_min)
    if not sigma_max > sigma_min:
        raise HDZooError(f"sigma_max is {sigma_max:g}; it must be above sigma_min, {sigma_min:g}")
    scale = math.sqrt(2 * COUNT("dimension", dimension))

    def excess(ratio: float) -> float:
        centre, width = scale * (ratio - 1), 3 * ratio
        return NormalDist().cdf(centre + width) - NormalDist().cdf(centre - width) - 0.5

    if scale <= 3:
        raise HDZooError(
            f"technique 2 has no solution in dimension {dimension}: noise shells overlap by more "
            "than a half at every ratio; choose num_levels yourself"
        )
    from scipy.optimize import brentq

    # Where centre - width = 1 the overlap is at most 1 - Phi(1) = 0.16; at ratio 1 it is 0.997.
    ratio = brentq(excess, 1.0, (scale + 1) / (scale - 3))
    return max(2, round(math.log(sigma_max / sigma_min) / math.log(ratio)) + 1)


def ncsnv2_step_size(sigmas: Sequence[float], steps_per_level: int) -> float:
    r"""Technique 4 of NCSNv2: the step size at which a level hands on exactly its own noise.

    With ``gamma`` the ladder's ratio and ``eta`` the step in units of ``sigma_L^2``, the variance
    after the ``T`` steps of a level, over that of the level, is

    .. math:: (1 - \eta)^{2T} \left(\gamma^2 - \frac{2\eta}{1 - (1 - \eta)^2}\right)
        + \frac{2\eta}{1 - (1 - \eta)^2}

    and ``eta`` is chosen so that this is as near to 1 as it gets.

    Source: Song and Ermon (arXiv 2006.09011), section 3.4, equation 6.

    Args:
        sigmas: descending noise levels, at least 2; the mean ratio is taken.
        steps_per_level: ``T``, at least 1.

    Returns:
        ``step_size``, that is ``alpha`` at the last level.
    """
    steps_per_level = EVALUATIONS("steps_per_level", steps_per_level)
    if len(sigmas) < 2:
        raise HDZooError("technique 4 compares neighbouring levels; give at least 2")
    ratio = (sigmas[0] / sigmas[-1]) ** (1 / (len(sigmas) - 1))

    def slope(eta: float) -> float:
        floor = 2 / (2 - eta)
        return (1 - (1 - eta) ** (2 * steps_per_level)) * floor**2 / 2 - (
            2 * steps_per_level * (1 - eta) ** (2 * steps_per_level - 1) * (ratio**2 - floor)
        )

    from scipy.optimize import brentq

    # A weighted mean of gamma^2 and of the floor, both above 1: so nearest to 1 is the minimum,
    # which is flat, so that only its slope tells where it is.
    return float(brentq(slope, 0.0, 1.0, xtol=1e-15)) * sigmas[-1] ** 2


def whole_number(number: Any, name: str) -> int:
    """A number of network evaluations, as an int.

    Raises:
        HDZooError: it is no whole number, below 1, or more than a chain may have.
    """
    return EVALUATIONS(name, number)
