"""Samples as they come in, tensors or arrays of any dtype, as checked arrays of float64."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hdzoo.checks import refuse
from hdzoo.errors import HDZooError

Array = torch.Tensor | npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]


def to_numpy(values: Any, name: str) -> Float64:
    """A tensor, an array, a list or a number as an array of float64, which may be a view.

    Raises:
        HDZooError: it holds something else than real numbers.
    """
    if isinstance(values, torch.Tensor):
        # numpy has no bfloat16, so the tensor is widened first.
        values = values.detach().cpu()
        values = values.double().numpy() if values.is_floating_point() else values.numpy()
    try:
        array = np.asarray(values)
    except (TypeError, ValueError) as error:
        refuse(name, values, "an array of numbers, all rows of one length", error)
    if array.dtype.kind not in "biuf":
        refuse(name, array if array.ndim else values, "an array of real numbers")
    # What is too large for float64 comes out infinite.
    with np.errstate(over="ignore"):
        return array.astype(np.float64, copy=False)


def power_of_two(*arrays: Float64) -> float:
    """A power of two of the size of the largest absolute value; 1 if all are 0.

    Divided by it, which is exact, the numbers can be squared and summed whatever their units.
    """
    largest = max(float(np.abs(array).max(initial=0)) for array in arrays)
    return math.ldexp(1.0, math.frexp(largest)[1] - 1) if largest > 0 else 1.0


def float64_array(values: Any, name: str) -> Float64:
    """A tensor, an array or a number as a float64 array.

    Args:
        values: what to convert; any shape, any device.
        name: what to call it in an error.

    Returns:
        The same shape; a view where nothing had to be converted.

    Raises:
        HDZooError: it holds something else than real numbers, or a value that is not finite.
    """
    array = to_numpy(values, name)
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


def masses_of(x: Any, y: Any, num_x: int, num_y: int) -> tuple[Float64, Float64]:
    """The masses of two samples' points, from weights or None for equal ones; their sums agree.

    From whole numbers come whole numbers times a power of two, which a solver adds and subtracts
    without rounding.
    """
    p, q = _weights(x, num_x, "x_weights"), _weights(y, num_y, "y_weights")
    unit = power_of_two(p.sum() * q.sum())
    return p * q.sum() / unit, q * p.sum() / unit


def _weights(values: Any, num_points: int, name: str) -> Float64:
    if values is None:
        return np.ones(num_points)
    weights = float64_array(values, name)
    if weights.shape != (num_points,) or (weights < 0).any() or not (weights > 0).any():
        raise HDZooError(
            f"{name} has shape {weights.shape}, smallest value {weights.min(initial=0):g} and "
            f"largest {weights.max(initial=0):g}; it must have shape ({num_points},), no value "
            "below 0 and one above"
        )
    # Their sum may be too large for float64.
    return weights / power_of_two(weights)
