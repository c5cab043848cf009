"""What a training run starts from: a new network and the sampler to save with it."""

from typing import Any

import torch
from diffusers import ModelMixin

from hdzoo import plugins
from hdzoo.errors import HDZooError
from hdzoo.samplers.ladders import geometric_ladder


def build_network(name: str, options: dict[str, Any], seed: int) -> ModelMixin:
    """A registered network with fresh weights.

    Args:
        name: its registered name.
        options: of its class.
        seed: of the weights.

    Raises:
        HDZooError: there is no such network, or an option is unknown or does not fit.
    """
    network = plugins.get("models", name)
    torch.manual_seed(seed)
    try:
        return network(**options)
    except HDZooError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise HDZooError(f"cannot build the network {name!r} with {options}: {error}") from error


def build_scheduler(name: str, options: dict[str, Any], network: ModelMixin) -> Any:
    """A registered sampler on a network's own ladder, or on the range that it is trained for.

    Args:
        name: the sampler's registered name.
        options: of its class; they come before what the network suggests.
        network: the score network.

    Raises:
        HDZooError: there is no such sampler, or an option is unknown or does not fit.
    """
    ladder = network_ladder(network)
    suggested: dict[str, Any] = {
        "sigma_max": ladder[0],
        "sigma_min": ladder[-1],
        "sigmas": ladder if has_own_ladder(network) else None,
        "prediction_type": getattr(network, "prediction_type", "score"),
    }
    return plugins.get_sampler(name).from_config(suggested, **options)


def has_own_ladder(network: ModelMixin) -> bool:
    """Whether a network knows the levels of a ladder only, not a range."""
    return getattr(network, "sigmas", None) is not None


def network_ladder(network: ModelMixin) -> list[float]:
    """The noise levels of a network: its own ladder, or the two ends of its range.

    Raises:
        HDZooError: its config has no range.
    """
    if has_own_ladder(network):
        return [float(sigma) for sigma in network.sigmas]
    missing = [key for key in ("sigma_min", "sigma_max") if network.config.get(key) is None]
    if missing:
        raise HDZooError(
            f"the config of {type(network).__name__} has no {' and no '.join(missing)}: add the "
            "range of noise levels by network.register_to_config(sigma_min=..., sigma_max=...)"
        )
    return geometric_ladder(network.config.sigma_max, network.config.sigma_min, 2)


def default_sigma_distribution(network: ModelMixin) -> str:
    """Each rung as likely for a network with a ladder; else its whole range, evenly in the log."""
    return "ladder" if has_own_ladder(network) else "log-uniform"
