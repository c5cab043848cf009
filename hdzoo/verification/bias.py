"""How far a sampler ends from Gaussian data, exactly, against cost, step size and noise level."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hdzoo.distances.wasserstein import gaussian_wasserstein2
from hdzoo.errors import HDZooError
from hdzoo.verification.checks import CheckFailed, Finding, NotApplicable, on_options
from hdzoo.verification.draws import NotAffineError
from hdzoo.verification.laws import Gaussian, exact_law
from hdzoo.verification.small import option_names

# Like an image's directions: broad, narrow, and one in which the data do not vary at all. The mean
# is where chains start.
IMAGE_LIKE = Gaussian.of([0.0, 0.0, 0.0], [0.25**2, 0.05**2, 0.0])
BUDGETS = (10, 20, 50, 100, 200)
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
# Where the step size and the noise level are varied.
BUDGET = 100


def bias(sampler: Any, target: Gaussian = IMAGE_LIKE) -> float:
    """The exact Wasserstein-2 distance of a sampler's output to Gaussian data.

    Args:
        sampler: a scheduler whose chain is fixed (`set_timesteps`).
        target: the law of the data.

    Raises:
        NotAffineError: the sampler's update is not affine.
    """
    law = exact_law(sampler, target)
    return gaussian_wasserstein2(*law, *target)


def bias_curves(
    sampler_class: type[Any],
    target: Gaussian = IMAGE_LIKE,
    *,
    options: Mapping[str, Any] | None = None,
    budget: int = BUDGET,
    on_value: Callable[[str, float, float], None] | None = None,
) -> dict[str, dict[float, float]]:
    """The bias against the number of network evaluations, the step size, and the noise level.

    Settings that the sampler refuses are left out.

    Args:
        sampler_class: a scheduler.
        target: the law of the data.
        options: of the sampler, over its defaults; the one that varies is varied all the same.
        budget: network evaluations where the step size and the noise level are varied.
        on_value: called with each option, value and distance as it is found.

    Returns:
        For each of ``num_inference_steps``, ``step_size`` and ``sigma_min`` (``sigma`` for a
        sampler at a single level) that the sampler has: from the option's value to the distance.

    Raises:
        NotAffineError: the sampler's update is not affine.
    """
    known = option_names(sampler_class)
    common = dict(options or {})
    default = sampler_class(**common)
    level = "sigma" if "sigma" in known else "sigma_min"
    sigma = default.config.get(level)
    curves: dict[str, dict[float, float]] = {"num_inference_steps": {}}
    settings: list[tuple[str, float, int, dict[str, float]]] = [
        ("num_inference_steps", steps, steps, {}) for steps in BUDGETS
    ]
    if "step_size" in known and sigma is not None:
        settings += [
            ("step_size", value, budget, {"step_size": value})
            for value in (0.2 * sigma**2 * np.array(FACTORS)).tolist()
        ]
    if level in known and sigma is not None:
        settings += [
            (level, value, budget, {level: value}) for value in (sigma * np.array(FACTORS)).tolist()
        ]
    for option, value, steps, own in settings:
        try:
            sampler = sampler_class(**common | own)
            sampler.set_timesteps(steps)
        except HDZooError:
            continue
        try:
            found = bias(sampler, target)
        except NotAffineError:
            raise
        except Exception as error:
            with on_options(common | own | {"num_inference_steps": steps}):
                raise error
        curves.setdefault(option, {})[value] = found
        if on_value is not None:
            on_value(option, value, found)
    return curves


def check_bias(sampler_class: type[Any]) -> Finding:
    """Finds the exact distance to Gaussian data against cost, step size and noise level."""
    try:
        curves = bias_curves(sampler_class)
    except NotAffineError as reason:
        raise NotApplicable(str(reason)) from reason
    values = [value for curve in curves.values() for value in curve.values()]
    if not values:
        raise NotApplicable("the sampler refuses every number of network evaluations tried")
    if not np.isfinite(values).all():
        raise CheckFailed(f"the chain diverges on Gaussian data: {curves}")
    budget, last = list(curves["num_inference_steps"].items())[-1]
    return Finding(
        f"W2 {last:.2g} at {budget:g} NFE",
        {"summary": f"{last:.2g} ({budget:g})", "wasserstein2": curves},
    )
