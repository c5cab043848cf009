"""The number of evaluations, where the chain begins, and schedules of one's own."""

from typing import Any

import numpy as np
import torch

from hdzoo.verification.chain import (
    Step,
    beside,
    first_state,
    next_state,
    remembers,
    run,
    same_chains,
    seeded,
    sigma_of,
)
from hdzoo.verification.checks import CheckFailed, during, must_refuse, same_bits
from hdzoo.verification.small import Watched, fewest, watched


def evaluations(sampler_class: type[Any]) -> str:
    """``num_inference_steps`` is the number of network evaluations, exactly.

    After ``set_timesteps(n)`` it is n, and so are the length of ``timesteps`` and that of the
    sampler, for every n from the sampler's fewest on. ``sigmas`` has the noise level of each
    evaluation, never ascending, and 0 at the end; the first is ``init_noise_sigma``. Fewer
    evaluations than that are refused, and a step after the last as well. Without a number, the
    sampler takes its own, which a new instance has already.
    """
    sampler = watched(sampler_class)
    own = sampler.num_inference_steps
    sampler.set_timesteps()
    if own is None or not own == sampler.num_inference_steps == len(sampler.timesteps) >= 1:
        raise CheckFailed(
            f"a new instance has num_inference_steps {own}, and after set_timesteps() it is "
            f"{sampler.num_inference_steps} with {len(sampler.timesteps)} timesteps; all three "
            "must be the sampler's own number (end __init__ with self.set_timesteps())"
        )
    least = fewest(sampler)
    numbers = sorted({*range(least, least + 9), *(n for n in (23, 60) if n > least)})
    for n in numbers:
        sampler.set_timesteps(n)
        with during(f"after set_timesteps({n})"):
            _check_lengths(sampler, n)
            _check_levels(sampler)
        with during(f"in a chain of {n} steps"):
            last = run(sampler, first_state(sampler_class, 2, 3), seeded(0)[0])[-1]
            if not last.after.isfinite().all():
                raise CheckFailed("the state is not finite in the end, on a smooth score")
        must_refuse(
            f"the chain of {n} steps has ended",
            f"step number {n + 1}",
            Exception,
            sampler.step,
            *(last.output, last.timestep, last.after),
            **beside(sampler, last.after, last.timestep),
        )
    for n in (0, -1):
        must_refuse(
            f"the fewest is {least}", f"set_timesteps({n})", ValueError, sampler.set_timesteps, n
        )
    return f"exact for {', '.join(map(str, numbers))} evaluations; 0 and -1 are refused"


def _check_lengths(sampler: Watched, n: int) -> None:
    for name in ("timesteps", "sigmas"):
        value = getattr(sampler, name)
        if not isinstance(value, torch.Tensor) or value.ndim != 1:
            raise CheckFailed(f"{name} is {value!r}; it must be a tensor of one axis")
    for what, found in (
        ("len(timesteps)", len(sampler.timesteps)),
        ("num_inference_steps", sampler.num_inference_steps),
        ("len() of the sampler", len(sampler)),
        ("len(sigmas) - 1", len(sampler.sigmas) - 1),
    ):
        if found != n:
            raise CheckFailed(
                f"{what} is {found}; it must be {n}, the number of network evaluations"
            )
    if sampler.order != 1:
        raise CheckFailed(f"order is {sampler.order}; it must be 1: one evaluation for each step")


def _check_levels(sampler: Watched) -> None:
    *levels, end = [float(sigma) for sigma in sampler.sigmas]
    if end != 0:
        raise CheckFailed(f"sigmas ends in {end:g}; it must end in 0, where the samples are")
    if levels != sorted(levels, reverse=True):
        i = next(i for i in range(1, len(levels)) if levels[i] > levels[i - 1])
        raise CheckFailed(f"sigmas goes up, from {levels[i - 1]:g} to {levels[i]:g} at step {i}")
    for i, (t, sigma) in enumerate(zip(sampler.timesteps, levels, strict=True)):
        # Either may have been through float32.
        if not abs(sigma_of(sampler, t) - sigma) <= 1e-5 * sigma:
            raise CheckFailed(
                f"timesteps[{i}] is {float(t):g}, which stands for noise level "
                f"{sigma_of(sampler, t):g}, and sigmas[{i}] is {sigma:g}; the network must be told "
                "sigma, or log(sigma) / 4 with an option timestep_type='log_sigma'"
            )
    if not abs(float(sampler.init_noise_sigma) - levels[0]) <= 1e-5 * levels[0]:
        raise CheckFailed(
            f"init_noise_sigma is {float(sampler.init_noise_sigma):g}; it must be sigmas[0], "
            f"{levels[0]:g}, for the chain starts from noise of that size"
        )


