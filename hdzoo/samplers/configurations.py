"""Configurations that come from another sampler, of ours or of diffusers."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import diffusers
from diffusers import SchedulerMixin

from hdzoo import plugins
from hdzoo.errors import HDZooError

# What diffusers' variance-exploding schedulers take for granted of the network.
_DIFFUSERS_VE: dict[str, dict[str, Any]] = {
    "ScoreSdeVeScheduler": {"prediction_type": "score", "timestep_type": "sigma"},
    "KarrasVeScheduler": {"prediction_type": "scaled_score", "timestep_type": "sigma"},
    "EDMEulerScheduler": {"timestep_type": "log_sigma"},
    "EDMDPMSolverMultistepScheduler": {"timestep_type": "log_sigma"},
}

# A configuration has its class's name only once it has been printed or saved.
_TELLTALE_OPTIONS = {
    "sampling_eps": "ScoreSdeVeScheduler",
    "s_churn": "KarrasVeScheduler",
    "sigma_schedule": "EDMEulerScheduler",
    "beta_schedule": "a variance-preserving scheduler",
    "use_dynamic_shifting": "a flow-matching scheduler",
}


def with_assumptions(config: dict[str, Any]) -> dict[str, Any]:
    """Adds what a diffusers VE scheduler takes for granted; refuses its other schedulers."""
    name = config.get("_class_name")
    if name is None:
        name = next((name for key, name in _TELLTALE_OPTIONS.items() if key in config), None)
    elif not hasattr(diffusers, str(name)):
        return config
    if name is not None and name not in _DIFFUSERS_VE:
        raise HDZooError(
            f"the configuration of {name} does not describe a variance-exploding model; from "
            f"diffusers, {', '.join(_DIFFUSERS_VE)} do. Build the sampler from its own options"
        )
    # What the configuration says already is from the sampler that it was before.
    return _DIFFUSERS_VE.get(str(name), {}) | config


def compatible_classes() -> Iterator[type[SchedulerMixin]]:
    """The schedulers whose configuration describes a variance-exploding model."""
    for name in plugins.list_samplers():
        # One that cannot be imported is no reason to be silent about the others.
        with suppress(HDZooError):
            yield plugins.get_sampler(name)
    for name in _DIFFUSERS_VE:
        scheduler = getattr(diffusers, name)
        # A dummy stands for a class whose own dependencies are missing.
        if issubclass(scheduler, SchedulerMixin):
            yield scheduler


def keep_own_step_size(
    config: dict[str, Any], others_mark: str, others: str, own: str
) -> dict[str, Any]:
    """Keeps apart the step sizes of the two families, epsilon on a ladder and alpha at one level.

    One carried over as the other would be off by the square of a ratio of noise levels. So a
    configuration of the other family (it has the option ``others_mark``) puts its ``step_size``
    away as ``others``, and gets back what was put away as ``own``.
    """
    if others_mark not in config or others in config:
        return config
    kept = {key: value for key, value in config.items() if key not in ("step_size", own)}
    kept[others] = config.get("step_size")
    return kept | ({"step_size": config[own]} if own in config else {})
