"""What a chain keeps besides its state."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import torch

from hdzoo.samplers.base import Sampler
from hdzoo.verification.chain import (
    Step,
    first_state,
    network,
    next_state,
    remembers,
    run,
    seeded,
)
from hdzoo.verification.checks import CheckFailed, during, same_bits
from hdzoo.verification.small import Watched, fewest, watched

_COPIES: dict[str, Callable[[Any], Any]] = {
    "copied by copy.copy": copy.copy,
    "copied by copy.deepcopy": copy.deepcopy,
    "pickled and loaded": lambda sampler: pickle.loads(pickle.dumps(sampler)),
}


def memory(sampler_class: type[Any]) -> str:
    """What a chain keeps besides its state is its own, and ends with it.

    A copy that is made in the middle of a chain, by ``copy.copy``, ``copy.deepcopy`` or pickle,
    goes on as the original does, bit for bit, and neither disturbs the other. Nothing is left for
    the next chain: not after ``set_timesteps``, and where a sampler lets another begin without it
    (`set_begin_index`), not there either. A sampler with an ``update`` of its own keeps all in
    ``memory``, which is empty when a chain begins; tensors there have the batch as their first
    axis.
    """
    steps = fewest(watched(sampler_class)) + 5
    x = first_state(sampler_class, 2, 3)
    whole = run(watched(sampler_class, steps), x, seeded(0)[0])
    for k in (1, steps // 2, steps - 1):
        _check_copies(sampler_class, whole, k)
    _check_begun_anew(sampler_class, whole)
    if _keeps_to_memory(sampler_class):
        names = {name for k in range(steps) for name in _check_all_there(sampler_class, whole, k)}
        what = f"memory holds {', '.join(sorted(names))}" if names else "memory stays empty"
    else:
        places = sum(remembers(sampler_class, whole, k) for k in range(steps))
        what = f"{places} of {steps} steps depend on more than the state" if places else "none kept"
    return f"{steps} steps, copied in 3 ways at 3 places; {what}"


def _keeps_to_memory(sampler_class: type[Any]) -> bool:
    return issubclass(sampler_class, Sampler) and sampler_class.step is Sampler.step


def _check_copies(sampler_class: type[Any], whole: list[Step], k: int) -> None:
    original, (generator,) = watched(sampler_class, len(whole)), seeded(0)
    for step in whole[:k]:
        next_state(original, step.timestep, step.output, step.state, generator)
    chains = []
    for what, make in _COPIES.items():
        try:
            made = Watched(make(original.sampler))
        except Exception as error:
            raise CheckFailed(
                f"after step {k} of {len(whole)} the sampler cannot be {what}: "
                f"{type(error).__name__}: {error}"
            ) from error
        chains.append((f"a sampler {what}", made, generator.clone_state()))
    chains.append(("the sampler of which copies went on", original, generator))
    for what, sampler, own in chains:
        for i, step in enumerate(whole[k:], k):
            with during(f"{what} after step {k} of {len(whole)}"):
                found = next_state(sampler, step.timestep, step.output, step.state, own)
                same_bits(found, step.after, f"step {i} of it and of the whole chain")


def _check_begun_anew(sampler_class: type[Any], whole: list[Step]) -> None:
    """Begins a chain after another, of other states, has ended."""
    first = whole[0]
    for how in ("set_begin_index(0)", "set_timesteps"):
        sampler = watched(sampler_class, len(whole))
        _check_empty(sampler, "a new sampler")
        run(sampler, first_state(sampler_class, 2, 3, seed=5), seeded(1)[0])
        if how == "set_timesteps":
            sampler.set_timesteps(len(whole))
            _check_empty(sampler, "a sampler after set_timesteps")
        else:
            sampler.set_begin_index(0)
        try:
            found = next_state(sampler, first.timestep, first.output, first.state, seeded(0)[0])
        except CheckFailed:
            if how == "set_timesteps":
                raise
            # The chain has ended, and the next is begun by set_timesteps: as good.
            continue
        same_bits(
            found,
            first.after,
            f"the first step of a chain begun by {how} after another has ended, and of a new "
            "sampler's,",
        )


def _check_empty(sampler: Watched, after: str) -> None:
    if isinstance(sampler.sampler, Sampler) and sampler.memory:
        raise CheckFailed(
            f"memory of {after} holds {', '.join(sampler.memory)}; it is empty when a chain begins"
        )


def _check_all_there(sampler_class: type[Any], whole: list[Step], k: int) -> list[str]:
    """Makes a step with the memory of the whole chain, by a sampler that knows nothing else of it.

    Returns:
        The names in memory there.
    """
    original, (generator,) = watched(sampler_class, len(whole)), seeded(0)
    for step in whole[:k]:
        next_state(original, step.timestep, step.output, step.state, generator)
    kept = copy.deepcopy(original.memory)
    size = len(whole[0].state)
    for name, value in kept.items():
        if isinstance(value, torch.Tensor) and value.shape[:1] != (size,):
            raise CheckFailed(
                f"memory[{name!r}] has the shape {tuple(value.shape)} for {size} samples; the "
                "batch is its first axis"
            )
    other = watched(sampler_class, len(whole))
    for step in whole[:k]:
        elsewhere = first_state(sampler_class, *step.state.shape, seed=k)
        output = network(other, elsewhere, step.timestep)
        next_state(other, step.timestep, output, elsewhere, seeded(2)[0])
    if k:
        other.sampler.memory = kept
    step = whole[k]
    same_bits(
        next_state(other, step.timestep, step.output, step.state, generator),
        step.after,
        f"step {k} of the whole chain, and that of another sampler with the same memory (what an "
        "update keeps for the next belongs in self.memory),",
    )
    return list(kept)
