"""Pictures that a user gives, as tensors in [0, 1]."""

import warnings
from typing import Any

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from torch.nn import functional as F

from hdzoo.errors import HDZooError
from hdzoo.images.picture import has_colour, read_picture, values, white


def read_pictures(name: str, pictures: Any, channels: int) -> torch.Tensor:
    """Reads pictures as diffusers does, and refuses what it would take for something else.

    PIL images are read by `hdzoo.images.picture.read_picture`: turned as their EXIF orientation
    says, with 16 bits where they are grey and have them. Colours that a single channel cannot have
    are said in a warning.

    Args:
        name: of the argument, for the message.
        pictures: one or a list of PIL images, or arrays or tensors in [0, 1], of one size.
        channels: of what comes back, for PIL images; arrays and tensors have their own.

    Returns:
        float32, shape (batch, channels, height, width), in [0, 1].

    Raises:
        HDZooError: they are no pictures, not of one size, or not in [0, 1].
    """
    listed = list(pictures) if isinstance(pictures, list | tuple) else [pictures]
    if listed and all(isinstance(picture, Image.Image) for picture in listed):
        return _read_images(name, listed, channels)
    processor = VaeImageProcessor(
        do_resize=False, do_normalize=False, do_convert_grayscale=channels == 1
    )
    try:
        pixels = processor.preprocess(_as_floats(pictures))
    except (ValueError, TypeError, RuntimeError, IndexError, AttributeError) as error:
        raise HDZooError(
            f"{name} cannot be read: {error}; give PIL images of one size, or arrays (batch, "
            "height, width, channels) or tensors (batch, channels, height, width) in [0, 1]"
        ) from error
    return check_unit(name, pixels)


def resize(name: str, pixels: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Pictures at another size, bicubic with antialiasing, which is said in a warning.

    Args:
        name: of the argument, for the warning.
        pixels: in [0, 1], shape (batch, channels, height, width).
        height: of what comes back.
        width: of what comes back.
    """
    if tuple(pixels.shape[-2:]) == (height, width):
        return pixels
    warnings.warn(
        f"{name} is {pixels.shape[-1]} x {pixels.shape[-2]} pixels (width x height), and is "
        f"resized to the network's {width} x {height}",
        stacklevel=2,
    )
    resized = F.interpolate(pixels, (height, width), mode="bicubic", antialias=True)
    # The filter goes beyond the range.
    return resized.clamp(0, 1)


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


def _read_images(name: str, images: list[Image.Image], channels: int) -> torch.Tensor:
    several = len(images) > 1
    names = [f"{name}[{i}]" if several else name for i in range(len(images))]
    for i, image in enumerate(images):
        file = getattr(image, "filename", "")
        names[i] += f" ({file})" if file else ""
    read = [read_picture(image, name) for image, name in zip(images, names, strict=True)]
    sizes = sorted({picture.size for picture in read})
    if len(sizes) > 1:
        found = ", ".join(f"{width} x {height}" for width, height in sizes)
        raise HDZooError(f"{name} has pictures of several sizes ({found}); bring them to one")
    if channels == 1 and any(map(has_colour, read)):
        warnings.warn(f"{name} has colours, of which the brightness alone is taken", stacklevel=3)
    if channels not in (1, 3):
        # The network's refusal names both.
        channels = len(read[0].getbands())
    arrays = [values(picture, channels) / white(picture) for picture in read]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)


def _as_floats(pictures: Any) -> Any:
    """Arrays and tensors as float32, so that those of bool can be resized."""
    if isinstance(pictures, list):
        return [_as_floats(picture) for picture in pictures]
    if isinstance(pictures, np.ndarray):
        return pictures.astype(np.float32)
    return pictures.float() if isinstance(pictures, torch.Tensor) else pictures
