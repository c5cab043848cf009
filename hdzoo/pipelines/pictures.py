"""Pictures that a user gives, as tensors in [0, 1]."""

from typing import Any

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor

from hdzoo.errors import HDZooError


def read_pictures(
    name: str, pictures: Any, processor: VaeImageProcessor, *size: int
) -> torch.Tensor:
    """Reads pictures as diffusers does, and refuses what it would take for something else.

    Args:
        name: of the argument, for the message.
        pictures: one or a list of PIL images, or arrays or tensors in [0, 1].
        processor: for their channels; its configuration is changed.
        size: height and width to resize to; none leaves them, and they must be of one size.

    Returns:
        float32, shape (batch, channels, height, width), in [0, 1].

    Raises:
        HDZooError: they are no pictures, or not in [0, 1].
    """
    # Without a size it would resize all to the first one's.
    processor.register_to_config(do_resize=bool(size))
    try:
        pixels = processor.preprocess(_as_floats(pictures), *size)
    except (ValueError, TypeError, RuntimeError, IndexError) as error:
        raise HDZooError(
            f"{name} cannot be read: {error}; give PIL images of one size, or arrays (batch, "
            "height, width, channels) or tensors (batch, channels, height, width) in [0, 1]"
        ) from error
    return check_unit(name, pixels)


def _as_floats(pictures: Any) -> Any:
    """Arrays and tensors as float32, so that those of bool can be resized."""
    if isinstance(pictures, list):
        return [_as_floats(picture) for picture in pictures]
    if isinstance(pictures, np.ndarray):
        return pictures.astype(np.float32)
    return pictures.float() if isinstance(pictures, torch.Tensor) else pictures


def check_unit(name: str, values: torch.Tensor) -> torch.Tensor:
    """Returns the values.

    Raises:
        HDZooError: one is not in [0, 1], or not a number.
    """
    if not ((values >= 0) & (values <= 1)).all():
        raise HDZooError(
            f"{name} has values from {values.min():g} to {values.max():g}; they must be in [0, 1] "
            "(divide eight-bit ones by 255)"
        )
    return values