def indexing(sampler_class: type[Any]) -> str:
    """The first step after ``set_timesteps`` is looked up; the others count on from there.

    A timestep that comes more than once means its first place. It may be a number or a tensor, and
    have been through float32. A timestep that the chain does not have is refused. After
    ``set_begin_index(k)`` the chain begins with step k, without a look-up; from the state that the
    whole chain has there, it goes on as the whole chain does, bit for bit (but for a step that
    depends on more than the state).
    """
    steps = fewest(watched(sampler_class)) + 8
    sampler = watched(sampler_class, steps)
    whole = run(sampler, first_state(sampler_class, 2, 3), seeded(0)[0])
    levels = sampler.timesteps.tolist()

    for t in dict.fromkeys(levels):
        k = levels.index(t)
        begun = watched(sampler_class, steps)
        begun.set_begin_index(k)
        expected = run(begun, first_state(sampler_class, 2, 3), seeded(0)[0], k)
        for given in (t, torch.tensor(t, dtype=torch.float64), torch.tensor(t)):
            with during(f"the chain begins at timestep {t:.9g}, at first timesteps[{k}]"):
                looked_up = watched(sampler_class, steps)
                found = run(looked_up, first_state(sampler_class, 2, 3), seeded(0)[0], k, at=given)
                same_chains(found, expected, f"this chain and one after set_begin_index({k})")

    absent = 1.5 * max(map(abs, levels)) + 0.123
    sampler.set_timesteps(steps)
    must_refuse(
        "the chain has no such timestep",
        f"a first step at timestep {absent:g}",
        Exception,
        sampler.step,
        *(whole[0].output, absent, whole[0].state),
        **beside(sampler, whole[0].state, whole[0].timestep),
    )
    taken_up = _check_resuming(sampler_class, whole)
    return f"{len(set(levels))} timesteps looked up, {taken_up} places to take up the chain"


def _check_resuming(sampler_class: type[Any], whole: list[Step]) -> int:
    """Takes up a chain wherever its step depends on the state alone; returns in how many places."""
    (generator,) = seeded(0)
    sampler = watched(sampler_class, len(whole))
    places = 0
    for k, step in enumerate(whole):
        rest = watched(sampler_class, len(whole))
        rest.set_begin_index(k)
        there = torch.Generator()
        there.set_state(generator.get_state())
        found = next_state(rest, step.timestep, step.output, step.state, there)
        if torch.equal(found, step.after) or not remembers(sampler_class, whole, k):
            places += 1
            same_bits(
                found,
                step.after,
                f"step {k} of the whole chain, and the same after set_begin_index({k}),",
            )
        next_state(sampler, step.timestep, step.output, step.state, generator)
    return places


def own_schedule(sampler_class: type[Any]) -> str:
    """``set_timesteps(sigmas=...)`` and ``(timesteps=...)`` fix the noise level of each evaluation.

    Given what the sampler itself has, they give the same chain. Another schedule is kept as it is,
    or refused. Two schedules at once, another number of steps beside one, and noise levels that
    ascend are refused.
    """
    steps = fewest(watched(sampler_class)) + 4
    sampler = watched(sampler_class, steps)
    levels, timesteps = sampler.sigmas[:-1].tolist(), sampler.timesteps.tolist()
    expected = run(sampler, first_state(sampler_class, 2, 3), seeded(0)[0])

    other = watched(sampler_class)
    other.set_timesteps(sigmas=levels)
    _check_kept(other, levels)
    found = run(other, first_state(sampler_class, 2, 3), seeded(0)[0])
    same_chains(found, expected, "the sampler's own chain and that of set_timesteps(sigmas=...)")
    other.set_timesteps(timesteps=timesteps)
    _check_kept(other, levels)
    found = run(other, first_state(sampler_class, 2, 3), seeded(0)[0])
    # A noise level may be rounded on its way through a timestep.
    if not torch.allclose(found[-1].after, expected[-1].after, rtol=1e-4, atol=1e-4):
        raise CheckFailed(
            "set_timesteps(timesteps=...) ends elsewhere than the sampler's own chain"
        )

    shorter = [0.9 * sigma for sigma in levels]
    try:
        other.set_timesteps(sigmas=shorter)
    except CheckFailed as failure:
        if not isinstance(failure.__cause__, ValueError):
            raise
    else:
        _check_kept(other, shorter)

    for why, arguments in (
        ("sigmas and timesteps are two schedules", {"sigmas": levels, "timesteps": timesteps}),
        (
            f"that is {steps} noise levels for {steps + 1} steps",
            {"num_inference_steps": steps + 1, "sigmas": levels},
        ),
        ("noise levels descend", {"sigmas": [levels[0], 2 * levels[0]]}),
    ):
        must_refuse(
            why,
            f"set_timesteps with {' and '.join(arguments)}",
            ValueError,
            other.set_timesteps,
            **arguments,
        )
    return f"{steps} noise levels given back and others; 3 wrong schedules refused"


def _check_kept(sampler: Watched, levels: list[float]) -> None:
    found = sampler.sigmas[:-1].tolist()
    if len(found) != len(levels) or not np.allclose(found, levels, rtol=1e-5, atol=0):
        raise CheckFailed(
            f"a schedule from {levels[0]:g} to {levels[-1]:g} in {len(levels)} steps is given, and "
            f"sigmas goes from {found[0]:g} to {found[-1]:g} in {len(found)}; it must be kept as "
            "it is, or refused"
        )
