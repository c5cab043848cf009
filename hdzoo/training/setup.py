"""What a training run starts from: a network and the sampler to save with it."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import ModelMixin

from hdzoo import plugins
from hdzoo.checksums import content_hash
from hdzoo.errors import HDZooError
from hdzoo.samplers.ladders import geometric_ladder
from hdzoo.samplers.presets import DEFAULT_PRESET, get_preset

# What a sampler costs that nobody has chosen, where there is no preset.
EVALUATIONS = 200
# Of a sampler that takes the preset's place.
WALKS = {"num_levels": 20, "steps_per_level": 10, "readout": "full"}


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


def initial_network(
    source: str | Path, options: dict[str, Any], name: str | None = None
) -> tuple[ModelMixin, str]:
    """The network of a pipeline, with its weights, to go on from.

    Args:
        source: a folder, a bundled name, or a Hub id.
        options: of its class, over those that it has; the weights must still fit.
        name: the registered name of its class, or of one that derives from it; its own by default.

    Returns:
        The network, and the hash of its weights (`hdzoo.checksums.content_hash`).

    Raises:
        HDZooError: there is no such pipeline, or its network is another or does not take the
            options.
    """
    from hdzoo.pipelines.pipeline import HDPipeline

    found = HDPipeline.from_pretrained(source).unet
    kind = type(found)
    wanted = kind if name is None else plugins.get("models", name)
    # One that computes something else with the same weights derives from it.
    if not issubclass(wanted, kind):
        raise HDZooError(
            f"the network of {str(source)!r} is a {kind.__name__}, and {name!r} is asked for; "
            "leave the model out"
        )
    kind = wanted
    weights = found.state_dict()
    network, unknown = kind.from_config(
        {**found.config, "held_out_loss": None, **options}, return_unused_kwargs=True
    )
    strange = sorted(set(unknown) & set(options))
    if strange:
        raise HDZooError(f"{kind.__name__} has no option {', '.join(strange)}")
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise HDZooError(
            f"the weights of {str(source)!r} do not fit a network with {options}: {error}; leave "
            "these options out"
        ) from error
    # What diffusers remembers of the place would go into the config.
    network.register_to_config(_name_or_path="")
    return network, content_hash(sorted(weights.items()))


def build_scheduler(name: str | None, options: dict[str, Any], network: ModelMixin) -> Any:
    """A registered sampler on a network's own ladder, or on the range that it is trained for.

    Args:
        name: the sampler's registered name; None for the one of `default_sampler`.
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
    if name is None:
        name, own = default_sampler(network)
        suggested |= own
    return plugins.get_sampler(name).from_config(suggested, **options)


def default_sampler(network: ModelMixin) -> tuple[str, dict[str, Any]]:
    """The sampler that a network is saved with when none is asked for: its name and options.

    On a range of noise levels, the preset `DEFAULT_PRESET`, if it admits one. Else of about 200
    evaluations: on a long ladder consistent annealed sampling with the denoising step at its end,
    which asks the network once at each level; a short one must be walked on, by annealed Langevin
    dynamics with half-denoising hand-offs.

    Args:
        network: the score network.
    """
    ladder = network_ladder(network)
    if len(ladder) > 1 and not has_own_ladder(network):
        with suppress(HDZooError):
            preset = get_preset(DEFAULT_PRESET)
            return preset.sampler, WALKS | preset.options(network, network.config)
    num_levels = len(ladder) if has_own_ladder(network) or len(ladder) == 1 else EVALUATIONS
    steps = max(1, EVALUATIONS // num_levels)
    options = {"num_levels": num_levels, "steps_per_level": steps, "readout": "full"}
    if steps == 1:
        return "consistent-annealed-sampling", options
    return "annealed-langevin", options | {"hand_off": "half"}


def has_own_ladder(network: ModelMixin) -> bool:
    """Whether a network knows the levels of a ladder only, not a range."""
    return getattr(network, "sigmas", None) is not None


def network_ladder(network: ModelMixin) -> list[float]:
    """The noise levels of a network: its own ladder, or the two ends of its range, if they differ.

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
    high, low = network.config.sigma_max, network.config.sigma_min
    return geometric_ladder(high, low, 1 if high == low else 2)


def default_sigma_distribution(network: ModelMixin) -> str:
    """Each rung as likely for a network with a ladder; else its whole range, evenly in the log."""
    return "ladder" if has_own_ladder(network) else "log-uniform"


def prediction_type(network: ModelMixin) -> str:
    """What a network predicts: diffusers' own do not say, and are taken to predict the score."""
    return str(getattr(network, "prediction_type", "score"))


def seed_step(seed: int, step: int, process_index: int) -> None:
    """Seeds torch's global generators as a function of (seed, step, process) alone."""
    torch.manual_seed(
        int(np.random.SeedSequence([seed, step, process_index]).generate_state(1, np.uint64)[0])
        & 0x7FFF_FFFF_FFFF_FFFF
    )
