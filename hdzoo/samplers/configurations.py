"""Configurations that come from another sampler, of ours or of diffusers."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import diffusers
from diffusers import SchedulerMixin

from hdzoo import plugins
from hdzoo.errors import HDZooError
from hdzoo.scores.clocks import TimeClock, discrete_clock

# What diffusers' schedulers take for granted of the network.
_DIFFUSERS_VE: dict[str, dict[str, Any]] = {
    "ScoreSdeVeScheduler": {"prediction_type": "score", "timestep_type": "sigma"},
    "KarrasVeScheduler": {"prediction_type": "scaled_score", "timestep_type": "sigma"},
    "EDMEulerScheduler": {"timestep_type": "log_sigma"},
    "EDMDPMSolverMultistepScheduler": {"timestep_type": "log_sigma"},
}
_CONTINUOUS_VP = "ScoreSdeVpScheduler"
_DIFFUSERS_VP = (
    "DDIMInverseScheduler",
    "DDIMParallelScheduler",
    "DDIMScheduler",
    "DDPMParallelScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepInverseScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "RePaintScheduler",
    "SASolverScheduler",
    "UniPCMultistepScheduler",
)

# A configuration has its class's name only once it has been printed or saved. The first that is
# there tells.
_TELLTALE_OPTIONS = {
    "beta_min": _CONTINUOUS_VP,
    "sampling_eps": "ScoreSdeVeScheduler",
    "s_churn": "KarrasVeScheduler",
    "sigma_schedule": "EDMEulerScheduler",
    "original_inference_steps": "a scheduler of distilled models",
    "snr_shift_scale": "a CogVideoX scheduler",
    "beta_schedule": "DDPMScheduler",
    "use_dynamic_shifting": "a flow-matching scheduler",
    "shift": "a flow-matching scheduler",
}

# At this noise nothing is left of data in [-1, 1]. Cosine schedules go on to 20,000, and those of
# zero terminal signal for ever: a ladder would spend most of its rungs there.
ENOUGH_NOISE = 200.0


def with_assumptions(config: dict[str, Any]) -> dict[str, Any]:
    """Adds what a diffusers scheduler takes for granted of the network; refuses those unfit.

    Args:
        config: of any sampler.

    Returns:
        The same with what is missing. What the configuration says already is from the sampler that
        it was before.

    Raises:
        HDZooError: its scheduler is for models of another kind.
    """
    name = config.get("_class_name")
    if name is None:
        name = next((name for key, name in _TELLTALE_OPTIONS.items() if key in config), None)
    elif name != _CONTINUOUS_VP and not hasattr(diffusers, str(name)):
        return config
    if name is None:
        return config
    if name in _DIFFUSERS_VE:
        return _DIFFUSERS_VE[name] | config
    flows = config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction"
    if name not in (_CONTINUOUS_VP, *_DIFFUSERS_VP) or flows:
        raise HDZooError(
            f"the configuration of {name}{' for flow matching' if flows else ''} does not describe "
            "a variance-exploding or variance-preserving model, which these samplers are for; from "
            f"diffusers, {', '.join((*_DIFFUSERS_VE, *_DIFFUSERS_VP))} do. Take one of that "
            "pipeline's own schedulers"
        )
    if config.get("timestep_type") in ("sigma", "log_sigma"):
        # One of ours for a VE network, by way of diffusers.
        return config
    return _noise_schedule(config, continuous=name == _CONTINUOUS_VP)


def _noise_schedule(config: dict[str, Any], continuous: bool) -> dict[str, Any]:
    """Adds the ladder's ends, and how a VP network is asked."""
    if continuous:
        clock = TimeClock(*(config[key] for key in ("beta_min", "beta_max") if key in config))
        end = config.get("sampling_eps", 1e-3)
        low, high = (clock.sigma(clock.factor * t) for t in (end, 1.0))
    else:
        sigmas = discrete_clock(config).sigmas
        low, high = sigmas[0], max(sigmas[0], sigmas[sigmas <= ENOUGH_NOISE][-1])
    ends = {"sigma_max": float(high), "sigma_min": float(low)}
    return {
        "prediction_type": "epsilon",
        "timestep_type": "time" if continuous else "discrete",
        "coordinates": "vp",
        **config,
        # diffusers writes None for what a scheduler finds for itself.
        **{key: value for key, value in ends.items() if config.get(key) is None},
    }


def compatible_classes() -> Iterator[type[SchedulerMixin]]:
    """The schedulers whose configuration describes a model of ours."""
    for name in plugins.list_samplers():
        # One that cannot be imported is no reason to be silent about the others.
        with suppress(HDZooError):
            yield plugins.get_sampler(name)
    for name in (*_DIFFUSERS_VE, *_DIFFUSERS_VP):
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
