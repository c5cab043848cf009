"""The laws on Gaussian data, from the papers' formulas and apart from the chains."""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from hdzoo.samplers.gaussian import GaussianLaw, published_level, trained_at
from hdzoo_multimeasurement.inner import inner_walk


def joint_law(
    config: Mapping[str, Any], num_inference_steps: int, start: GaussianLaw
) -> GaussianLaw | None:
    r"""The law of joint multimeasurement sampling.

    The mean of the measurements moves on its own. Times the root of ``m``, it is measured with the
    noise :math:`\sigma` and walks as one coordinate does on data of ``m`` times the variance.

    Args:
        config: of the sampler.
        num_inference_steps: network evaluations.
        start: the data, and the law of the first mean.

    Returns:
        None where the walk declares no law.
    """
    m, steps = config["num_measurements"], num_inference_steps - 1
    level = published_level({**config, "sigma": config["sigma"] / math.sqrt(m)})
    root, data_variance = math.sqrt(m), m * start.data_variance
    mean, data_mean = root * start.mean, root * start.data_mean
    law = walked_law(
        config, root * level, steps, GaussianLaw(data_mean, data_variance, mean, m * start.variance)
    )
    if law is None:
        return None
    ended = start._replace(mean=law.mean / root, variance=law.variance / m)
    return ended.gradient(level**2, level)


def sequential_law(
    config: Mapping[str, Any], num_inference_steps: int, start: GaussianLaw
) -> GaussianLaw | None:
    """The law of sequential multimeasurement sampling.

    Given the past, a measurement is one of the data that are left, and its walk begins at their
    mean; so what it ends with is that mean and independent noise.

    Args:
        config: of the sampler.
        num_inference_steps: network evaluations, shared evenly; the later measurements have the
            rest.
        start: the data, and the law of the first measurement.

    Returns:
        None where the walk declares no law.
    """
    m, steps = config["num_measurements"], num_inference_steps
    levels = trained_at(config, config["sigma"] / np.sqrt(np.arange(1, m + 1)))
    law = walked_law(config, levels[0], steps // m - 1, start)
    for t, (before, level) in enumerate(pairwise(levels), 1):
        sigma = 1 / np.sqrt(level**-2 - before**-2)
        # Of the data given the past: how much the mean moves them, and the variance that is left.
        moved = start.data_variance / start.total(before)
        left, zero = moved * before**2, 0 * moved
        given = GaussianLaw(zero, left, zero, sigma**2 + zero)
        drawn, share = walked_law(config, sigma, (steps + t) // m - 1, given), (level / sigma) ** 2
        if law is None or drawn is None:
            return None
        law = law.contract(1 - share + share * moved).noise(share**2 * drawn.variance)
    return None if law is None else law.gradient(levels[-1] ** 2, levels[-1])


def walked_law(
    config: Mapping[str, Any], sigma: float, steps: int, start: GaussianLaw
) -> GaussianLaw | None:
    """The law that a walk of so many steps at a noise level ends with; None where it says none."""
    law: GaussianLaw | None = start
    if steps:
        law = inner_walk(config, float(sigma), steps).closed_form(start)
    return law
