"""What belongs together: a network, a sampler, and what both are asked for."""

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np

from hdzoo.checks import shown
from hdzoo.errors import HDZooError
from hdzoo.samplers.configurations import DRAWING_VP, SCALED_SIGMA_SPACE, SIGMA_SPACE
from hdzoo.samplers.coordinates import NETWORK_OPTIONS
from hdzoo.samplers.ladders import whole_number
from hdzoo.scores.clocks import discrete_clock

# What a sampler's method of that name takes.
FIRST_STATE = ("shape", "noise", "centre", "data_range", "data_std")


def check_part(name: str, part: Any) -> None:
    """Refuses what can be no part of a pipeline.

    Args:
        name: ``"unet"`` or ``"scheduler"``.
        part: what is given for it.

    Raises:
        HDZooError: it is something else; the message says how a function becomes a network.
    """
    # Some schedulers of diffusers' have no `step`, which is said when they are asked for one.
    needed = ("set_timesteps", "config") if name == "scheduler" else ("config",)
    if isinstance(part, type):
        raise HDZooError(
            f"{name} is {shown(part)}, a class; give an instance, as {part.__name__}(...)"
        )
    if all(hasattr(part, attribute) for attribute in needed) and (
        name == "scheduler" or callable(part)
    ):
        if name == "unet" and not _is_told_the_level(part):
            raise HDZooError(
                f"unet is {shown(part)}, which takes no noise level: as an autoencoder, it is no "
                "score network. It must be called as unet(sample, timestep)"
            )
        return
    given = f"{name} is {shown(part)}"
    if name == "scheduler":
        raise HDZooError(
            f"{given}; it must be a sampler or a scheduler of diffusers', as "
            "hdzoo.get_sampler('annealed-langevin')()"
        )
    raise HDZooError(
        f"{given}; it must be a network with a configuration, as those of hdzoo and diffusers. A "
        "function or a module of another kind becomes one by hdzoo.wrap(denoiser, sigma_min=..., "
        "sigma_max=..., sample_shape=..., predicts='sample')"
    )


def _is_told_the_level(network: Any) -> bool:
    """Whether a network takes a second argument that is no switch."""
    try:
        parameters = inspect.signature(getattr(network, "forward", network)).parameters.values()
    except (TypeError, ValueError):
        return True
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return True
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(places) > 1 and not isinstance(places[1].default, bool)


def network_options(network: Any, *configs: Any) -> dict[str, Any]:
    """What a network predicts and how it is asked, by the names of `NETWORK_OPTIONS`.

    Args:
        network: one of ours says it itself.
        *configs: of samplers that were built for the network; the first that says it is believed.

    Returns:
        Nothing where nobody says it: for a network of diffusers' with its own scheduler.
    """
    # Not what its configuration may say, which diffusers gives for an attribute too.
    said = {
        name: vars(network).get(name, getattr(type(network), name, None))
        for name in ("prediction_type", "coordinates")
    }
    told = {name: value for name, value in said.items() if value is not None}
    if "prediction_type" in told and told.get("coordinates", "ve") == "ve":
        return told | {"timestep_type": "sigma"}
    if told:
        return told
    for config in configs:
        # "discrete" alone is an option of diffusers' Euler too.
        if "coordinates" in config or config.get("timestep_type") in ("sigma", "log_sigma", "time"):
            return {key: config[key] for key in NETWORK_OPTIONS if key in config}
    return {}


def diffusers_names(scheduler: Any) -> list[str]:
    """The classes of diffusers' that a scheduler is, or inherits from; none for other samplers."""
    return [
        base.__name__
        for base in type(scheduler).__mro__
        if base.__module__.startswith("diffusers.schedulers.")
        and not base.__module__.endswith(".scheduling_utils")
    ]


def check_diffusers_scheduler(scheduler: Any, network: Any, told: dict[str, Any]) -> bool:
    """Refuses a scheduler of diffusers' that would draw nonsense with a network.

    Args:
        scheduler: one of diffusers', or that inherits from one.
        network: which.
        told: `network_options` of it.

    Returns:
        Whether the network is in VE coordinates, so that the scheduler has to be translated:
        `SigmaSpaceChain`. Else the two understand each other.

    Raises:
        HDZooError: the message names schedulers that go with the network.
    """
    names, config, name = diffusers_names(scheduler), scheduler.config, type(scheduler).__name__
    in_ve = bool(told) and told.get("coordinates", "ve") == "ve"
    allowed: tuple[str, ...] = (*SIGMA_SPACE, *SCALED_SIGMA_SPACE)
    if not in_ve:
        allowed = DRAWING_VP if told else (*DRAWING_VP, *SIGMA_SPACE)
    flows = config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction"
    if flows or set(names).isdisjoint(allowed):
        lives = f"is in {told.get('coordinates', 've').upper()} coordinates" if told else ""
        lives = lives or "is told the index of a noise level"
        advised = "EulerDiscreteScheduler" if in_ve else "DDIMScheduler"
        raise HDZooError(
            f"{name}{' for flow matching' if flows else ''} does not go with "
            f"{type(network).__name__}, which {lives}: it is for networks of another kind, or in "
            f"other coordinates, and would draw nonsense. From diffusers, {', '.join(allowed)} do; "
            "take one, as in pipe.scheduler = "
            f"diffusers.{advised}.from_config(pipe.scheduler.config), or a sampler of hdzoo"
        )
    if told and not in_ve:
        _check_same_schedule(name, config, told)
    return in_ve


