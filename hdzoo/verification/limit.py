"""Whether a sampler arrives at what it says that it converges to."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from hdzoo.verification.checks import CheckFailed, Finding, NotApplicable, on_options
from hdzoo.verification.configurations import configuration
from hdzoo.verification.laws import Gaussian, NotAffineError, declared_law, exact_law
from hdzoo.verification.monte_carlo import check_monte_carlo
from hdzoo.verification.small import option_names

LAWS = ("data", "noisy data")
KNOBS = ("num_inference_steps", "step_size", "sigma", "sigma_min")
# Of the variance of what it converges to, and of its standard deviation for the mean: what may be
# left in the limit. Discretisation leaves a series in the knob, of which extrapolation leaves the
# square of its last, small term.
TOLERANCE = 2e-3
# A sampler that comes as the square root of the knob is at a third after three halvings and a bit.
FRACTION = 1 / 3
FEWEST_SETTINGS, MOST_SETTINGS = 4, 8
MOST_EVALUATIONS = 12_000
# Evaluations on a rung at the first setting: walks of step sizes from 0.2 sigma^2 on forget all but
# e^-8 of their start.
WALK = 40


class Setting(NamedTuple):
    """One value of a knob: the options, evaluations, and data and what is left of it there."""

    value: float
    sampler: Any
    target: Gaussian
    limit: Gaussian


def check_limit(sampler_class: type[Any]) -> Finding:
    """Follows the exact law along the knob that a sampler declares (`Sampler.limit`).

    On Gaussian data, one direction of which is singular, the knob is halved (numbers of evaluations
    are doubled), from 4 settings on. What is left of the error in the end, by extrapolation of the
    mean and the covariance along the sequence (Aitken's), may be 0.2 % of the variance; and the
    last error a third of the largest, or as little. So an error that stays is found, however slowly
    the others go, and no right sampler fails for being slow. Chains start from the noisy data at
    their first level, and walks at one level from elsewhere.
    """
    declared = getattr(sampler_class, "limit", None)
    if declared is None:
        raise NotApplicable("nothing is said of what it converges to (Sampler.limit)")
    law, knob = declared
    if law not in LAWS or knob not in KNOBS:
        raise CheckFailed(
            f"limit is {declared}; its law is one of {', '.join(LAWS)}, its knob one of "
            + ", ".join(KNOBS)
        )
    if knob != "num_inference_steps" and knob not in option_names(sampler_class):
        raise CheckFailed(f"limit names the option {knob}, which {sampler_class.__name__} has not")
    values: list[float] = []
    gaps: list[np.ndarray] = []
    for setting in _settings(sampler_class, law, knob):
        with on_options(configuration(setting.sampler)):
            gaps.append(_gap(setting))
        values.append(setting.value)
        if len(gaps) >= FEWEST_SETTINGS and _arrives(gaps):
            break
    rest, errors = _rest(gaps), [float(np.linalg.norm(gap)) for gap in gaps]
    path = ", ".join(f"{v:g}: {e:.2g}" for v, e in zip(values, errors, strict=True))
    if not _arrives(gaps):
        raise CheckFailed(
            f"it does not converge to the {law} along {knob}: the relative error of the exact law "
            f"goes {path}, and in the limit to {rest:.2g} (at most {TOLERANCE:g})"
        )
    return Finding(
        f"to the {law} along {knob}: relative error {path}, in the limit {rest:.1g}",
        {
            "summary": f"{law}, {rest:.0e}",
            "law": law,
            "knob": knob,
            "relative_errors": dict(zip(values, errors, strict=True)),
            "rest": rest,
        },
    )


def _settings(sampler_class: type[Any], law: str, knob: str) -> Iterator[Setting]:
    known, on_level = option_names(sampler_class), knob in ("sigma", "sigma_min")
    first = 2.0 if on_level else 1.0
    rungs = 3 if "num_levels" in known else 1
    # Data of standard deviation 1: at the last level's size, or half of it at first.
    ladder = {"sigma": 1.0, "sigma_min": 1.0, "sigma_max": 8.0, "num_levels": rungs}
    size = 1.0
    if _refuses(sampler_class, {key: ladder[key] for key in ladder if key in known}):
        # The sampler's own levels, and data of that size.
        level = float(sampler_class().sigmas[-2])
        ladder, first, size = {}, level, level / 2 if on_level else level
    for halvings in range(MOST_SETTINGS):
        options = {key: value for key, value in ladder.items() if key in known}
        value, steps = first * 0.5**halvings, rungs * WALK * 2.0**halvings
        if knob == "num_inference_steps":
            value = steps = 16 * 2**halvings
        elif knob == "step_size":
            value *= 0.4 * first
        else:
            # A walk takes the time of its slowest direction, in steps of the level's size.
            steps = rungs * WALK * (1 + (size / value) ** 2)
        if steps > MOST_EVALUATIONS:
            return
        if knob != "num_inference_steps":
            options[knob] = value
        with on_options(options):
            sampler = sampler_class(**options)
            sampler.set_timesteps(round(steps))
        target = Gaussian.of([size, -size], [size**2, 0.0])
        end = target if law == "data" else target.noisy(float(sampler.sigmas[-2]))
        yield Setting(value, sampler, target, end)


def _refuses(sampler_class: type[Any], options: dict[str, Any]) -> bool:
    try:
        sampler_class(**options)
    except ValueError:
        return True
    return False


def _gap(setting: Setting) -> np.ndarray:
    """Mean and covariance less those of the limit, in its units."""
    _, sampler, target, limit = setting
    sigma = float(sampler.sigmas[0])
    start = target.noisy(sigma)
    if not getattr(sampler, "starts_from_noise", True):
        start = Gaussian(start.mean + sigma, 1.5 * start.covariance)
    try:
        law = exact_law(sampler, target, start)
    except NotAffineError as reason:
        # Then the closed form is followed, if samples have the law that it says.
        declared = declared_law(sampler, target, start)
        if declared is None:
            raise NotApplicable(f"{reason}; there is none to follow") from reason
        try:
            check_monte_carlo(type(sampler))
        except CheckFailed as failure:
            raise NotApplicable(f"{reason}, nor that of its closed form") from failure
        law = declared
    scale = np.sqrt(np.trace(limit.covariance))
    return np.concatenate(
        [(law.mean - limit.mean) / scale, (law.covariance - limit.covariance).ravel() / scale**2]
    )


def _rest(gaps: list[np.ndarray]) -> float:
    """What is left at the end of the sequence, by Aitken's extrapolation along its last step."""
    before, last = gaps[-2] - gaps[-3], gaps[-1] - gaps[-2]
    size = float(before @ before)
    ratio = float(last @ before) / size if size > 0 else 0.0
    # Steps that do not shrink lead nowhere.
    ratio = min(max(ratio, 0.0), 0.9)
    return float(np.linalg.norm(gaps[-1] + last * ratio / (1 - ratio)))


def _arrives(gaps: list[np.ndarray]) -> bool:
    errors = [float(np.linalg.norm(gap)) for gap in gaps]
    near = max(TOLERANCE, FRACTION * max(errors))
    return errors[-1] <= near and _rest(gaps) <= TOLERANCE
