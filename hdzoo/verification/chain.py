"""The chain of a small sampler on a network whose score is smooth."""

import math
from typing import Any, NamedTuple

import torch

from hdzoo.scores.conversions import score_weights
from hdzoo.verification.checks import CheckFailed, during, same_bits
from hdzoo.verification.small import Watched, watched

# What networks may give beside their prediction, of those that a sampler asks for.
EXTRAS = ("energy", "variance")


class Step(NamedTuple):
    """One step of a chain: what it was given, and the state after it."""

    timestep: torch.Tensor
    output: torch.Tensor
    state: torch.Tensor
    after: torch.Tensor


def on_signs(sampler: Any) -> bool:
    """Whether the states of a sampler, of its class or of one that is watched are signs."""
    return getattr(_plain(sampler), "state_space", "real") == "signs"


def first_state(sampler: Any, *shape: int, seed: int = 99) -> torch.Tensor:
    """A state for a sampler or its class to start from."""
    state = 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return torch.where(state < 0, -1.0, 1.0) if on_signs(sampler) else state


def sigma_of(sampler: Any, timestep: Any) -> float:
    """The noise level that a timestep stands for, by the option ``timestep_type``."""
    log = sampler.config.get("timestep_type", "sigma") == "log_sigma"
    return math.exp(4 * float(timestep)) if log else float(timestep)


def network(sampler: Any, x: torch.Tensor, timestep: Any) -> torch.Tensor:
    """A smooth score near that of a normal law, as the sampler's options say networks predict it;
    for signs, that of signs which are mostly 1.

    It works on each number alone, so that a sample gets the same bits in any batch.
    """
    sigma, sigma_data = sigma_of(sampler, timestep), sampler.config.get("sigma_data")
    prediction_type = sampler.config.get("prediction_type", "score")
    if sigma_data is None:
        a, b = score_weights(prediction_type, sigma)
    else:
        total = sigma**2 + sigma_data**2
        sign = -1 if prediction_type == "v_prediction" else 1
        a, b = sign * sigma_data / (sigma * math.sqrt(total)), -1 / total
    if on_signs(sampler):
        score = ((0.4 + x / sigma**2).tanh() - x) / sigma**2
    else:
        score = (1 - x) / (0.5 + sigma**2) + 0.01 * x * x / (1 + sigma**4)
    return (score - b * x) / a


def beside(sampler: Any, x: torch.Tensor, timestep: Any) -> dict[str, torch.Tensor]:
    """What a network with the score of `network` gives beside its prediction, of what the sampler
    asks for, in float32 or better."""
    plain = _plain(sampler)
    asked = {*getattr(plain, "needs", ()), *getattr(plain, "uses", ())}
    unknown = sorted(asked - set(EXTRAS))
    if unknown:
        raise CheckFailed(
            f"{type(plain).__name__} asks for the network's {unknown[0]!r} (needs, uses); networks "
            f"give {', '.join(EXTRAS)}"
        )
    if not asked:
        return {}
    sigma, wide = sigma_of(sampler, timestep), x.double()
    if on_signs(sampler):
        mean = (0.4 + wide / sigma**2).tanh()
        energy = -(0.4 + wide / sigma**2).cosh().log() + wide**2 / (2 * sigma**2)
        variance = 1 - mean**2
    else:
        # Of which the score is the gradient, down.
        energy = (wide**2 / 2 - wide) / (0.5 + sigma**2) - 0.01 / 3 * wide**3 / (1 + sigma**4)
        variance = torch.full_like(wide, 0.5 * sigma**2 / (0.5 + sigma**2))
    dtype = torch.promote_types(x.dtype, torch.float32)
    given = {"energy": energy.contiguous().flatten(1).sum(1), "variance": variance}
    return {name: given[name].to(dtype) for name in EXTRAS if name in asked}


def run(
    sampler: Any, state: torch.Tensor, generator: Any = None, start: int = 0, at: Any = None
) -> list[Step]:
    """The steps of a chain on `network`, from ``timesteps[start]`` on.

    Args:
        sampler: set to a number of network evaluations.
        state: the first.
        generator: one, or one for each sample.
        start: where the chain begins.
        at: what the first step is given as its timestep, instead of the element of ``timesteps``.
    """
    steps = []
    for i, t in enumerate(sampler.timesteps[start:], start):
        output = network(sampler, state, t)
        given = at if i == start and at is not None else t
        with during(f"at step {i} of {len(sampler.timesteps)}"):
            after = next_state(sampler, given, output, state, generator)
            if on_signs(sampler):
                _check_signs(after, last=i == len(sampler.timesteps) - 1)
        steps.append(Step(t, output, state, after))
        state = after
    return steps


def _check_signs(state: torch.Tensor, last: bool) -> None:
    if last and not (state.abs() == 1).all():
        raise CheckFailed("the state is in {-1, 1}^d (state_space), and no longer there")
    # On the way it may be a mean of several.
    if not (state.abs() <= 1).all():
        raise CheckFailed("the state is in [-1, 1]^d (state_space), and no longer there")


def next_state(
    sampler: Any,
    timestep: Any,
    output: torch.Tensor,
    state: torch.Tensor,
    generator: Any = None,
) -> torch.Tensor:
    """The state after a step, which is given copies, so that none that writes to them does harm."""
    after: torch.Tensor = sampler.step(
        output.clone(),
        timestep,
        state.clone(),
        generator=generator,
        **beside(sampler, state, timestep),
    ).prev_sample
    return after


def seeded(*seeds: int) -> list[torch.Generator]:
    """One generator for each seed."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def same_chains(found: list[Step], expected: list[Step], what: str) -> None:
    """`same_bits` for the state after every step."""
    if len(found) != len(expected):
        raise CheckFailed(f"{what} have {len(found)} and {len(expected)} steps")
    for i, (one, other) in enumerate(zip(found, expected, strict=True), start=1):
        same_bits(one.after, other.after, f"{what}, after step {i} of {len(found)},")


def remembers(sampler_class: type[Any], whole: list[Step], k: int) -> bool:
    """Whether step ``k`` of a chain depends on more than the state that it is given.

    Args:
        sampler_class: of the chain.
        whole: the chain, of one generator with the seed 0.
        k: the number of the step.
    """
    shape = whole[0].state.shape
    # A step that is accepted hides where it came from, one from the mode of `network` is not.
    others = (None, first_state(sampler_class, *shape, seed=k), torch.ones(shape))
    afters = []
    for seed, other in enumerate(others):
        sampler, (generator,) = watched(sampler_class, len(whole)), seeded(seed)
        for step in whole[:k]:
            state = step.state if other is None else other
            output = network(sampler, state, step.timestep)
            next_state(sampler, step.timestep, output, state, generator)
        afters.append(_step_again(sampler, whole[k]))
    return not all(torch.equal(after, afters[0]) for after in afters)


def _step_again(sampler: Any, step: Step) -> torch.Tensor:
    return next_state(sampler, step.timestep, step.output, step.state, seeded(5)[0])


def _plain(sampler: Any) -> Any:
    return sampler.sampler if isinstance(sampler, Watched) else sampler
