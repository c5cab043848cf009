"""Whether a sampler on signs arrives at what it says that it converges to, by samples."""

from collections.abc import Iterator
from typing import Any

import torch

from hdzoo.samplers.noise import Noise
from hdzoo.verification.checks import CheckFailed, Finding, on_options
from hdzoo.verification.configurations import configuration
from hdzoo.verification.small import Watched, fewest, option_names
from hdzoo.verification.stationary import LEAST_P_VALUE, NUM_SAMPLES, Signs, walk

KNOBS = ("num_inference_steps", "step_size")
SIGMA = 1.0
# Signs are turned over at a rate of exp(-1 / alpha), and biased by about as much.
STEP_SIZES = (1.0, 1 / 2, 1 / 3, 1 / 4)
FEWEST_EVALUATIONS, MOST_EVALUATIONS = 16, 2048
# Of a total variation, what is luck: 20,000 samples of 16 points are about 0.01 off.
LUCK = 0.01


def check_limit_on_signs(sampler_class: type[Any], law: str, knob: str) -> Finding:
    """Runs 20,000 chains from random signs, on four independent signs, along the knob.

    Their number of evaluations is doubled, or with as many as it takes the step size is made
    smaller, down to 1/4. In the end the shares of the 16 points must be those of the clean or of
    the noisy signs, by a test of them all.

    Args:
        sampler_class: of samplers on signs.
        law: ``"data"`` or ``"noisy data"``.
        knob: one of `KNOBS`.
    """
    if knob not in KNOBS:
        raise CheckFailed(f"limit names the knob {knob}; on signs it is one of {', '.join(KNOBS)}")
    path = list(_path(sampler_class, law, knob))
    found = {value: distance for value, distance, _ in path}
    _, distance, p_value = path[-1]
    said = ", ".join(f"{value:.3g}: {distance:.2g}" for value, distance in found.items())
    if not p_value >= LEAST_P_VALUE:
        raise CheckFailed(
            f"it does not converge to the {law} along {knob}: the total variation goes {said}, and "
            f"the last has a p-value of {p_value:.1e} ({NUM_SAMPLES} chains)"
        )
    return Finding(
        f"to the {law} along {knob}: total variation {said} ({NUM_SAMPLES} chains, p-value "
        f"{p_value:.1g})",
        {
            "summary": f"{law}, {distance:.0e}",
            "law": law,
            "knob": knob,
            "total_variations": found,
            "p_value": p_value,
        },
    )


def _path(sampler_class: type[Any], law: str, knob: str) -> Iterator[tuple[float, float, float]]:
    """The value of the knob, the total variation and its p-value, as far as need be."""
    known = option_names(sampler_class)
    options = {"sigma": SIGMA} if "sigma" in known else {}
    steps = max(FEWEST_EVALUATIONS, fewest(Watched(sampler_class(**options))))
    if knob == "step_size":
        for step_size in STEP_SIZES:
            steps, distance, p_value = _settled(
                sampler_class, law, options | {"step_size": step_size}, steps
            )
            yield step_size, distance, p_value
        return
    while steps <= MOST_EVALUATIONS:
        distance, p_value = _ended(sampler_class, law, options, steps)
        yield steps, distance, p_value
        if p_value >= LEAST_P_VALUE:
            return
        steps *= 2


def _settled(
    sampler_class: type[Any], law: str, options: dict[str, Any], steps: int
) -> tuple[int, float, float]:
    """With as many evaluations as it takes: half of their number, distance and p-value."""
    distance, p_value = _ended(sampler_class, law, options, steps)
    while 2 * steps <= MOST_EVALUATIONS:
        before = distance
        distance, p_value = _ended(sampler_class, law, options, 2 * steps)
        if abs(distance - before) <= LUCK:
            break
        steps *= 2
    return steps, distance, p_value


def _ended(
    sampler_class: type[Any], law: str, options: dict[str, Any], steps: int
) -> tuple[float, float]:
    with on_options(options | {"num_inference_steps": steps}):
        sampler = sampler_class(**options)
        sampler.set_timesteps(steps)
    with on_options(configuration(sampler)):
        generator = torch.Generator().manual_seed(0)
        data = Signs(0.0 if law == "data" else float(sampler.sigmas[0]))
        start = sampler.first_state((NUM_SAMPLES, 4), Noise(generator, dtype=torch.float64))
        end = walk(sampler, data, start, generator)
        ((_, p_value),) = data.p_values(end)
        return data.distance(end), p_value
