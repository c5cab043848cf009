"""Which configurations of a sampler are tried before it is compared with others."""

import inspect
from typing import Any

from scipy.stats import qmc

from hdzoo.errors import HDZooError
from hdzoo.pipelines.pipeline import HDPipeline

# Points to look at until enough are found that the sampler takes.
MOST_POINTS = 256
# alpha over sigma^2 on the last level.
ETA = (0.05, 1.0)
NUM_LEVELS = (5, 100)
# Of the noise level of a single-level sampler, in terms of its own.
SIGMA_FACTOR = 4.0
# The first level of a ladder in terms of its own, and the last one, at most, of its own first.
SIGMA_MAX_SHARE = 0.4
SIGMA_MIN_SHARE = 0.05
# How much noise a solver adds, in each way that it may be said; what is 0 is left at that.
AMOUNTS = {"eta": (1.0, 16.0), "noise_scale": (1.0, 1.1)}
# What decides on a chain beside its noise levels.
BESIDE_LEVELS = ("step_size", *AMOUNTS)


def search_space(scheduler: Any, num_inference_steps: int) -> dict[str, tuple[float, float]]:
    r"""The options that decide on a sampler's steps, with the range of each.

    They are those of the following that it has: ``sigma``, from a quarter of its own to four times
    of it; ``sigma_max``, from two fifths of its own; ``sigma_min``, from its own to a twentieth of
    the first level; ``num_levels``, from 5 to 100 and at most the number of evaluations;
    ``step_size`` in units of :math:`\sigma^2` on the last level, from 0.05 to 1; ``eta``, from 1 to
    16; ``noise_scale``, from 1 to 1.1. One of the last two that is 0 stays so.

    Args:
        scheduler: with the options that are not tuned.
        num_inference_steps: network evaluations.
    """
    config, space = own_options(scheduler), dict[str, tuple[float, float]]()
    if "sigma" in config:
        space["sigma"] = (config["sigma"] / SIGMA_FACTOR, config["sigma"] * SIGMA_FACTOR)
    if "sigma_min" in config and not config.get("sigmas"):
        high, low = config["sigma_max"], config["sigma_min"]
        space["sigma_max"] = (high * SIGMA_MAX_SHARE, high)
        if low < high * SIGMA_MIN_SHARE:
            space["sigma_min"] = (low, high * SIGMA_MIN_SHARE)
    if "num_levels" in config and not config.get("sigmas"):
        low, high = NUM_LEVELS
        space["num_levels"] = (min(low, num_inference_steps), min(high, num_inference_steps))
    if "step_size" in config:
        space["step_size"] = ETA
    return space | {name: limits for name, limits in AMOUNTS.items() if config.get(name)}


def own_options(scheduler: Any) -> dict[str, Any]:
    """A sampler's options, without those of others that its configuration keeps."""
    names = inspect.signature(type(scheduler).__init__).parameters
    return {name: value for name, value in scheduler.config.items() if name in names}


def candidates(
    pipe: HDPipeline, num_inference_steps: int, count: int, fixed: dict[str, Any]
) -> list[dict[str, Any]]:
    """The configurations to try: the sampler's own, and points of a Sobol sequence.

    The points are even in the logarithms of the `search_space`. Those that the sampler or the
    network refuses are passed over, and so are those whose chain is one that is there already.

    Args:
        pipe: with the sampler as it is before it is tuned.
        num_inference_steps: network evaluations.
        count: how many; fewer if there are no more.
        fixed: options that the user gave, which are not tuned.

    Returns:
        Options to override.

    Raises:
        HDZooError: not one is possible; the message is that of the sampler's own configuration.
    """
    space = search_space(pipe.scheduler, num_inference_steps)
    space = {name: limits for name, limits in space.items() if name not in fixed}
    points = qmc.Sobol(max(1, len(space)), rng=0).random(MOST_POINTS if space else 0)
    tried = [{}, *(place(space, point, own_options(pipe.scheduler)) for point in points)]
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    refusal: HDZooError | None = None
    for options in tried:
        try:
            chain = chain_of(pipe, num_inference_steps, options)
        except HDZooError as error:
            refusal = refusal or error
            continue
        found.setdefault(chain, options)
        if len(found) == count:
            break
    if not found:
        raise refusal or HDZooError("there is nothing to try")
    return list(found.values())


def place(space: dict[str, tuple[float, float]], point: Any, own: dict[str, Any]) -> dict[str, Any]:
    """A point of the unit cube as options, even in their logarithms, to three digits."""
    options: dict[str, Any] = {}
    for (name, (low, high)), share in zip(space.items(), point, strict=True):
        value = low * (high / low) ** float(share)
        if name == "step_size":
            ladder = own.get("sigmas") or [(own | options).get("sigma_min")]
            value *= options.get("sigma", own.get("sigma", ladder[-1])) ** 2
        options[name] = round(value) if name == "num_levels" else float(f"{value:.3g}")
    return options


def chain_of(
    pipe: HDPipeline, num_inference_steps: int, options: dict[str, Any]
) -> tuple[Any, ...]:
    """What tells one chain from another: its noise levels, step size and amounts of noise.

    Raises:
        HDZooError: the sampler or the network refuses it.
    """
    scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, **options)
    scheduler.set_timesteps(num_inference_steps)
    sigmas = scheduler.sigmas[:-1].tolist()
    if hasattr(pipe.unet, "check_sigmas"):
        pipe.unet.check_sigmas(sigmas)
    # A ladder that is refined from another one is the same but for rounding.
    return (*(f"{sigma:.6g}" for sigma in sigmas), *map(options.get, BESIDE_LEVELS))
