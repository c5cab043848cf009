"""What of a network follows from the images that it is trained on."""

import inspect
from typing import Any

from diffusers import ModelMixin

from hdzoo import plugins
from hdzoo.checks import Whole
from hdzoo.errors import HDZooError
from hdzoo.images.framing import Framing
from hdzoo.images.images import AS_THEY_ARE, Images, Survey
from hdzoo.training.config import TrainingConfig

# How far a mean or standard deviation that is given may be from that of the images, in units of the
# latter.
MOST_OFF = 0.1


def options_for(
    name: str, options: dict[str, Any], images: Images, config: TrainingConfig | None = None
) -> dict[str, Any]:
    """The options of a registered network, with those that follow from the images.

    These are ``sample_size``, ``in_channels``, ``out_channels``, ``data_mean`` and ``data_std``, as
    far as the network has them. Mean and standard deviation are of all pixels that the survey of
    the images has decoded, in the units of ``data_range``, to four digits.

    Args:
        name: the network's registered name.
        options: that are given; they stay as they are.
        images: what it will be trained on.
        config: of the run, which says how images are cropped and resized; not at all by default.
            Where they are resized, ``sample_size`` may be any.

    Raises:
        HDZooError: an option that is given contradicts the images: ``sample_size`` or
            ``in_channels`` is another (1 will do for images in RGB that are all grey),
            ``data_mean`` is off by more than a tenth of the standard deviation, or ``data_std`` by
            more than a tenth of itself; or the images are of several sizes or not square.
    """
    parameters = inspect.signature(plugins.get("models", name)).parameters
    known = set(parameters)
    given = {key: value for key, value in options.items() if value is not None}
    side = given.get("sample_size")
    if side is not None:
        side = Whole(1)("sample_size", side)
    framing = AS_THEY_ARE if config is None else config.framing(side)
    survey = images.survey(framing)
    found: dict[str, Any] = {}
    if "sample_size" in known:
        found["sample_size"] = _check_size(images, survey, side, framing)
    if "in_channels" in known:
        found["in_channels"] = channels = given.get("in_channels", survey.channels)
        if channels != survey.channels and (channels != 1 or survey.has_colour):
            raise HDZooError(
                f"in_channels is {channels!r}, and the images of {images.name} have "
                f"{survey.channels}; leave it out"
            )
        if "out_channels" in known:
            found["out_channels"] = channels
    if known & {"data_mean", "data_std"}:
        moments = _moments(images, survey, given, parameters)
        found |= {key: value for key, value in moments.items() if key in known}
    return options | {key: value for key, value in found.items() if key not in given}


def check_images(network: ModelMixin, images: Images, framing: Framing = AS_THEY_ARE) -> None:
    """Reads the images, and refuses those that a network would be shown as others.

    Args:
        network: its config has ``sample_size`` and ``in_channels``.
        images: what it is to be trained or measured on.
        framing: what is done to each before.

    Raises:
        HDZooError: one cannot be read, or is smaller than the crop; their size is not the
            network's; or they have colours and the network has one channel.
    """
    survey = images.survey(framing)
    _check_size(images, survey, network.config.sample_size, framing)
    if survey.has_colour and network.config.in_channels == 1:
        raise HDZooError(
            f"the images of {images.name} have colours, and in_channels is 1; make the network "
            "with in_channels=3, or the images grey"
        )


def _moments(
    images: Images, survey: Survey, given: dict[str, Any], parameters: Any
) -> dict[str, float]:
    """Mean and standard deviation of the pixels, in the network's units.

    Args:
        images: whose.
        survey: of them.
        given: options of the network.
        parameters: of its class.
    """
    default = parameters["data_range"].default if "data_range" in parameters else (-1.0, 1.0)
    data_range: Any = given.get("data_range", default)
    try:
        low, high = map(float, data_range)
    except (TypeError, ValueError) as error:
        raise HDZooError(f"data_range is {data_range!r}; give two numbers, as [0, 1]") from error
    mean, std = low + (high - low) * survey.mean, (high - low) * survey.std
    if not std and "data_std" not in given:
        raise HDZooError(f"all pixels of {images.name} are the same; give the data_std")
    moments = {"data_mean": float(f"{mean:.4g}"), "data_std": float(f"{std:.4g}")}
    for key, value in moments.items():
        other = given.get(key, value)
        if not isinstance(other, int | float) or not abs(other - value) <= MOST_OFF * std:
            raise HDZooError(
                f"{key} is {other!r}, and that of the images of {images.name} is {value}, in the "
                f"units of data_range ({low:g} to {high:g}); leave it out"
            )
    return moments


def _check_size(images: Images, survey: Survey, side: int | None, framing: Framing) -> int:
    """The side that a network is to have, which must be that of the images once they are framed."""
    how = (
        "resize=True (--resize) crops each to a square around its centre and brings it to the "
        "network's sample_size"
    )
    seen = framing.side or framing.center_crop or survey.side
    if seen is None:
        raise HDZooError(
            f"the images of {images.name} are {survey.render_size()} pixels, and a network takes "
            f"squares of one size; {how}, which is to be given"
        )
    if side is not None and side != seen:
        cropped = f", cropped to {seen} x {seen}" if framing.center_crop else ""
        raise HDZooError(
            f"sample_size is {side}, and the images of {images.name} are {survey.render_size()} "
            f"pixels{cropped}; give {seen}, or: {how}"
        )
    return seen
