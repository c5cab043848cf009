"""What networks for images may be given: their options, images, and noise levels."""

from collections.abc import Mapping
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from hdzoo.checks import (
    COUNT,
    LEVELS,
    MAX_LEVELS,
    NOISE_LEVEL,
    Flag,
    Interval,
    Maybe,
    Number,
    OneOf,
    Rule,
    Whole,
    floating,
    refuse,
)
from hdzoo.errors import HDZooError

# Of an image, in pixels.
MAX_SIDE = 2**16
ROUNDINGS = ("strict", "nearest")


def losses(name: str, value: Any) -> Any:
    """The rule of ``held_out_loss``: as many numbers as noise levels, or None."""
    if value is None:
        return None
    keys = ("sigmas", "loss")
    if not isinstance(value, Mapping) or not all(isinstance(value.get(k), list) for k in keys):
        refuse(name, value, '{"sigmas": [...], "loss": [...]}, or None')
    sigmas, loss = (len(value[key]) for key in keys)
    if sigmas != loss:
        raise HDZooError(f"{name} has {sigmas} sigmas and {loss} losses; give one for each")
    return value


# The rules of options that all networks for images have...
IMAGE_RULES: dict[str, Rule] = {
    "sample_size": Whole(1, MAX_SIDE),
    "in_channels": COUNT,
    "data_range": Interval(),
    "held_out_loss": losses,
}
# ... and all that know a ladder.
LADDER_RULES: dict[str, Rule] = {
    **IMAGE_RULES,
    "sigma_max": NOISE_LEVEL,
    "sigma_min": NOISE_LEVEL,
    "num_levels": Whole(1, MAX_LEVELS),
    "sigma_levels": Maybe(LEVELS),
    "centered": Flag(),
    "sigma_rounding": OneOf(ROUNDINGS),
}


def noise_levels(
    timestep: Any,
    batch: int,
    device: Any,
    num_rungs: int | None = None,
    allowed: Number = NOISE_LEVEL,
) -> Tensor:
    """What a network is told, as one number, or one for each sample.

    Args:
        timestep: noise levels, or class indices where ``num_rungs`` is given: a number, a scalar
            tensor, or a tensor of one for each sample. The values of one on an accelerator are not
            looked at, for that would wait.
        batch: number of samples.
        device: where it is to be.
        num_rungs: how many rungs the network knows; None if integers are noise levels as well.
        allowed: the rule of a noise level.

    Returns:
        Shape (1,) or (batch,).

    Raises:
        HDZooError: it is no such number, or a noise level is not allowed.
    """
    if isinstance(timestep, Tensor):
        if timestep.dtype == torch.bool or timestep.is_complex():
            refuse("timestep", timestep, "a tensor of real numbers")
        if timestep.numel() not in (1, batch):
            raise HDZooError(
                f"{timestep.numel()} timesteps are given for {batch} samples; give one, or one for "
                "each sample"
            )
        if timestep.device.type == "cpu":
            for extreme in (timestep.min(), timestep.max()):
                noise_levels(extreme.item(), batch, "cpu", num_rungs, allowed)
        return timestep.to(device).reshape(-1)
    if num_rungs is not None and isinstance(timestep, Integral):
        timestep = Whole(0, num_rungs - 1)("timestep, a class index,", timestep)
    else:
        timestep = allowed("timestep, a noise level,", timestep)
    return torch.as_tensor(timestep, device=device).reshape(-1)


def images(sample: Any, channels: int, multiple: int, network: str) -> Tensor:
    """Checks the images that a network is given.

    Args:
        sample: the images.
        channels: how many they must have.
        multiple: what their height and width must be a multiple of.
        network: the name of its class.

    Raises:
        HDZooError: they are of another dtype or shape.
    """
    floating("sample", sample, f"shape (batch, {channels}, height, width)")
    shape = tuple(sample.shape)
    fits = len(shape) == 4 and shape[1] == channels and 0 not in shape
    if not fits or shape[2] % multiple or shape[3] % multiple:
        sizes = f" of multiples of {multiple}" if multiple > 1 else ""
        raise HDZooError(
            f"sample has the shape {shape}; this {network} needs (batch, {channels}, height, width)"
            f"{sizes}"
        )
    return sample
