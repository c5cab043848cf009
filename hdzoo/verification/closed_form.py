"""A sampler's exact law against the closed form that it declares."""

from typing import Any

import numpy as np

from hdzoo.verification.checks import CheckFailed, Finding, NotApplicable, on_options
from hdzoo.verification.configurations import (
    check_told,
    configuration,
    random_sampler,
    random_target,
    takes_vp,
)
from hdzoo.verification.draws import NotAffineError
from hdzoo.verification.laws import (
    declared_law,
    deviation,
    exact_law,
    natural_start,
)

CONFIGURATIONS = 200
# Chains have up to 24 moves of a few roundings, 1e-16 each of the largest number met, which exceeds
# the last by up to 1e3 here: 1e-11.
LAW_TOLERANCE = 1e-10


def check_exact_law(sampler_class: type[Any]) -> Finding:
    """Compares the exact law with the closed form that the sampler declares, over random options.

    Random ladders, step sizes, numbers of evaluations, prediction types and Gaussian targets of
    dimension 3, some of them singular; the relative deviation may be 1e-10. As many for networks in
    VE coordinates as in VP, told the number of a noise level or the time. A sampler whose update is
    not affine has no exact law here.
    """
    rng = np.random.default_rng(0)
    kinds = {"VE": False, "VP": True} if takes_vp(sampler_class) else {"VE": False}
    worst = 0.0
    for _ in range(CONFIGURATIONS):
        for vp in kinds.values():
            worst = max(worst, _deviation(sampler_class, rng, vp))
    where = " and ".join(kinds)
    return Finding(
        f"{CONFIGURATIONS} configurations in {where}, largest relative deviation {worst:.1e}",
        {
            "summary": f"{worst:.0e}",
            "configurations": CONFIGURATIONS,
            "coordinates": list(kinds),
            "largest_relative_deviation": worst,
        },
    )


def _deviation(sampler_class: type[Any], rng: np.random.Generator, vp: bool) -> float:
    """The relative deviation with one random configuration."""
    sampler = random_sampler(sampler_class, rng, vp)
    target = random_target(rng)
    with on_options(configuration(sampler)):
        check_told(sampler)
        start = natural_start(sampler, target)
        if rng.random() < 0.5:
            start = start._replace(mean=rng.uniform(-2, 2, len(target.mean)))
        expected = declared_law(sampler, target, start)
        if expected is None:
            raise NotApplicable("no closed form is declared (Sampler.closed_form)")
        try:
            law = exact_law(sampler, target, start)
        except NotAffineError as reason:
            raise NotApplicable(str(reason)) from reason
        found = deviation(law, expected)
        if not found <= LAW_TOLERANCE:
            raise CheckFailed(
                "the law is not that of the declared closed form: a relative deviation of "
                f"{found:.2g} (at most {LAW_TOLERANCE:g})"
            )
    return found
