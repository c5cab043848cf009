"""Noise: each sample has its own, and a seed says it all."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from hdzoo.verification.chain import (
    first_state,
    network,
    next_state,
    on_signs,
    remembers,
    run,
    same_chains,
    seeded,
)
from hdzoo.verification.checks import CheckFailed, during, must_refuse, same_bits
from hdzoo.verification.small import fewest, watched

# A multiple of what processors add at once, so that a number gets the same bits wherever in the
# batch it is.
_SHAPE = (2, 4, 8)


def generators(sampler_class: type[Any]) -> str:
    """A list of generators has one for each sample, and sample i depends on its own alone.

    It is the same, bit for bit, alone, among others, and in another order. A list of another length
    is refused by a step that adds noise. With a single generator, or none, each sample has noise
    of its own still.
    """
    steps = fewest(watched(sampler_class)) + 5
    x = first_state(sampler_class, 7, *_SHAPE)

    def draw(rows: list[int], generator: Any) -> torch.Tensor:
        return run(watched(sampler_class, steps), x[rows], generator)[-1].after

    everyone = list(range(7))
    together = draw(everyone, seeded(*everyone))
    for i in everyone:
        for generator in (seeded(i), seeded(i)[0]):
            same_bits(
                draw([i], generator)[0],
                together[i],
                f"sample {i} drawn alone and the same drawn among 7, each with its own generator,",
            )
    order = [3, 0, 6, 1, 5, 2, 4]
    for i, sample in zip(order, draw(order, seeded(*order)), strict=True):
        same_bits(sample, together[i], f"sample {i} and the same in another order of the batch")

    noisy = _check_noises_differ(sampler_class, steps)
    for wrong in (1, 6, 8) if noisy else ():
        must_refuse(
            "a list has one generator for each sample",
            f"a chain of 7 samples with a list of {wrong}",
            Exception,
            draw,
            *(everyone, seeded(*range(wrong))),
        )
    if not noisy:
        return "7 samples alone, together, reordered; no step adds noise"
    return f"7 samples alone, together, reordered; {noisy} of {steps} steps add noise"


def _check_noises_differ(sampler_class: type[Any], steps: int) -> int:
    """Equal samples part where a step adds noise; returns how many steps do."""
    noisy = 0
    whole = run(watched(sampler_class, steps), first_state(sampler_class, 1, *_SHAPE), seeded(0)[0])
    with _global_randomness_kept():
        for sources in (seeded(0, 1), (None, None)):
            # Of two chains from one state, noise makes two, and what else a step does none.
            pair = [watched(sampler_class, steps), watched(sampler_class, steps)]
            state = first_state(sampler_class, 1, *_SHAPE)
            for i, t in enumerate(pair[0].timesteps):
                equal = state.repeat(4, 1, 1, 1)
                after, other = (
                    next_state(sampler, t, network(sampler, equal, t), equal, source)
                    for sampler, source in zip(pair, sources, strict=True)
                )
                acts = not torch.equal(after, other)
                # Signs are seldom turned over at little noise, and what is remembered may come
                # back, different or not: then some of them may be equal by chance, never all.
                some = on_signs(sampler_class) or (acts and remembers(sampler_class, whole, i))
                kinds = max(torch.unique(x, dim=0).shape[0] for x in (after, other))
                if acts and kinds < (2 if some else 4):
                    raise CheckFailed(
                        f"step {i} adds the same noise to several samples of a batch with "
                        f"{'a single' if sources[0] else 'no'} generator; each must have its own, "
                        "of the whole state's shape"
                    )
                noisy += acts and sources[0] is not None
                state = after[:1]
    return noisy


def batch_independence(sampler_class: type[Any]) -> str:
    """A sample does not depend on the others in its batch, on their states or on their outputs.

    Whatever the others are, not finite even, sample i is the same bit for bit. So no step size,
    norm or threshold may be taken over the batch.
    """
    steps, size = fewest(watched(sampler_class)) + 5, 5
    x = first_state(sampler_class, size, *_SHAPE)
    chain = run(watched(sampler_class, steps), x, seeded(*range(size)))
    others: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "100 times larger": lambda x: 100 * x,
        "zero": torch.zeros_like,
        "not finite": lambda x: torch.full_like(x, torch.nan),
    }
    turned: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "turned over": torch.neg,
        "all 1": torch.ones_like,
    }
    for part in ("states", "outputs"):
        on_states = turned if part == "states" and on_signs(sampler_class) else others
        for what, change in on_states.items():
            sampler, generators = watched(sampler_class, steps), seeded(*range(size))
            for i, step in enumerate(chain):
                values = {"states": step.state, "outputs": step.output}
                changed = change(values[part])
                changed[2] = values[part][2]
                values[part] = changed
                found = next_state(
                    sampler, step.timestep, values["outputs"], values["states"], generators
                )
                same_bits(
                    found[2],
                    step.after[2],
                    f"at step {i}, the others' {part} are made {what}: the sample before and after",
                )
    return f"{steps} steps with the others' states and outputs large, zero, and not finite"


def determinism(sampler_class: type[Any]) -> str:
    """With a generator, a chain is a function of the generator and the first state.

    The global random numbers of torch, numpy and Python are neither used nor moved. Instances share
    nothing, and ``set_timesteps`` starts anew.
    """
    steps = fewest(watched(sampler_class)) + 3
    x, y = first_state(sampler_class, 2, 3), first_state(sampler_class, 2, 3, seed=5)
    sampler = watched(sampler_class, steps)
    with _global_randomness_kept():
        _seed_globally(1)
        first = run(sampler, x, seeded(0)[0])
        _seed_globally(2)
        before = _global_states()
        sampler.set_timesteps(steps)
        second = run(sampler, x, seeded(0)[0])
        for name, state in _global_states().items():
            if state != before[name]:
                raise CheckFailed(
                    f"a chain with a generator moves the global random numbers of {name}; all "
                    "noise must come from the generator"
                )
    same_chains(second, first, "two runs with one seed, and other global seeds,")

    sampler.set_timesteps(steps)
    for step in second[: steps // 2]:
        next_state(sampler, step.timestep, step.output, y, seeded(3)[0])
    sampler.set_timesteps(steps)
    again = run(sampler, x, seeded(0)[0])
    same_chains(again, first, "a chain begun by set_timesteps in the middle of another, and new,")

    longer = run(watched(sampler_class, steps + 1), y, seeded(1)[0])
    turns = [
        (watched(sampler_class, len(chain)), chain, seeded(seed)[0])
        for seed, chain in enumerate((first, longer))
    ]
    for i in range(len(longer)):
        for instance, chain, generator in turns:
            for t, output, state, after in chain[i : i + 1]:
                with during(f"two instances take turns, at step {i}"):
                    found = next_state(instance, t, output, state, generator)
                    same_bits(found, after, "the state of one, here and on its own,")
    return f"{steps} steps twice, after an interruption, and two instances in turns"


@contextmanager
def _global_randomness_kept() -> Iterator[None]:
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


def _seed_globally(seed: int) -> None:
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def _global_states() -> dict[str, Any]:
    numpys = np.random.get_state(legacy=False)["state"]
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": (numpys["key"].tolist(), numpys["pos"]),
        "Python": random.getstate(),
    }
