"""The walk of the measurements: any registered sampler that walks at one noise level."""

from collections.abc import Mapping
from copy import copy
from typing import Any

import torch

from hdzoo import HDZooError, get_sampler
from hdzoo.checks import POSITIVE, Maybe, Rule, Whole, refuse
from hdzoo.samplers.families import SingleLevelSampler
from hdzoo.samplers.noise import Noise
from hdzoo.samplers.options import SINGLE_LEVEL_RULES


def walk_options(name: str, value: Any) -> dict[str, Any]:
    """The rule of the walk's own options."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        refuse(name, value, "a dict of the walk's own options, such as {'friction': 0.5}")
    taken = sorted({"sigma", "step_size", "num_steps"} & set(value))
    if taken:
        raise HDZooError(f"{name} has {taken[0]!r}, which the sampler itself says; leave it out")
    return dict(value)


RULES: dict[str, Rule] = {
    **SINGLE_LEVEL_RULES,
    "num_measurements": Whole(1, 10_000),
    "walk_options": Maybe(walk_options),
}


def inner_walk(config: Mapping[str, Any], sigma: float, steps: int | None = None) -> Any:
    """The sampler that walks among the measurements.

    Args:
        config: with ``walk``, ``walk_options`` and ``step_size``.
        sigma: the noise level of a measurement.
        steps: of the walk; its own number by default.

    Raises:
        HDZooError: the walk is not registered, leads elsewhere than to the noisy data, refuses an
            option, or its step size is not below :math:`2 \\sigma^2`.
    """
    name, step_size = config["walk"], config["step_size"]
    walk = get_sampler(name)
    limit = getattr(walk, "limit", None)
    if not issubclass(walk, SingleLevelSampler) or limit is None or limit.law != "noisy data":
        raise HDZooError(
            f"walk is {name!r}, which is no walk on the noisy data at one noise level; take "
            "'langevin', 'averaged-noise-langevin', 'underdamped-langevin' or 'mala'"
        )
    if step_size is not None and not POSITIVE("step_size", step_size) < 2 * sigma**2:
        raise HDZooError(
            f"step_size is {step_size:g} and the noise of a measurement {sigma:g}; the walk "
            f"converges below 2 sigma^2 = {2 * sigma**2:g}"
        )
    options = config["walk_options"] or {}
    try:
        sampler = walk(sigma=sigma, step_size=step_size, **options)
    except TypeError as error:
        raise HDZooError(f"walk_options are not those of {name!r}: {error}") from error
    sampler.set_timesteps(steps)
    return sampler


def walked(
    walk: Any,
    k: int,
    points: torch.Tensor,
    score: torch.Tensor,
    noise: Noise,
    memory: dict[str, Any],
) -> tuple[torch.Tensor, dict[str, Any]]:
    """One step of a walk.

    Args:
        walk: from `inner_walk`.
        k: the number of the step, of those of the walk.
        points: where it is, shape (batch, ...).
        score: there.
        noise: what it draws from.
        memory: what it has kept.

    Returns:
        The next points, and what it keeps.
    """
    own = copy(walk)
    own.memory = memory
    return own.update(k, points, score, noise), own.memory