def _check_same_schedule(name: str, config: Any, told: dict[str, Any]) -> None:
    """Refuses a scheduler whose indices are those of other noise levels than the network's."""
    if told.get("timestep_type", "discrete") != "discrete":
        raise HDZooError(
            f"{name} tells the network an index, and it is told {told['timestep_type']!r}; take a "
            "sampler of hdzoo"
        )
    if told.get("beta_schedule") is None and told.get("trained_betas") is None:
        return
    own, trained = discrete_clock(config).sigmas, discrete_clock(told).sigmas
    if len(own) != len(trained) or not np.allclose(own, trained, rtol=1e-5):
        raise HDZooError(
            f"the noise levels of {name} go from {own[-1]:g} to {own[0]:g} and those that the "
            f"network was trained at from {trained[-1]:g} to {trained[0]:g}: its options are "
            f"another network's. Use {name}.from_config(scheduler.config), the configuration of "
            "this network's own scheduler"
        )


def set_timesteps(
    scheduler: Any, num_inference_steps: int | None, sigmas: Sequence[float] | None, device: Any
) -> None:
    """Fixes a chain, with no more than the scheduler's own method takes.

    Raises:
        HDZooError: an argument is out of its range, or one that a scheduler of diffusers' needs or
            does not take.
    """
    given = {} if sigmas is None else {"sigmas": sigmas}
    if not diffusers_names(scheduler):
        scheduler.set_timesteps(num_inference_steps, device=device, **given)
        return
    name = type(scheduler).__name__
    if sigmas is not None:
        raise HDZooError(f"sigmas are given, and {name} has its own; take a sampler of hdzoo")
    if num_inference_steps is None:
        raise HDZooError(
            f"num_inference_steps is None, and {name} has no number of its own; give one"
        )
    steps = whole_number(num_inference_steps, "num_inference_steps")
    try:
        scheduler.set_timesteps(steps, device=device)
    except (ValueError, TypeError, RuntimeError, IndexError) as error:
        raise HDZooError(
            f"{name} has no chain of num_inference_steps {steps}: {error}; give another number, or "
            "take a sampler of hdzoo"
        ) from error


def check_options(scheduler: Any, network: Any, told: dict[str, Any]) -> None:
    """Refuses a sampler whose options are those of another network.

    Args:
        scheduler: with its chain fixed.
        network: which.
        told: `network_options` of it.

    Raises:
        HDZooError: they do not go together.
    """
    config, name = scheduler.config, type(scheduler).__name__
    predicts, expected = told.get("prediction_type"), config.get("prediction_type")
    if predicts is not None and expected is not None and predicts != expected:
        raise HDZooError(
            f"the network predicts {predicts!r} and the sampler takes its output for "
            f"{expected!r}; use {name}.from_config(scheduler.config, "
            f"prediction_type={predicts!r})"
        )
    if told and not diffusers_names(scheduler):
        for option, default in (("coordinates", "ve"), ("timestep_type", "sigma")):
            lives, own = told.get(option), config.get(option, default)
            if lives is not None and own != lives:
                raise HDZooError(
                    f"the network has the {option} {lives!r} and the sampler {own!r}: its "
                    "options are from the scheduler of another network. Build it from those of "
                    "this network's own sampler, by from_config"
                )


def check_extras(scheduler: Any, network: Any) -> None:
    """Refuses a sampler that needs more beside the prediction than a network gives."""
    provided = getattr(network, "provides", ())
    # Half of the output of a network that learned its variance, which `step` takes apart.
    if scheduler.config.get("variance_type") in ("learned", "learned_range"):
        provided = (*provided, "variance")
    for extra in getattr(scheduler, "needs", ()):
        if extra not in provided:
            raise HDZooError(
                f"{type(scheduler).__name__} needs the network's {extra} beside its prediction, "
                f"and {type(network).__name__} gives {', '.join(provided) or 'nothing beside'}; "
                "take another sampler or network"
            )


def check_precision(scheduler: Any, network: Any) -> None:
    """Refuses a network whose weights are too coarse for what a sampler makes of its output."""
    if getattr(scheduler, "probes", 0):
        scheduler.check_precision(network.dtype)


def check_sigmas(scheduler: Any, network: Any) -> None:
    """Refuses noise levels that a network does not know."""
    if hasattr(network, "check_sigmas") and hasattr(scheduler, "sigmas"):
        network.check_sigmas(scheduler.sigmas[:-1].unique().tolist())


def check_first_state(scheduler: Any) -> None:
    """Refuses a sampler whose ``first_state`` does not take what `Sampler.first_state` does.

    Args:
        scheduler: the sampler.
    """
    taken = inspect.signature(scheduler.first_state)
    try:
        taken.bind(*FIRST_STATE)
    except TypeError:
        raise HDZooError(
            f"{type(scheduler).__name__}.first_state takes {taken}; it must take "
            f"({', '.join(FIRST_STATE)}), as Sampler.first_state does"
        ) from None
