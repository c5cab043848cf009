"""Noise ladders and step-size rules, as pure functions.

A ladder descends: its first level is the largest. A step size is ``alpha`` in the Langevin step
``x + alpha * score + sqrt(2 alpha) z``; ``eta = alpha / sigma^2`` is the same without units.
"""

import math
import operator
from collections.abc import Sequence
from itertools import pairwise
from statistics import NormalDist
from typing import Any

import torch

from hdzoo.errors import HDZooError


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
    if num_levels < 1:
        raise HDZooError(f"num_levels is {num_levels}; a ladder has at least 1 level")
    if num_levels == 1:
        return check_ladder([sigma_min])
    if not (math.isfinite(sigma_max) and sigma_max > sigma_min > 0):
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
        HDZooError: it is empty, or a level is not finite and positive, or it does not descend.
    """
    ladder = [float(sigma) for sigma in sigmas]
    if not ladder:
        raise HDZooError("the ladder has no noise level; give at least one")
    for sigma in ladder:
        if not (math.isfinite(sigma) and sigma > 0):
            raise HDZooError(f"the ladder holds {sigma}; noise levels are finite and positive")
    for above, below in pairwise(ladder):
        if not above > below:
            raise HDZooError(
                f"the ladder goes from {above:g} to {below:g}; noise levels descend, the largest "
                "comes first"
            )
    return ladder


def refine_ladder(sigmas: Sequence[float], num_levels: int) -> list[float]:
    """Puts ``num_levels`` levels on a ladder's curve, by linear interpolation of ``log sigma``.

    A geometric ladder becomes the geometric ladder with the same ends, as consistent annealed
    sampling asks for (Jolicoeur-Martineau et al., arXiv 2009.05475, section 3.2).

    Args:
        sigmas: descending noise levels.
        num_levels: how many to return.

    Returns:
        ``num_levels`` descending noise levels with the same ends (the last one alone for 1).

    Raises:
        HDZooError: ``num_levels`` is below 1, or above 1 when the ladder has a single level.
    """
    ladder = check_ladder(sigmas)
    if num_levels == len(ladder):
        return ladder
    if num_levels < 1 or len(ladder) == 1:
        raise HDZooError(
            f"a ladder of {len(ladder)} level(s) cannot be resampled to {num_levels}; give a "
            "ladder with at least 2 levels and ask for at least 1"
        )
    if num_levels == 1:
        return ladder[-1:]
    logs = [math.log(sigma) for sigma in ladder]
    refined = [ladder[0]]
    for i in range(1, num_levels - 1):
        position = i * (len(ladder) - 1) / (num_levels - 1)
        rung = min(int(position), len(ladder) - 2)
        refined.append(math.exp(logs[rung] + (position - rung) * (logs[rung + 1] - logs[rung])))
    return [*refined, ladder[-1]]


def share_steps(num_steps: int, num_levels: int) -> list[int]:
    """Shares steps among the rungs; where it does not divide, the smaller noise gets more.

    Args:
        num_steps: steps in all, at least ``num_levels``.
        num_levels: rungs.

    Returns:
        The number of steps on each rung, largest noise level first.
    """
    each, rest = divmod(num_steps, num_levels)
    return [each + (rung >= num_levels - rest) for rung in range(num_levels)]


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
    return [step_size * (sigma / sigmas[-1]) ** 2 for sigma in sigmas]


def ncsnv2_sigma_max(samples: torch.Tensor, chunk_size: int = 1024) -> float:
    """Technique 1 of NCSNv2: the largest Euclidean distance between two data points.

    Source: Song and Ermon (arXiv 2006.09011), section 3.1.

    Args:
        samples: data, shape (n, ...), n at least 2.
        chunk_size: rows of the distance matrix to hold at once.

    Returns:
        The first noise level of the ladder, in the data's units.
    """
    points = samples.flatten(1)
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
    scale = math.sqrt(2 * dimension)

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
    if len(sigmas) < 2:
        raise HDZooError("technique 4 compares neighbouring levels; give at least 2")
    ratio = (sigmas[0] / sigmas[-1]) ** (1 / (len(sigmas) - 1))

    def variance(eta: float) -> float:
        floor = 2 * eta / (1 - (1 - eta) ** 2)
        return (1 - eta) ** (2 * steps_per_level) * (ratio**2 - floor) + floor

    from scipy.optimize import minimize_scalar

    # A weighted mean of gamma^2 and of the floor, both above 1: so nearest to 1 is the minimum.
    best = minimize_scalar(variance, bounds=(0.0, 1.0), method="bounded", options={"xatol": 1e-9})
    return float(best.x) * sigmas[-1] ** 2


def whole_number(number: Any, name: str) -> int:
    """A number of things of which there is at least one, as an int.

    Raises:
        HDZooError: it is no whole number, or below 1.
    """
    try:
        count = operator.index(number)
    except TypeError:
        count = 0
    if count < 1 or isinstance(number, bool):
        raise HDZooError(f"{name} is {number!r}; at least 1, and a whole number")
    return count
