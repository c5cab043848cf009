"""Whether a sampler arrives at what it says that it converges to."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hdzoo.verification.chain import on_signs
from hdzoo.verification.checks import CheckFailed, Finding, NotApplicable, on_options
from hdzoo.verification.configurations import configuration
from hdzoo.verification.draws import NotAffineError
from hdzoo.verification.laws import Gaussian, declared_law, exact_law
from hdzoo.verification.monte_carlo import check_declared
from hdzoo.verification.signs_limit import check_limit_on_signs
from hdzoo.verification.small import Watched, fewest, option_names
from hdzoo.verification.stepwise import stepwise_law

LAWS = ("data", "noisy data")
KNOBS = ("num_inference_steps", "step_size", "sigma", "sigma_min")
# Of the variance of what it converges to, and of its standard deviation for the mean: what may be
# left in the limit. Discretisation leaves a series in the knob, of which extrapolation leaves the
# square of its last, small term.
TOLERANCE = 5e-3
# A sampler that comes as the square root of the knob is at a third after three halvings and a bit.
FRACTION = 1 / 3
FEWEST_SETTINGS, MOST_SETTINGS = 4, 7
FEWEST_EVALUATIONS, MOST_EVALUATIONS = 16, 8192
# What doubling the evaluations may change where they are as many as it takes; or, where it changes
# ten times that, what it may change of what extrapolation makes of them.
SETTLED = 1.5e-3
SETTLED_AHEAD = SETTLED / 5
# The first of noise levels that go to 0, in standard deviations of the data: errors are a series in
# it from here on.
NEAR = 0.75


def check_limit(sampler_class: type[Any]) -> Finding:
    """Follows the exact law along the knob that a sampler declares (`Sampler.limit`).

    On Gaussian data, one direction of which is singular. The knob is halved at least three times,
    each time with as many evaluations as it takes, or as extrapolation takes; or it is their
    number, which is doubled. What is left of the error, by extrapolation of the mean and the
    covariance along the sequence (Aitken's) may be 0.5 % of the variance, and the last error a
    third of the largest. So an error that stays
    is found, and a slow one is none. Chains start from the noisy data at their first level, and
    walks at one level from elsewhere.

    Of a sampler that is not affine, the closed form is followed, if its samples have that law. Of
    one on signs, samples are followed (`hdzoo.verification.signs_limit`).
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
    if on_signs(sampler_class):
        return check_limit_on_signs(sampler_class, law, knob)
    path, gaps = Path(sampler_class, law, knob), list[np.ndarray]()
    for gap in path.gaps():
        gaps.append(gap)
        if len(gaps) >= FEWEST_SETTINGS and (arrives(gaps) or stays(gaps)):
            break
    rest, errors = remainder(gaps), [float(np.linalg.norm(gap)) for gap in gaps]
    said = ", ".join(f"{v:g}: {e:.2g}" for v, e in zip(path.values, errors, strict=True))
    if not arrives(gaps):
        raise CheckFailed(
            f"it does not converge to the {law} along {knob}: the relative error of the exact law "
            f"goes {said}, and in the limit to {rest:.2g} (at most {TOLERANCE:g})"
        )
    return Finding(
        f"to the {law} along {knob}: relative error {said}, in the limit {rest:.1g}",
        {
            "summary": f"{law}, {rest:.0e}",
            "law": law,
            "knob": knob,
            "relative_errors": dict(zip(path.values, errors, strict=True)),
            "rest": rest,
        },
    )


def ahead(gaps: Sequence[np.ndarray]) -> np.ndarray:
    """Where a sequence leads, by Aitken's extrapolation along its last step.

    Args:
        gaps: at least 3 vectors.
    """
    before, last = gaps[-2] - gaps[-3], gaps[-1] - gaps[-2]
    size = float(before @ before)
    ratio = float(last @ before) / size if size > 0 else 0.0
    # Steps that do not shrink lead nowhere.
    ratio = min(max(ratio, 0.0), 0.9)
    return np.asarray(gaps[-1] + last * ratio / (1 - ratio))


def remainder(gaps: Sequence[np.ndarray]) -> float:
    """What is left at the end of a sequence of at least 3 vectors that go to 0, or do not."""
    return float(np.linalg.norm(ahead(gaps)))


def arrives(gaps: Sequence[np.ndarray]) -> bool:
    """Whether a sequence goes to 0, as far as one can see."""
    errors = [float(np.linalg.norm(gap)) for gap in gaps]
    near = max(TOLERANCE, FRACTION * max(errors))
    return errors[-1] <= near and remainder(gaps) <= TOLERANCE


def stays(gaps: Sequence[np.ndarray]) -> bool:
    """Whether what is left of a sequence of at least 4 vectors no longer falls."""
    return remainder(gaps) > 0.8 * remainder(gaps[:-1])


@dataclass
class Path:
    """A sampler along one of its options.

    Attributes:
        sampler_class: a scheduler.
        law: one of `LAWS`.
        knob: one of `KNOBS`.
        values: of the option, as far as it has been followed.
    """

    sampler_class: type[Any]
    law: str
    knob: str
    values: list[float] = field(default_factory=list)
    _closed_form_holds: bool = False

    def gaps(self) -> Iterator[np.ndarray]:
        """Mean and covariance less those of the limit, in its units, at each value."""
        known, on_level = option_names(self.sampler_class), self.knob in ("sigma", "sigma_min")
        # Data of standard deviation 1, that of the last level; or one that has come near to them.
        ladder = {"sigma": 1.0, "sigma_min": 1.0, "sigma_max": 8.0, "num_levels": 2}
        options = {key: value for key, value in ladder.items() if key in known}
        first, size = NEAR if on_level else 1.0, 1.0
        if self._refuses(options):
            # The sampler's own levels, and data of that size.
            options, first = {}, float(self.sampler_class().sigmas[-2])
            size = first / NEAR if on_level else first
        target = Gaussian.of([size, -size], [size**2, 0.0])
        steps = 0
        for halvings in range(MOST_SETTINGS):
            value = first / 2**halvings * (0.4 * first if self.knob == "step_size" else 1.0)
            if self.knob != "num_inference_steps":
                options = options | {self.knob: value}
            with on_options(options):
                sampler = self.sampler_class(**options)
            steps = steps or max(FEWEST_EVALUATIONS, fewest(Watched(sampler)))
            if self.knob == "num_inference_steps":
                gap = self._gap(sampler, target, steps * 2**halvings)
                value = steps * 2**halvings
            else:
                gap, steps = self._settled(sampler, target, steps)
            self.values.append(value)
            yield gap

    def _refuses(self, options: dict[str, Any]) -> bool:
        try:
            self.sampler_class(**options)
        except ValueError:
            return True
        return False

    def _settled(self, sampler: Any, target: Gaussian, steps: int) -> tuple[np.ndarray, int]:
        """The gap with as many evaluations as it takes, and a number to begin with at the next."""
        gaps = [self._gap(sampler, target, steps)]
        while 2 * steps <= MOST_EVALUATIONS:
            gaps.append(self._gap(sampler, target, 2 * steps))
            change = np.linalg.norm(gaps[-1] - gaps[-2])
            if change <= SETTLED:
                break
            if len(gaps) >= 4 and change <= 10 * SETTLED:
                end = ahead(gaps)
                if np.linalg.norm(end - ahead(gaps[:-1])) <= SETTLED_AHEAD:
                    return end, steps // 4
            steps *= 2
        return gaps[-1], steps

    def _gap(self, sampler: Any, target: Gaussian, steps: int) -> np.ndarray:
        with on_options(configuration(sampler) | {"num_inference_steps": steps}):
            sampler.set_timesteps(steps)
            law = self._law(sampler, target)
            limit = target if self.law == "data" else target.noisy(float(sampler.sigmas[-2]))
        scale = np.sqrt(np.trace(limit.covariance))
        wide = (law.covariance - limit.covariance).ravel() / scale**2
        return np.concatenate([(law.mean - limit.mean) / scale, wide])

    def _law(self, sampler: Any, target: Gaussian) -> Gaussian:
        """The law of the last state."""
        sigma = float(sampler.sigmas[0])
        start = target.noisy(sigma)
        if not getattr(sampler, "starts_from_noise", True):
            start = Gaussian(start.mean + sigma, 1.5 * start.covariance)
        try:
            return stepwise_law(sampler, target, start) or exact_law(sampler, target, start)
        except NotAffineError as reason:
            declared = declared_law(sampler, target, start)
            if declared is None:
                raise NotApplicable(f"{reason}; no law to follow is declared") from reason
            if not self._closed_form_holds:
                check_declared(self.sampler_class)
                self._closed_form_holds = True
            return declared
