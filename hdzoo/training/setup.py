"""What a training run starts from: a new network and the sampler to save with it."""

import inspect
from typing import Any

import torch
from diffusers import ModelMixin

from hdzoo import plugins
from hdzoo.errors import HDZooError
from hdzoo.images.images import Images, Survey
from hdzoo.samplers.ladders import geometric_ladder

# How far a mean or standard deviation that is given may be from that of the images, in units of the
# latter.
MOST_OFF = 0.1


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


def options_for(
    name: str, options: dict[str, Any], images: Images, resize: bool = False
) -> dict[str, Any]:
    """The options of a registered network, with those that follow from the images.

    These are ``sample_size``, ``in_channels``, ``out_channels``, ``data_mean`` and ``data_std``, as
    far as the network has them. Mean and standard deviation are of all pixels that the survey of
    the images has decoded, in the units of ``data_range``, to four digits.

    Args:
        name: the network's registered name.
        options: that are given; they stay as they are.
        images: what it will be trained on.
        resize: as in `TrainingConfig`: then ``sample_size`` may be any.

    Raises:
        HDZooError: an option that is given contradicts the images: ``sample_size`` or
            ``in_channels`` is another (1 will do for images in RGB that are all grey),
            ``data_mean`` is off by more than a tenth of the standard deviation, or ``data_std`` by
            more than a tenth of itself; or the images are of several sizes or not square.
    """
    known = inspect.signature(plugins.get("models", name)).parameters
    given = {key: value for key, value in options.items() if value is not None}
    side = given.get("sample_size")
    if side is not None and (not isinstance(side, int) or side < 1):
        raise HDZooError(f"sample_size is {side!r}; it must be a whole number of pixels")
    survey = images.survey(side if resize else None)
    found: dict[str, Any] = {}
    if "sample_size" in known:
        _check_size(images, survey, side, resize)
        found["sample_size"] = side or survey.side
    if "in_channels" in known:
        found["in_channels"] = channels = given.get("in_channels", survey.channels)
        if channels != survey.channels and (channels != 1 or survey.has_colour):
            raise HDZooError(
                f"in_channels is {channels!r}, and the images of {images.name} have "
                f"{survey.channels}; leave it out"
            )
        if "out_channels" in known:
            found["out_channels"] = channels
    default = known["data_range"].default if "data_range" in known else (-1.0, 1.0)
    try:
        low, high = map(float, given.get("data_range", default))
    except (TypeError, ValueError) as error:
        raise HDZooError(
            f"data_range is {given.get('data_range', default)!r}; give two numbers, as [0, 1]"
        ) from error
    mean, std = low + (high - low) * survey.mean, (high - low) * survey.std
    if "data_std" in known and "data_std" not in given and not std:
        raise HDZooError(f"all pixels of {images.name} are the same; give the data_std")
    for key, value in (("data_mean", mean), ("data_std", std)):
        if key in known:
            found[key] = float(f"{value:.4g}")
            if abs(given.get(key, value) - value) > MOST_OFF * std:
                raise HDZooError(
                    f"{key} is {given[key]}, and that of the images of {images.name} is "
                    f"{found[key]}, in the units of data_range ({low:g} to {high:g}); leave it out"
                )
    return options | {key: value for key, value in found.items() if key not in given}


def check_images(network: ModelMixin, images: Images, resize: bool) -> None:
    """Reads the images, and refuses those that a network would be shown as others.

    Args:
        network: its config has ``sample_size`` and ``in_channels``.
        images: what it is to be trained or measured on.
        resize: as in `TrainingConfig`.

    Raises:
        HDZooError: one cannot be read; their size is not the network's; or they have colours and
            the network has one channel.
    """
    side = network.config.sample_size
    survey = images.survey(side if resize else None)
    _check_size(images, survey, side, resize)
    if survey.has_colour and network.config.in_channels == 1:
        raise HDZooError(
            f"the images of {images.name} have colours, and in_channels is 1; make the network "
            "with in_channels=3, or the images grey"
        )


def _check_size(images: Images, survey: Survey, side: int | None, resize: bool) -> None:
    if resize and side is not None:
        return
    how = (
        "resize=True (--resize) crops each to a square around its centre and brings it to the "
        "network's sample_size"
    )
    if survey.side is None:
        raise HDZooError(
            f"the images of {images.name} are {survey.render_size()} pixels, and a network takes "
            f"squares of one size; {how}, which is to be given"
        )
    if side is not None and side != survey.side:
        raise HDZooError(
            f"sample_size is {side}, and the images of {images.name} are {survey.render_size()} "
            f"pixels; give {survey.side}, or: {how}"
        )


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
