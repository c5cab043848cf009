"""Samples as they come in, tensors or arrays of any dtype, as checked arrays of float64."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hdzoo.checks import real_array
from hdzoo.errors import HDZooError

Array = torch.Tensor | npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]


def power_of_two(*arrays: Float64) -> float:
    """A power of two of the size of the largest absolute value; 1 if all are 0.

    Divided by it, which is exact, the numbers can be squared and summed whatever their units.
    """
    largest = max(float(np.abs(array).max(initial=0)) for array in arrays)
    return math.ldexp(1.0, math.frexp(largest)[1] - 1) if largest > 0 else 1.0


def points_of(values: Any, name: str, at_least: int = 1) -> Float64:
    array = real_array(name, values)
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
    weights = real_array(name, values)
    if weights.shape != (num_points,) or (weights < 0).any() or not (weights > 0).any():
        raise HDZooError(
            f"{name} has shape {weights.shape}, smallest value {weights.min(initial=0):g} and "
            f"largest {weights.max(initial=0):g}; it must have shape ({num_points},), no value "
            "below 0 and one above"
        )
    # Their sum may be too large for float64.
    return weights / power_of_two(weights)
