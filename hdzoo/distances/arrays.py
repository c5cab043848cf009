"""Samples as they come in, tensors or arrays of any dtype, as checked arrays of float64."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hdzoo.errors import HDZooError

Array = torch.Tensor | npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]


def to_numpy(values: Any) -> Float64:
    if isinstance(values, torch.Tensor):
        # numpy has no bfloat16, so the tensor is widened first.
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)


def float64_array(values: Any, name: str) -> Float64:
    """A tensor, an array or a number as a float64 array.

    Args:
        values: what to convert; any shape, any device.
        name: what to call it in an error.

    Returns:
        The same shape; a view where nothing had to be converted.

    Raises:
        HDZooError: a value is not finite.
    """
    array = to_numpy(values)
    wrong = array.size - int(np.isfinite(array).sum())
    if wrong:
        raise HDZooError(
            f"{name} has {wrong} of {array.size} values that are not finite; look for where the "
            "sampler diverged, or leave those points out"
        )
    return array


def points_of(values: Any, name: str, at_least: int = 1) -> Float64:
    array = float64_array(values, name)
    if array.ndim == 0 or len(array) < at_least or array.size == 0:
        raise HDZooError(
            f"{name} has shape {array.shape}; give a sample of shape (n, d), n at least {at_least}"
        )
    return array.reshape(len(array), -1)


def pair(x: Any, y: Any, at_least: int = 1) -> tuple[Float64, Float64]:
    a, b = points_of(x, "x", at_least), points_of(y, "y", at_least)
    if a.shape[1] != b.shape[1]:
        raise HDZooError(
            f"x has points of dimension {a.shape[1]} and y of {b.shape[1]}; they must be the same"
        )
    return a, b


def weights_of(values: Any, num_points: int, name: str) -> Float64:
    if values is None:
        return np.full(num_points, 1 / num_points)
    weights = float64_array(values, name)
    if weights.shape != (num_points,) or (weights < 0).any() or weights.sum() <= 0:
        raise HDZooError(
            f"{name} has shape {weights.shape}, smallest value {weights.min(initial=0):g} and sum "
            f"{weights.sum():g}; it must have shape ({num_points},), no value below 0 and a "
            "positive sum"
        )
    return weights / weights.sum()
