"""Noise levels of networks that know a range of them."""

from typing import Any

from hdzoo.checks import as_float64
from hdzoo.errors import HDZooError


def check_range(sigmas: Any, low: float, high: float) -> None:
    """Refuses noise levels outside the range that a network was trained for.

    Args:
        sigmas: the noise levels that a sampler is about to ask for.
        low: the smallest that it knows.
        high: the largest.

    Raises:
        HDZooError: one of them is outside.
    """
    # A ladder's ends come out of exp(log(.)), which may miss the range by a rounding.
    asked = as_float64("sigmas", sigmas).flatten().tolist()
    outside = [s for s in asked if not low * (1 - 1e-6) <= s <= high * (1 + 1e-6)]
    if outside:
        raise HDZooError(
            f"this network was trained for noise levels from {low:g} to {high:g}, and a "
            f"call asks for {outside[0]:g}; change sigma, sigma_max, sigma_min or sigmas"
        )
