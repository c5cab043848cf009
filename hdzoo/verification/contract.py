"""The contract of a sampler, as checks that run on any registered class, ours or another's.

A sampler is a diffusers scheduler. The checks use its public methods alone (``set_timesteps``,
``set_begin_index``, ``scale_model_input``, ``step``, ``add_noise``, ``len``, ``timesteps``,
``sigmas``, ``init_noise_sigma``, ``config``, saving and loading), and a few words of ours:

* the options ``prediction_type``, ``timestep_type`` and ``sigma_data``, which mean what they do in
  `hdzoo.samplers.base.Sampler`; a sampler without them takes scores, at timesteps that are noise
  levels;
* the class attribute ``starts_from_noise``, True if it is missing; False for a sampler that needs
  states at its first noise level to start from;
* the class attribute ``state_space``, ``"real"`` if it is missing; ``"signs"`` for samples in
  {-1, 1}^d, and states there, or means of several such, on the way;
* the class attributes ``needs`` and ``uses``, for what the network gives beside its prediction;
* the class attribute ``option_choices``, values to try of options that are the sampler's own.

The docstring of a check is its clause of the contract: ``print(CONTRACT["nfe"].__doc__)``.
"""

import functools
from collections.abc import Callable
from typing import Any

from hdzoo.verification.checks import CheckFailed, quiet_diffusers
from hdzoo.verification.clauses import extras, memory, numerics, randomness, saving, schedule

Check = Callable[[type[Any]], str]


def _clause(name: str, check: Check) -> Check:
    """The check, with a failure that names the clause, and no other exception than a failure."""

    @functools.wraps(check)
    def checked(sampler_class: type[Any]) -> str:
        clause = f"[clause {name!r} of hdzoo.verification.contract]"
        try:
            with quiet_diffusers():
                return check(sampler_class)
        except CheckFailed as failure:
            raise CheckFailed(f"{failure} {clause}") from failure.__cause__
        except Exception as error:
            raise CheckFailed(f"{type(error).__name__}: {error} {clause}") from error

    return checked


# From a check's public name to the check: it takes a sampler class, returns a line on what it
# tried, and raises a `CheckFailed` where the class breaks the contract.
CONTRACT: dict[str, Check] = {
    name: _clause(name, check)
    for name, check in {
        "nfe": schedule.evaluations,
        "indexing": schedule.indexing,
        "own-schedule": schedule.own_schedule,
        "generators": randomness.generators,
        "batch-independence": randomness.batch_independence,
        "determinism": randomness.determinism,
        "memory": memory.memory,
        "extras": extras.extras,
        "save-load": saving.save_load,
        "dtype": numerics.dtype,
        "layout": numerics.layout,
        "no-host-sync": numerics.no_host_sync,
        "add-noise": numerics.add_noise,
        "pipeline": saving.pipeline,
    }.items()
}
